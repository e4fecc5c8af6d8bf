"""What `penstock bench` shows a person: how it goes on, and the latencies as a plot of text."""

from __future__ import annotations

import math
import time
from typing import Any, TextIO

STEPS = " ▁▂▃▄▅▆▇█"
PARTS = " ▏▎▍▌▋▊▉█"
WIDTH = 40
EVERY_S = 0.5
SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 0.99999, 1.0)


class Progress:
    """A line on a terminal, written over as the load goes on: rate, errors, the last rates."""

    def __init__(self, out: TextIO, seconds: float, clock: Any = time.monotonic) -> None:
        self.out, self.seconds, self.clock = out, seconds, clock
        self.began = self.last = clock()
        self.before = 0
        self.rates: list[float] = []

    def __call__(self, acknowledged: int, errors: int, waiting: int) -> None:
        now = self.clock()
        if now - self.last < EVERY_S:
            return
        self.rates.append((acknowledged - self.before) / (now - self.last))
        self.before, self.last = acknowledged, now
        left = f" of {self.seconds:.0f}" if self.seconds else ""
        text = (f"{now - self.began:6.1f}{left} s  {self.rates[-1]:>12,.0f} /s  "
                f"{errors:,} errors  {waiting:,} in flight  {spark(self.rates[-WIDTH:])}")
        self.out.write(f"\r{text}\x1b[K")
        self.out.flush()

    def close(self) -> None:
        if self.rates:
            self.out.write("\n")


def spark(values: list[float]) -> str:
    """One letter for each value, as high as it is beside the highest."""
    highest = max(values, default=0.0) or 1.0
    return "".join(STEPS[round(value / highest * (len(STEPS) - 1))] for value in values)


def percentiles(histogram: list[tuple[float, int]]) -> list[tuple[float, float, int]]:
    """Share, latency in µs and how many were slower, for the shares that the count can tell."""
    total = sum(count for _, count in histogram)
    found: list[tuple[float, float, int]] = []
    for share in SHARES:
        # A share that no single latency stands above says no more than the highest.
        if share < 1 and total * (1 - share) < 1:
            continue
        seen = 0
        for middle, count in histogram:
            seen += count
            if seen >= math.ceil(share * total):
                found.append((share, middle, total - seen))
                break
    return found


def latency_plot(histogram: list[tuple[float, int]]) -> list[str]:
    """Lines: how many requests took from so long to so long, in steps of a root of two."""
    bars: dict[int, int] = {}
    for middle, count in histogram:
        step = math.floor(math.log2(max(middle, 0.001)) * 2)
        bars[step] = bars.get(step, 0) + count
    if not bars:
        return []
    highest = max(bars.values())
    lines = []
    for step in range(min(bars), max(bars) + 1):
        count = bars.get(step, 0)
        eighths = round(count / highest * WIDTH * 8)
        # What is there at all is seen.
        eighths = max(eighths, 1) if count else 0
        bar = PARTS[8] * (eighths // 8) + PARTS[eighths % 8].strip()
        lines.append(f"{_duration(2 ** (step / 2)):>9}  {bar:<{WIDTH}} {count:,}")
    return lines


def percentile_lines(histogram: list[tuple[float, int]]) -> list[str]:
    return [f"{share * 100:>9.7g} %  {_duration(value):>9}   {above:,} slower"
            for share, value, above in percentiles(histogram)]


def hdr_lines(histogram: list[tuple[float, int]]) -> list[str]:
    """The percentile distribution as HdrHistogram's tools read and plot it, values in ms."""
    total = sum(count for _, count in histogram)
    lines = ["       Value     Percentile TotalCount 1/(1-Percentile)", ""]
    seen = 0
    for middle, count in histogram:
        seen += count
        share = seen / total
        inverse = f"{1 / (1 - share):.2f}" if share < 1 else "inf"
        lines.append(f"{middle / 1e3:12.3f} {share:14.12f} {seen:10d} {inverse:>14}")
    mean = sum(middle * count for middle, count in histogram) / max(total, 1)
    spread = sum((middle - mean) ** 2 * count for middle, count in histogram) / max(total, 1)
    highest = max((middle for middle, _ in histogram), default=0.0)
    lines += [f"#[Mean    = {mean / 1e3:12.3f}, StdDeviation   = {spread ** 0.5 / 1e3:12.3f}]",
              f"#[Max     = {highest / 1e3:12.3f}, Total count    = {total:12d}]"]
    return lines


def _duration(micros: float) -> str:
    for limit, unit, size in ((1000.0, "µs", 1.0), (1e6, "ms", 1e3), (math.inf, "s", 1e6)):
        if micros < limit:
            return f"{micros / size:.3g} {unit}"
    return ""
