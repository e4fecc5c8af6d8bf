"""How cost grows: with connections, workers, queues, retained messages, and the offered load.

    python benchmarks/scale.py                                  all plots
    python benchmarks/scale.py --plots connections,load --seconds 3
    python benchmarks/scale.py --plots retained --retained 1e3,1e5,1e7,1e8

Results go to benchmarks/peers/results/, from where benchmarks/peers/report.py draws them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.fspath(HERE.parent))
sys.path.insert(0, os.fspath(HERE.parent / "build" / "names"))

import numpy as np  # noqa: E402

from benchmarks.serving import Serving  # noqa: E402
from penstock.engine import Store  # noqa: E402

RESULTS = HERE / "peers" / "results"
BODY = 128
Series = dict[str, list[tuple[float, float]]]


def bench(server: Serving, args: argparse.Namespace, *words: object) -> dict[str, Any]:
    """The median run of several, by its rate."""
    found = [server.bench("send", "--tcp", server.tcp, "--seconds", args.seconds, *words)
             for _ in range(args.rounds)]
    found.sort(key=lambda one: float(one["rate"]))
    return found[len(found) // 2]


def connections(args: argparse.Namespace) -> dict[str, Any]:
    rate: Series = {"one in flight on each": []}
    server = Serving()
    try:
        for count in (10, 100, 1000, 10_000):
            told = bench(server, args, "--connections", count)
            rate["one in flight on each"].append((count, told["rate"]))
            print(f"  {count:>6} connections {told['rate']:>12,.0f} /s  p99 "
                  f"{told['p99_us']:,.0f} µs  errors {told['errors']:.0f}", flush=True)
    finally:
        server.close()
    return plot("connections", "Durable sends against connections", "connections",
                "messages/s, one worker", rate)


def workers(args: argparse.Namespace) -> dict[str, Any]:
    rate: Series = {}
    loads = {"64 connections x 1": ("--connections", 64),
             "8 connections x 64": ("--connections", 8, "--in-flight", 64)}
    for count in (1, 2):
        server = Serving("--workers", str(count))
        try:
            for name, words in loads.items():
                told = bench(server, args, *words)
                rate.setdefault(name, []).append((count, told["rate"]))
                print(f"  {count} workers, {name} {told['rate']:>12,.0f} /s", flush=True)
        finally:
            server.close()
    return plot("workers", "Durable sends against workers, on two cores", "workers", "messages/s",
                rate, log_x=False)


def load(args: argparse.Namespace) -> dict[str, Any]:
    latency: Series = {"p50": [], "p99": [], "p99.9": []}
    server = Serving()
    try:
        for rate in (1000, 3000, 10_000, 20_000, 40_000, 60_000, 80_000):
            told = bench(server, args, "--connections", 64, "--rate", rate)
            for name, figure in (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us")):
                latency[name].append((rate, told[figure] / 1e3))
            print(f"  {rate:>7,} /s due {told['rate']:>9,.0f} done  p50 "
                  f"{told['p50_us']:>9,.0f}  p99 "
                  f"{told['p99_us']:>9,.0f}  p99.9 {told['p999_us']:>9,.0f} µs", flush=True)
    finally:
        server.close()
    return plot("load", "Latency of durable sends against the offered load (open loop)",
                "messages due a second", "ms from when a message was due", latency)


def queues(args: argparse.Namespace) -> dict[str, Any]:
    cost: Series = {"commit of 1000, on disk": [], "commit of 1000, in the kernel": []}
    # A batch has the level of its store; making a queue has it as well, and is not measured.
    for count in (1, 100, 10_000, 100_000):
        with tempfile.TemporaryDirectory(dir=args.data) as folder:
            with Store.open(f"{folder}/store", durability="kernel") as store:
                # Each waits for a sync of its own; many at a time share them.
                with ThreadPoolExecutor(64) as pool:
                    made = list(pool.map(store.queue, (f"q{n}" for n in range(count))))
                for low in range(0, count, 8192):
                    store.fanout(made[low:low + 8192], b"x")
            for name, level in zip(cost, ("disk", "kernel"), strict=True):
                with Store.open(f"{folder}/store", durability=level) as store:
                    made = [store.queue(f"q{number}") for number in range(count)]
                    turn = itertools.count()
                    cost[name].append((count, micros(
                        args, lambda: spread(store, made, next(turn))) / 1000))
                print(f"  {count:>7} queues, {name} {cost[name][-1][1]:.3f} µs a message",
                      flush=True)
    return plot("queues", "A message's cost against the number of queues it goes to in turn",
                "queues", "µs a message, embedded, commits of 1000", cost)


def spread(store: Any, made: list[Any], turn: int) -> None:
    body = b"x" * BODY
    with store.batch() as batch:
        for number in range(1000 * turn, 1000 * turn + 1000):
            batch.append(made[number % len(made)], body)


def micros(args: argparse.Namespace, work: Callable[[], object]) -> float:
    """The median time of a call, over so many seconds."""
    work()
    taken = []
    end = time.perf_counter() + args.seconds
    while (began := time.perf_counter()) < end:
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def retained(args: argparse.Namespace) -> dict[str, Any]:
    """One queue, ever fuller; bodies of 16 bytes, so that 1e8 of them fit on a disk."""
    cost: Series = {"append of 1000, in the kernel": [], "receive + confirm of 100": [],
                    "read of 1000 from the middle": []}
    bodies = np.zeros(16 * 1000, np.uint8)
    sizes = np.full(1000, 16, np.uint32)
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        with Store.open(f"{folder}/store") as store:
            queue = store.queue("bench")
            group = queue.group()
            count = 0
            for wanted in args.retained:
                while count < wanted:
                    queue.append_packed(bodies, sizes, durability="kernel")
                    count += 1000
                store._flush()

                def take() -> None:
                    found = group.receive(100)
                    if not len(found):
                        group.seek(offset=0)
                    group.confirm(found.receipts)

                middle = count // 2
                works: list[Callable[[], object]] = [
                    lambda: queue.append_packed(bodies, sizes, durability="kernel"), take,
                    lambda: queue.read(offset=middle, max_messages=1000).tolist()]
                for (name, found), work, size in zip(cost.items(), works, (1000, 100, 1000),
                                                     strict=True):
                    found.append((wanted, micros(args, work) / size))
                count = int(queue.stat()["next"])
                print(f"  {wanted:>13,.0f} retained " + "  ".join(
                    f"{found[-1][1]:.3f}" for found in cost.values()) + " µs", flush=True)
    return plot("retained", "A message's cost against what the queue retains", "messages retained",
                "µs a message, embedded", cost)


def plot(name: str, title: str, x: str, y: str, series: Series,
         log_x: bool = True) -> dict[str, Any]:
    return {"name": name, "title": title, "x": x, "y": y, "log_x": log_x, "series": series,
            "command": f"python benchmarks/scale.py --plots {name}"}


PLOTS = {work.__name__: work for work in (connections, workers, load, queues, retained)}


def main() -> int:
    """Measure the plots that are asked for, and keep them."""
    parser = argparse.ArgumentParser(prog="scale.py", description=__doc__.splitlines()[0])
    parser.add_argument("--plots", default=",".join(PLOTS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--retained", default="1e3,1e4,1e5,1e6,1e7")
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    args.retained = [float(text) for text in args.retained.split(",")]
    # Ten thousand connections are ten thousand descriptors at each end.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=HERE,
                            check=False).stdout.strip()
    for name in args.plots.split(","):
        print(f"· {name}", flush=True)
        told = {"when": time.strftime("%Y-%m-%d %H:%M"), "cpus": os.cpu_count(),
                "kernel": platform.release(), "commit": commit,
                "load_average": round(os.getloadavg()[0], 1), "plots": [PLOTS[name](args)]}
        path = RESULTS / f"scale-{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told, indent=0) + "\n")
        print(f"Kept as {os.path.relpath(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
