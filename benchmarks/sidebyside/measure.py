"""Rows of a comparison: contenders measured in turns, in the same run, on the same machine."""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from sidebyside.counters import Counting

Figures = dict[str, float]
# Machines drift within a minute; a round is short enough that both sides see the same one.
COUNTED = ("fdatasyncs_per_message", "syscalls_per_message", "written_per_message")


class MissingError(Exception):
    """A contender that cannot run here, and why."""


@dataclass
class Running:
    """A contender that has been started: what measures it, and whose counters are its own."""

    measure: Callable[[float], Figures]
    pid: int | None = None
    refill: Callable[[], None] | None = None


@dataclass
class Contender:
    name: str
    start: Callable[[ExitStack], Running]


@dataclass
class Row:
    """One line of the table. The first contender is ours."""

    key: str
    title: str
    contenders: list[Contender]
    target: str = ""
    at_least: float = 0.0
    of_best_peer: float = 0.0
    p99_us: float = 0.0


@dataclass
class Result:
    row: Row
    rounds: dict[str, list[Figures]] = field(default_factory=dict)
    counted: dict[str, Figures] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def median(self, name: str, figure: str = "rate") -> float | None:
        values = [figures[figure] for figures in self.rounds.get(name, []) if figure in figures]
        return statistics.median(values) if values else None

    def ratio(self) -> float | None:
        """Ours against the best peer: the median of the rounds' own ratios."""
        ours, *peers = [contender.name for contender in self.row.contenders]
        rates = [(self.median(name) or 0.0, name) for name in peers if self.rounds.get(name)]
        if not rates or not self.rounds.get(ours):
            return None
        pairs = zip(self.rounds[ours], self.rounds[max(rates)[1]], strict=False)
        return statistics.median(mine["rate"] / peer["rate"] for mine, peer in pairs)

    def reached(self) -> bool | None:
        """Whether the target is met; None if there is none or ours did not run."""
        name = self.row.contenders[0].name
        rate, ratio = self.median(name), self.ratio()
        asked = self.row.at_least or self.row.of_best_peer or self.row.p99_us
        if rate is None or not asked or (self.row.of_best_peer and ratio is None):
            return None
        slow = self.row.p99_us and (self.median(name, "p99_us") or 0.0) > self.row.p99_us
        wrong = any(figures.get("errors") for figures in self.rounds[name])
        return not (wrong or slow or rate < self.row.at_least
                    or (ratio or 0.0) < self.row.of_best_peer)


def measure(row: Row, rounds: int, seconds: float, data: str) -> Result:
    """Start every contender of a row, measure them in turns, then once more with counters."""
    result = Result(row)
    running: dict[str, Running] = {}
    with ExitStack() as stack:
        for contender in row.contenders:
            try:
                running[contender.name] = contender.start(stack)
            except MissingError as missing:
                result.missing[contender.name] = str(missing)
            except Exception as error:  # It is no reason to leave the others unmeasured.
                result.missing[contender.name] = f"failed: {type(error).__name__}: {error}"[:400]
        for number in range(rounds):
            # The order changes, so that what one leaves behind does not always hit the other.
            for name in list(running)[:: 1 if number % 2 == 0 else -1]:
                figures = _attempt(result, running, name, seconds)
                if figures:
                    result.rounds.setdefault(name, []).append(figures)
        for name in list(running):
            pid = running[name].pid
            if pid is not None:
                _count(result, running, name, Counting(pid, data), min(seconds, 2.0))
    return result


def _attempt(result: Result, running: dict[str, Running], name: str,
             seconds: float) -> Figures | None:
    try:
        refill = running[name].refill
        if refill is not None:
            refill()
        # What others have left to be written back is not this one's.
        os.sync()
        return running[name].measure(seconds)
    except Exception as error:  # A failure is a line of the report, not the end of the run.
        result.missing[name] = f"failed: {type(error).__name__}: {error}"[:400]
        print(f"  {name}: {result.missing[name]}", file=sys.stderr)
        del running[name]
        return None


def _count(result: Result, running: dict[str, Running], name: str, counting: Counting,
           seconds: float) -> None:
    """Counting slows what is counted, so it has a round of its own that no rate is taken from."""
    refill = running[name].refill
    try:
        if refill is not None:
            refill()
        with counting:
            figures = running[name].measure(seconds)
    except Exception as error:
        print(f"  {name}: not counted: {error}", file=sys.stderr)
        return
    # The warm-up and the calibration are in the counters, so they must be in the messages too.
    messages = figures.get("acknowledged") or figures.get("messages")
    if messages:
        result.counted[name] = {
            f"{what}_per_message": value / messages for what, value in counting.found.items()
        }
