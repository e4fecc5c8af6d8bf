"""Make the tables of docs/performance.md and the plots beside it from the kept results.

    python benchmarks/peers/report.py

Reads benchmarks/peers/results/*.json; what stands between the two marks of the page is replaced.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from peers.plots import bars, lines  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
PAGE, PLOTS = ROOT / "docs" / "performance.md", ROOT / "docs" / "plots"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
TITLES = {
    "W1": "W1: four connections send batches of 1000, each acknowledged",
    "W2": "W2: 64 connections, one message in flight on each",
    "W3": "W3: sent in hundreds, received and confirmed meanwhile; latency through the queue",
    "W3p": "W3 paced: latency through the queue, from when a message was due",
    "W4 fill": "W4: a backlog is sent",
    "W4 drain": "W4: the backlog is received and confirmed",
    "E1": "Embedded, batches of 1000",
    "E2": "Embedded, one message at a time",
}
COMMANDS = {
    "penstock bench send --tcp HOST:PORT":
        "rates and a plot of latencies; `--http`, `--cmq-tcp`; `--json`, `--hdr FILE`",
    "penstock bench send --tcp HOST:PORT --rate 20000":
        "the open loop: latencies from when a message was due, so that a stall is seen in full",
    "make asv": "the suites; `COMMITS=main~5..main` for commits, `make asv-html` for pages",
    "make gate BASE=main~1":
        "what a call costs in two commits, counted; fails if it grew by more than a few per cent",
    'make test ARGS="tests/bench/test_micro.py --benchmark-enable --benchmark-compare"':
        "the smallest steps of the engine",
    "make peers": "the tables of servers below, W1 to W3",
    "python benchmarks/peers/run.py --works W2 --durable --delay-ms 5":
        "the same with a slower disk; `--works W4` for a backlog",
    "python benchmarks/peers/embedded.py": "the tables of libraries below",
    "python benchmarks/scale.py": "the plots of how cost grows below",
}
# From this share on, what others do beside a measurement is more than a few per cent of its figure.
DISTURBED = 0.25
Row = dict[str, Any]


def rows() -> tuple[list[Row], list[dict[str, Any]]]:
    """All rows, those of the same thing joined, and what else each file says."""
    joined: dict[tuple[Any, ...], Row] = {}
    files = []
    for path in sorted(RESULTS.glob("*.json")):
        told = json.loads(path.read_text())
        files.append({"name": path.name, **told})
        for row in told.get("rows", []):
            key = tuple(row[name] for name in ("work", "size", "delay_ms", "peer", "setting"))
            kept = joined.setdefault(key, {**row, "rounds": []})
            kept["rounds"] += row["rounds"]
    return list(joined.values()), files


def median(row: Row, figure: str) -> float | None:
    """The median of the rounds in which nothing failed."""
    values = [one[figure] for one in row["rounds"] if figure in one and not one["errors"]]
    return statistics.median(values) if values else None


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def busy(told: dict[str, Any]) -> str:
    """How much else ran, where it was kept."""
    load = told.get("load_average")
    return f", at a load average of {load:g} on {told['cpus']} CPUs" if load is not None else ""


def share(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.0f} %"


def table(chosen: Iterable[Row]) -> list[str]:
    out = ["| | setting | messages/s | lowest-highest | p50 µs | p99 µs | p99.9 µs |"
           " CPU s per million | private MiB | others |", "|---|" + "---|" * 9]
    for row in sorted(chosen, key=lambda one: (not one["durable"], -(median(one, "rate") or 0))):
        rates = [one["rate"] for one in row["rounds"] if not one["errors"]]
        private = median(row, "private_bytes")
        failed = sum(1 for one in row["rounds"] if one["errors"])
        note = f" ({failed} of {len(row['rounds'])} rounds failed)" if failed else ""
        name = f"**{row['peer']}**" if row["peer"].startswith("penstock") else row["peer"]
        span = f"{min(rates):,.0f}-{max(rates):,.0f}" if len(rates) > 1 else ""
        out.append(
            f"| {name} | {row['setting']}{note} | {number(median(row, 'rate'))} | {span} |"
            f" {number(median(row, 'p50_us'))} | {number(median(row, 'p99_us'))} |"
            f" {number(median(row, 'p999_us'))} |"
            f" {number(median(row, 'server_cpu_per_million'), 1)} |"
            f" {number(private / (1 << 20) if private else None)} |"
            f" {share(median(row, 'others_share'))} |")
    return out


def sections(found: list[Row]) -> Iterable[str]:
    groups = sorted({(list(TITLES).index(row["work"]), row["delay_ms"], row["size"])
                     for row in found})
    for at, delay, size in groups:
        work = list(TITLES)[at]
        chosen = [row for row in found if (row["work"], row["delay_ms"], row["size"])
                  == (work, delay, size)]
        slower = f", each sync {delay:g} ms longer" if delay else ""
        yield f"### {TITLES[work]}, {size} bytes{slower}"
        yield ""
        others = [value for row in chosen if (value := median(row, "others_share")) is not None]
        if others and statistics.median(others) > DISTURBED:
            yield (f"**Other programs took {statistics.median(others) * 100:.0f} % of the machine "
                   "meanwhile: this tells an order, not rates.** Run `make peers` on a quiet one.")
            yield ""
        yield from table(chosen)
        yield ""


def plots(found: list[Row], files: list[dict[str, Any]]) -> Iterable[str]:
    """Write the plots; the lines of the page that show them."""
    PLOTS.mkdir(exist_ok=True)
    for work in ("W1", "W2", "W3"):
        chosen = [row for row in found if row["work"] == work and row["size"] == 128
                  and not row["delay_ms"] and median(row, "rate")]
        if chosen:
            chosen.sort(key=lambda one: -(median(one, "rate") or 0))
            (PLOTS / f"{work}.svg").write_text(bars(
                f"{TITLES[work]} (128 bytes)", "messages/s",
                [(f"{one['peer']}, {one['setting']}", median(one, "rate") or 0.0,
                  one["durable"], one["peer"] == "penstock") for one in chosen]))
            yield f"![{TITLES[work]}](plots/{work}.svg)"
            yield ""
    for told in files:
        for plot in told.get("plots", []):
            (PLOTS / f"{plot['name']}.svg").write_text(lines(
                plot["title"], plot["x"], plot["y"], plot["series"], plot.get("log_x", True)))
            yield f"![{plot['title']}](plots/{plot['name']}.svg)"
            yield ""
            yield f"{plot['title']}: `{plot['command']}`, {told['when']}{busy(told)}."
            yield ""


def page() -> str:
    found, files = rows()
    out = [BEGIN, "", "## Measuring it yourself", "", "| command | what it tells |", "|---|---|"]
    out += [f"| `{command}` | {what} |" for command, what in COMMANDS.items()]
    out += ["", "## Nine other queues, loaded alike", ""]
    out += ["`make peers` gets them from their registries, starts each in its durable and in its "
            "default setting, and loads them in turns with",
            "one loader (`benchmarks/peers/load` in Go, `benchmarks/peers/java` for Kafka and "
            "RocketMQ); `benchmarks/peers/embedded.py` does the libraries. The loader",
            "is not the one of `penstock bench` and costs more, so our own figures are lower here "
            "than above. Server and loader share two cores. Rates are of",
            "acknowledged, in W3 of confirmed messages; medians of the rounds. *Others* is what "
            "share of the machine other programs took meanwhile: where it is large, a",
            "rate is a lower bound and only the order of magnitude counts. These tables are "
            "made by `python benchmarks/peers/report.py` from `benchmarks/peers/results/`.", ""]
    out += sections(found)
    out += plots(found, files)
    missing = {name: why for told in files for name, why in told.get("missing", {}).items()}
    for name in sorted(missing):
        out.append(f"- Not measured, or not in every round: {name}: {missing[name]}")
    out += [""] if missing else []
    out += ["What each file holds:", ""]
    out += [f"- `{told['name']}`: {told['when']}, {told['cpus']} CPUs, kernel {told['kernel']}, "
            f"commit {told['commit'][:10]}{busy(told)}" for told in files]
    return "\n".join([*out, "", END])


def main() -> int:
    """Rewrite the page."""
    text = PAGE.read_text()
    if BEGIN in text:
        before, _, rest = text.partition(BEGIN)
        text = before + page() + rest.partition(END)[2]
    else:
        text = text.rstrip() + "\n\n" + page() + "\n"
    PAGE.write_text(text)
    print(f"{os.path.relpath(PAGE)} is rewritten")
    return 0


if __name__ == "__main__":
    sys.exit(main())
