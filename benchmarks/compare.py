"""Compare with the peers: every row of the table, ours and the peer in turns in one run.

    python benchmarks/compare.py                     all short rows, in about four minutes
    python benchmarks/compare.py --full              longer, with backlog and recovery
    python benchmarks/compare.py --rows single-disk,pipelined-disk --rounds 5 --seconds 5

A peer that is not installed is named in the report. Results go to benchmarks/results/*.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# As a script this folder is on the path already; imported as a suite's neighbour it is not.
sys.path.insert(0, os.fspath(Path(__file__).resolve().parent))

from sidebyside import counters, embedded, long, network, servers  # noqa: E402
from sidebyside.measure import COUNTED, Result, Row, measure  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
LONG = ("backlog", "recovery")
QUICK = {"rounds": 3, "seconds": 1.5}
FULL = {"rounds": 5, "seconds": 5.0}
# Peers of the published figures that are not started here: Java and Go servers.
NOT_STARTED = "Kafka, RabbitMQ, NATS JetStream, beanstalkd, RocketMQ and ElasticMQ"


def main(words: list[str] | None = None) -> int:
    """Measure, print and keep the rows that were asked for; 1 if a target was missed."""
    args = _parse(words)
    told: dict[str, Any] = {"machine": _machine(args), "rows": [], "long": []}
    with tempfile.TemporaryDirectory(prefix="penstock-bench-", dir=args.data) as folder:
        data = Path(folder)
        told["machine"]["filesystem"] = counters.filesystem(folder)
        print(f"{told['machine']['cpus']} CPUs, {told['machine']['filesystem']}, "
              f"{args.rounds} rounds of {args.seconds:g} s, medians\n", flush=True)
        for row in _chosen([*network.rows(data, args.workers), *embedded.rows(data)], args):
            result = measure(row, args.rounds, args.seconds, folder)
            told["rows"].append(_record(result))
            _print(result)
        for entry in _long_rows(data, args):
            told["long"].append(entry)
            print(f"{entry['key']}: {_verdict(entry['reached'])}  {entry['target']}\n  "
                  f"{json.dumps(entry)}\n", flush=True)
    print(f"Not started by this program: {NOT_STARTED}.")
    path = args.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(told, indent=1) + "\n")
    print(f"Kept as {os.path.relpath(path)}")
    missed = [entry for entry in (*told["rows"], *told["long"]) if entry["reached"] is False]
    return 1 if missed and args.strict else 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare.py", description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="long rounds, backlog and recovery")
    parser.add_argument("--rows", default="", help="names of rows, with commas; all by default")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--workers", type=int, default=1, help="of our server (default: 1)")
    parser.add_argument("--data", type=Path, help="where stores are made (default: temporary)")
    parser.add_argument("--out", type=Path, help="the file to keep the results in")
    parser.add_argument("--strict", action="store_true", help="exit 1 if a target is missed")
    parser.add_argument("--retained", default="1e6,1e7", help="of the backlog row")
    parser.add_argument("--gibibytes", type=float, default=10.0, help="of the recovery row")
    args = parser.parse_args(words)
    defaults = FULL if args.full else QUICK
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    args.rows = [name for name in args.rows.split(",") if name]
    return args


def _chosen(rows: list[Row], args: argparse.Namespace) -> list[Row]:
    known = {row.key for row in rows} | set(LONG)
    unknown = set(args.rows) - known
    if unknown:
        raise SystemExit(f"unknown rows {sorted(unknown)}; known are {sorted(known)}")
    return [row for row in rows if not args.rows or row.key in args.rows]


def _long_rows(data: Path, args: argparse.Namespace) -> Iterable[dict[str, Any]]:
    wanted = args.rows or (LONG if args.full else ())
    works = {
        "backlog": lambda: long.backlog(data, [int(float(n)) for n in args.retained.split(",")],
                                        args.seconds, args.rounds, args.workers),
        "recovery": lambda: long.recovery(data, args.gibibytes, args.workers),
    }
    for key in LONG:
        if key in wanted:
            try:
                yield works[key]()
            except (servers.MissingError, RuntimeError, OSError) as error:
                yield {"key": key, "target": "", "reached": None, "failed": str(error)}


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(["git", "-C", os.fspath(servers.ROOT), "rev-parse", "HEAD"],
                            capture_output=True, text=True, check=False).stdout.strip()
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(": ")[2]
            break
    return {"cpus": os.cpu_count(), "model": model, "kernel": platform.release(),
            "python": platform.python_version(), "commit": commit, "rounds": args.rounds,
            "seconds": args.seconds, "workers": args.workers,
            "when": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def _record(result: Result) -> dict[str, Any]:
    row = result.row
    contenders = [{
        "name": contender.name,
        "rate": result.median(contender.name),
        "p50_us": result.median(contender.name, "p50_us"),
        "p99_us": result.median(contender.name, "p99_us"),
        "p999_us": result.median(contender.name, "p999_us"),
        "counters": result.counted.get(contender.name, {}),
        "missing": result.missing.get(contender.name),
        "rounds": result.rounds.get(contender.name, []),
    } for contender in row.contenders]
    return {"key": row.key, "title": row.title, "target": row.target, "ratio": result.ratio(),
            "reached": result.reached(), "contenders": contenders}


def _print(result: Result) -> None:
    row, ratio = result.row, result.ratio()
    against = "" if ratio is None else f"  {ratio:.2f} x the best peer"
    print(f"{row.key}: {row.title}\n  target {row.target}: {_verdict(result.reached())}{against}")
    for contender in row.contenders:
        name = contender.name
        if name in result.missing:
            print(f"  {name:<40} not measured: {result.missing[name]}")
            continue
        counted = result.counted.get(name, {})
        line = f"  {name:<40}{result.median(name) or 0:>12,.0f} /s"
        for figure in ("p50_us", "p99_us", "p999_us"):
            value = result.median(name, figure)
            line += f"  {figure[:-3]} {value:,.0f} µs" if value is not None else ""
        for figure in COUNTED:
            if figure in counted:
                line += f"  {figure.partition('_')[0]}/msg {counted[figure]:.4g}"
        print(line)
    print(flush=True)


def _verdict(reached: bool | None) -> str:
    return {True: "reached", False: "MISSED", None: "not judged"}[reached]


if __name__ == "__main__":
    sys.exit(main())
