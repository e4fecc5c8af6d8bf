"""What was asked of the product in figures: what it reached, and what stands in its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from peers.kept import Row, median
from peers.tables import DISTURBED

# From the profiles of docs/performance.md, "What limits the rows that miss".
LIMITS = {
    "single": "the kernel: sends on the loopback are 52 % of the samples",
    "pipelined": "the kernel and the loader first: without any sync (`pipelined-kernel`) it is not "
                 "much more than what was asked for; then the device: 512 requests wait together "
                 "for each sync, a third of the samples is idle",
    "batches": "the memory of a virtual machine: a GiB of pages that its host has to find first "
               "takes 2.2 s, else 0.17 (`benchmarks/machine.py`). The round that met pages at hand "
               "did 2,964,000, and 3,003,000 in another run, three times Kafka. Then the wait of "
               "four connections for each sync: with 8 × 4 in flight it is 3,637,000 "
               "(`batches-disk`), with log made ready 5,655,000",
    "http": "the kernel: the native protocol at 64 × 1, which parses no HTTP, is hardly faster",
    "W1": "the design: each message has a checksum and an index entry of its own, where Kafka "
          "keeps a batch as its client packed it",
    "W2": "the kernel: sends on the loopback, and syncs and switches of threads",
    "W3": "the window of 10,000 messages that may be on their way",
    "tail": "the machine, as far as it was found out: about once a second a processor runs nothing "
            "but the kernel for 2 to 6 ms, which a thread of real-time priority sees as well, and "
            "two such stalls are 0.1 % of the requests. Medians of three rounds without the other "
            "servers beside (`--peers penstock,redis,beanstalkd`): 7,871 µs, in the kernel 3,555; "
            "Redis always 7,894, everysec 4,270; beanstalkd synced 10,946, in memory 8,787",
    "workers": "nothing is idle with one worker and the loader; two make rounds of half the size: "
               "2.7 times the syncs and 1.7 times the context switches a message (`perf stat`, "
               "one run of an earlier build, with other work beside it)",
}
# Peers that are named, of those that are lower.
SHOWN = 3
Line = tuple[str, str, bool | None, str, str]


def _row(rows: list[Row], work: str, peer: str, setting: str, size: int = 128) -> Row | None:
    return next((row for row in rows if (row["work"], row["peer"], row["setting"], row["size"],
                 row["delay_ms"]) == (work, peer, setting, size, 0)), None)


def _others(rows: list[Row], work: str, figure: str) -> list[tuple[float, str]]:
    return sorted((value, f"{row['peer']} {row['setting']}"
                   + ("" if row["durable"] else " (not on disk)")) for row in rows
                  if row["work"] == work and row["size"] == 128 and not row["delay_ms"]
                  and row["peer"] != "penstock" and (value := median(row, figure)) is not None)


def _beside(row: Row | None) -> str:
    """What share of the machine others took, where that is more than a few per cent of a figure."""
    others = median(row, "others_share") if row else None
    return f"; others took {others:.0%} meanwhile" if others and others > DISTURBED else ""


def _compared(files: list[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """A row of compare.py in all runs that are kept."""
    return [entry for told in files for entry in told.get("compared", [])
            if entry["key"] == key and entry["ratio"] is not None]


def _all(found: list[bool]) -> bool | None:
    """Whether it was reached in every run, or missed in every run; None: now so, now so."""
    return None if any(found) and not all(found) else all(found)


def _ratio(files: list[dict[str, Any]], key: str, least: float, asked: str, why: str) -> Line:
    command = f"python benchmarks/compare.py --rows {key}"
    entries = _compared(files, key)
    if not entries:
        return asked, "not measured", None, why, command
    told = "; ".join(f"{entry['ratio']:.2f} × (" + ", ".join(
        f"{one['name']} {one['rate']:,.0f} /s" for one in entry["contenders"] if one["rate"]) + ")"
        for entry in entries)
    return asked, told, _all([entry["ratio"] >= least for entry in entries]), why, command


def _pipelined(files: list[dict[str, Any]]) -> Line:
    asked = "8 connections × 64 in flight, durable: 2,500,000/s"
    command = "python benchmarks/compare.py --rows pipelined-disk"
    rates = [one["rate"] for entry in _compared(files, "pipelined-disk")
             for one in entry["contenders"] if one["name"] == "penstock" and one["rate"]]
    if not rates:
        return asked, "not measured", None, LIMITS["pipelined"], command
    return (asked, "; ".join(f"{rate:,.0f} /s" for rate in rates),
            _all([rate >= 2.5e6 for rate in rates]), LIMITS["pipelined"], command)


def _batches(rows: list[Row]) -> Line:
    asked = "batches, durable: 5 × the best peer's default setting"
    command = "python benchmarks/peers/run.py --works W1 --sizes 128"
    ours = _row(rows, "W1", "penstock", "disk (default)")
    peers = [one for one in _others(rows, "W1", "rate") if "default" in one[1]]
    rate = median(ours, "rate") if ours else None
    if rate is None or not peers:
        return asked, "not measured", None, LIMITS["batches"], command
    best, name = peers[-1]
    return (asked, f"{rate / best:.2f} × (penstock {rate:,.0f} /s, {name} {best:,.0f} /s)"
            + _beside(ours),
            rate >= 5 * best, LIMITS["batches"], command)


def _lowest(rows: list[Row], work: str, figure: str, asked: str, unit: str, why: str) -> Line:
    """Ours must be below the lowest of all peers, whatever their setting."""
    works = "W2,W2h" if work == "W2h" else work
    command = f"python benchmarks/peers/run.py --works {works} --sizes 128"
    ours = _row(rows, work, "penstock", "disk (default)")
    value = median(ours, figure) if ours else None
    peers = _others(rows, work, figure)
    if value is None or not peers:
        return asked, "not measured", None, why, command
    below = [f"{name} {other:,.1f}" for other, name in peers if other <= value]
    more = f" and {len(below) - SHOWN} more" if len(below) > SHOWN else ""
    told = f"{value:,.1f} {unit}; " + (
        "lower: " + "; ".join(below[:SHOWN]) + more if below
        else f"next {peers[0][1]} {peers[0][0]:,.1f}") + _beside(ours)
    return asked, told, not below, why, command


def _workers(files: list[dict[str, Any]]) -> Line:
    asked = "two workers against one, on two cores"
    plot = next((one for told in files for one in told.get("plots", [])
                 if one["name"] == "workers"), None)
    if plot is None:
        return asked, "not measured", None, LIMITS["workers"], ""
    told = []
    for name, points in plot["series"].items():
        by = dict(map(tuple, points))
        told.append(f"{name}: {by[2] / by[1]:.2f} ×")
    return asked, ", ".join(told), None, LIMITS["workers"], plot["command"]


def lines(rows: list[Row], files: list[dict[str, Any]]) -> Iterable[str]:
    """The table."""
    made: list[Callable[[], Line]] = [
        lambda: _ratio(files, "single-disk", 1.5,
                       "64 × 1 in flight, durable: 1.5 × Redis `appendfsync always`",
                       LIMITS["single"]),
        lambda: _pipelined(files),
        lambda: _batches(rows),
        lambda: _ratio(files, "http-send", 0.75, "HTTP, durable: 0.75 × nginx `return 200`",
                       LIMITS["http"]),
        *(lambda work=work: _lowest(  # type: ignore[misc]
            rows, work, "server_cpu_per_million",
            f"{work}: CPU seconds per million below every peer's", "s", LIMITS[work])
          for work in ("W1", "W2", "W3")),
        lambda: _lowest(rows, "W2h", "p999_us", "p99.9 at half load below every peer's", "µs",
                        LIMITS["tail"]),
        lambda: _workers(files),
    ]
    yield "| asked for | measured | | what limits it | command |"
    yield "|---|---|---|---|---|"
    for make in made:
        asked, told, reached, why, command = make()
        verdict = {True: "reached", False: "**missed**", None: ""}[reached]
        if reached is None and ";" in told:
            verdict = "not in every run"
        yield f"| {asked} | {told} | {verdict} | {'' if reached else why} | `{command}` |"
