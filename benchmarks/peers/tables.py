"""The tables of the report, from rows as they are kept."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from peers.kept import Row, median

TITLES = {
    "W1": "W1: four connections send batches of 1000, each acknowledged",
    "W2": "W2: 64 connections, one message in flight on each",
    "W2h": "W2 at half of the rate that each reached in it, open loop",
    "W3": "W3: sent in hundreds, received and confirmed meanwhile; latency through the queue",
    "W3p": "W3 paced: latency through the queue, from when a message was due",
    "W4 fill": "W4: a backlog is sent",
    "W4 drain": "W4: the backlog is received and confirmed",
    "E1": "Embedded, batches of 1000",
    "E2": "Embedded, one message at a time",
}
HEAD = ["| | setting | messages/s | lowest-highest | p50 µs | p99 µs | p99.9 µs |"
        " CPU s per million | private MiB | others |", "|---|" + "---|" * 9]
# From this share on, what others do beside a measurement is more than a few per cent of its figure.
DISTURBED = 0.25
# Who is asked for so many a second and does a tenth less is not slow but overloaded.
KEEPS_UP = 0.9


def number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.0f} %"


def notes(row: Row) -> str:
    """What must be known beside the figures of a row."""
    found = []
    failed = sum(1 for one in row["rounds"] if one["errors"])
    if failed:
        found.append(f"{failed} of {len(row['rounds'])} rounds failed")
    due, rate = median(row, "due"), median(row, "rate")
    if due and rate is not None and rate < KEEPS_UP * due:
        found.append(f"does not keep up with {due:,.0f} a second")
    if row["work"].startswith("W4") and (messages := median(row, "messages")):
        found.append(f"{messages:,.0f} messages")
    if row.get("missing") and row["rounds"]:
        found.append(f"not in every round: {row['missing']}")
    return f" ({'; '.join(found)})" if found else ""


def line(row: Row) -> str:
    name = f"**{row['peer']}**" if row["peer"].startswith("penstock") else row["peer"]
    if not row["rounds"]:
        why = row.get("missing", "not measured yet").replace("|", "/").replace("\n", " ")
        return f"| {name} | {row['setting']} | *{why}* |" + " |" * 7
    rates = [one["rate"] for one in row["rounds"] if not one["errors"]]
    private = median(row, "private_bytes")
    span = f"{min(rates):,.0f}-{max(rates):,.0f}" if len(rates) > 1 else ""
    return (f"| {name} | {row['setting']}{notes(row)} | {number(median(row, 'rate'))} | {span} |"
            f" {number(median(row, 'p50_us'))} | {number(median(row, 'p99_us'))} |"
            f" {number(median(row, 'p999_us'))} |"
            f" {number(median(row, 'server_cpu_per_million'), 1)} |"
            f" {number(private / (1 << 20) if private else None)} |"
            f" {share(median(row, 'others_share'))} |")


def table(chosen: Iterable[Row]) -> list[str]:
    return HEAD + [line(row) for row in sorted(
        chosen, key=lambda one: (not one["durable"], -(median(one, "rate") or 0)))]


def command(work: str, size: int, delay: float, chosen: Iterable[Row] = ()) -> str:
    """What measures it again; with rows, as long and as often as they were."""
    rounds = [one for row in chosen for one in row["rounds"]]
    seconds = next((f" --seconds {one['seconds']:g}" for one in rounds if "seconds" in one), "")
    if work.startswith("E"):
        return f"python benchmarks/peers/embedded.py --works {work} --sizes {size}"
    if work.startswith("W4"):
        limit = next((f" --count {one['asked']:.0f} --limit {one['limit_s']:g}" for one in rounds
                      if "asked" in one and work == "W4 fill"), "")
        return f"python benchmarks/peers/run.py --works W4 --sizes {size}{limit}"
    # Half of what W2 reached is known only when that was measured.
    works = "W2,W2h" if work == "W2h" else work
    return f"python benchmarks/peers/run.py --works {works} --sizes {size}{seconds}" + (
        f" --durable --delay-ms {delay:g}" if delay else "")


def sections(found: list[Row]) -> Iterable[str]:
    """A table for each work, size and delay, with its command."""
    groups = sorted({(list(TITLES).index(row["work"]), row["delay_ms"], row["size"])
                     for row in found})
    for at, delay, size in groups:
        work = list(TITLES)[at]
        chosen = [row for row in found if (row["work"], row["delay_ms"], row["size"])
                  == (work, delay, size)]
        slower = f", each sync {delay:g} ms longer" if delay else ""
        yield f"### {TITLES[work]}, {size} bytes{slower}"
        yield ""
        whens = sorted(one["when"] for row in chosen for one in row["rounds"] if "when" in one)
        rounds = max((len(row["rounds"]) for row in chosen), default=0)
        yield (f"`{command(work, size, delay, chosen)}`, {rounds} round{'s' * (rounds != 1)}"
               + (f", {whens[0]} to {whens[-1]}" if whens else "") + ".")
        yield ""
        others = [value for row in chosen if (value := median(row, "others_share")) is not None]
        if others and statistics.median(others) > DISTURBED:
            yield (f"**Other programs took {statistics.median(others) * 100:.0f} % of the machine "
                   "meanwhile: this tells an order, not rates.** Run `make peers` on a quiet one.")
            yield ""
        yield from table(chosen)
        yield ""


def busy(told: dict[str, Any]) -> str:
    """How much else ran, where it was kept."""
    load = told.get("load_average")
    return f", at a load average of {load:g} on {told['cpus']} CPUs" if load is not None else ""
