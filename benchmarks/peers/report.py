"""Make the tables of docs/performance.md and the plots beside it from the kept results.

    python benchmarks/peers/report.py

Reads benchmarks/peers/results/*.json; what stands between the two marks of the page is replaced.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from peers import asked, tables  # noqa: E402
from peers.kept import Row, median  # noqa: E402
from peers.plots import bars, lines  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
PAGE, PLOTS = ROOT / "docs" / "performance.md", ROOT / "docs" / "plots"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"
COMMANDS = {
    "penstock bench send --tcp HOST:PORT":
        "rates and a plot of latencies; `--http`, `--cmq-tcp`, `--cmq-http`; `--json`, "
        "`--hdr FILE`; `receive` as well",
    "penstock bench send --tcp HOST:PORT --rate 20000":
        "the open loop: latencies from when a message was due, so that a stall is seen in full",
    "make asv": "the suites; `COMMITS=main~5..main` for commits, `BASE=main~1` for two in turns, "
        "`DATA=` for the disk, `make asv-html` for pages",
    "make gate BASE=main~1":
        "what a call costs in two commits, counted; fails if it grew by more than a few per cent",
    'make test ARGS="tests/bench/test_micro.py --benchmark-enable --benchmark-compare"':
        "the smallest steps of the engine",
    "make peers": "the tables of servers below, W1 to W3; `ARGS=--go-on` after an interruption",
    "python benchmarks/peers/run.py --works W4 --count 10000000": "a backlog, and its drain",
    "python benchmarks/peers/run.py --works W2 --durable --delay-ms 5":
        "any of it with a slower disk: `benchmarks/slow_disk.c` makes each sync longer",
    "python benchmarks/peers/embedded.py": "the tables of libraries below",
    "python benchmarks/scale.py": "the plots of how cost grows below",
    "python benchmarks/peers/report.py": "this part of the page, from what is kept",
}
ABOUT = [
    "",
    "`make peers` gets them from their registries, starts each in its durable and in its default "
    "setting, and loads them in turns with",
    "one loader (`benchmarks/peers/load` in Go, `benchmarks/peers/java` for Kafka and RocketMQ); "
    "`benchmarks/peers/embedded.py` does the libraries. The loader",
    "is not the one of `penstock bench` and costs more, so our own figures are lower here than "
    "above. Server and loader share two cores. Rates are of",
    "acknowledged, in W3 of confirmed messages; medians of the rounds. *Others* is what share of "
    "the machine other programs took meanwhile: where it is large, a",
    "rate is a lower bound and only the order of magnitude counts. These tables are made by "
    "`python benchmarks/peers/report.py` from `benchmarks/peers/results/`.",
    "",
    "Where each sync is longer, `benchmarks/slow_disk.c` runs the server: the kernel hands each "
    "fdatasync, fsync and msync to a supervisor, which lets it go on",
    "when the time is over. So it reaches programs in Go as well, which call the kernel "
    "themselves. `python benchmarks/slow_disk.py` tells how exact it is.",
    "",
]
FIGURES = {"cpu": ("server_cpu_per_million", "CPU seconds of the server per million messages", 1.0),
           "memory": ("private_bytes", "private memory of the server after the run, MiB",
                      1 / (1 << 20))}


def rows() -> tuple[list[Row], list[dict[str, Any]]]:
    """All rows, those of the same thing joined, and what else each file says."""
    joined: dict[tuple[Any, ...], Row] = {}
    files = []
    for path in sorted(RESULTS.glob("*.json")):
        told = json.loads(path.read_text())
        if "machine" in told:
            # What compare.py keeps has a form of its own.
            files.append({"name": path.name, "compared": told["rows"], **told["machine"]})
            continue
        files.append({"name": path.name, **told})
        for row in told.get("rows", []):
            key = tuple(row[name] for name in ("work", "size", "delay_ms", "peer", "setting"))
            kept = joined.setdefault(key, {**row, "rounds": []})
            kept["rounds"] += row["rounds"]
    return list(joined.values()), files


def bar_plot(found: list[Row], work: str, name: str, figure: str, unit: str, scale: float,
             best_first: bool) -> Iterable[str]:
    """Bars of one figure of one work, if there are any."""
    chosen = [(median(row, figure), row) for row in found
              if (row["work"], row["size"], row["delay_ms"]) == (work, 128, 0)]
    values = [(value * scale, row) for value, row in chosen if value]
    if not values:
        return
    values.sort(key=lambda one: -one[0] if best_first else one[0])
    title = tables.TITLES[work].partition(":")[0] + ": " + unit
    (PLOTS / f"{name}.svg").write_text(bars(
        f"{tables.TITLES[work]} (128 bytes)", unit,
        [(f"{row['peer']}, {row['setting']}", value, row["durable"], row["peer"] == "penstock")
         for value, row in values]))
    yield f"![{title}](plots/{name}.svg)"
    yield ""
    yield f"{title}: `{tables.command(work, 128, 0)}`."
    yield ""


def plots(found: list[Row], files: list[dict[str, Any]]) -> Iterable[str]:
    """Write the plots; the lines of the page that show them."""
    PLOTS.mkdir(exist_ok=True)
    for work in ("W1", "W2", "W3"):
        yield from bar_plot(found, work, work, "rate", "messages/s", 1.0, True)
        for name, (figure, unit, scale) in FIGURES.items():
            yield from bar_plot(found, work, f"{work}-{name}", figure, unit, scale, False)
    yield from bar_plot(found, "W2h", "W2h", "p999_us", "p99.9 in µs", 1.0, False)
    for told in files:
        for plot in told.get("plots", []):
            (PLOTS / f"{plot['name']}.svg").write_text(lines(
                plot["title"], plot["x"], plot["y"], plot["series"], plot.get("log_x", True),
                plot.get("log_y", False)))
            yield f"![{plot['title']}](plots/{plot['name']}.svg)"
            yield ""
            yield f"{plot['title']}: `{plot['command']}`, {told['when']}{tables.busy(told)}."
            yield ""


def page() -> str:
    found, files = rows()
    out = [BEGIN, "", "## Measuring it yourself", "", "| command | what it tells |", "|---|---|"]
    out += [f"| `{command}` | {what} |" for command, what in COMMANDS.items()]
    out += ["", "## What was asked for, and what was reached", ""]
    out += asked.lines(found, files)
    out += ["", "## Other queues, loaded alike", *ABOUT]
    out += tables.sections(found)
    out += ["## Plots", ""]
    out += plots(found, files)
    missing = {name: why for told in files for name, why in told.get("missing", {}).items()}
    for name in sorted(missing):
        out.append(f"- Not measured, or not in every round: {name}: {missing[name]}")
    out += [""] if missing else []
    out += ["What each file holds:", ""]
    out += [f"- `{told['name']}`: {told['when']}, {told['cpus']} CPUs, kernel {told['kernel']}, "
            f"commit {told['commit'][:10]}{tables.busy(told)}" for told in files]
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
