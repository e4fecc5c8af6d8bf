"""How cost grows: connections, workers, queues, retained messages, backlog, load, a slower disk.

    python benchmarks/scale.py                                  all plots
    python benchmarks/scale.py --plots connections,load --seconds 3
    python benchmarks/scale.py --plots retained --retained 1e3,1e5,1e7

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
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, os.fspath(HERE))
sys.path.insert(0, os.fspath(HERE.parent))
sys.path.insert(0, os.fspath(HERE.parent / "build" / "names"))

import numpy as np  # noqa: E402
import slow_disk  # noqa: E402
from sidebyside import network  # noqa: E402
from sidebyside import servers as peers  # noqa: E402

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
    """Ours, and Redis where it is installed, each with its own load generator, in turns."""
    rate: Series = {"penstock": []}
    server = Serving(data=args.data)
    with tempfile.TemporaryDirectory(dir=args.data) as folder, ExitStack() as stack:
        stack.callback(server.close)
        port = 0
        try:
            _, port = peers.redis(stack, Path(folder, "redis"), "always")
            rate["Redis XADD, appendfsync always"] = []
        except peers.MissingError as missing:
            print(f"  without Redis: {missing}", flush=True)
        for count in (10, 100, 1000, 10_000):
            told = bench(server, args, "--connections", count)
            rate["penstock"].append((count, told["rate"]))
            print(f"  {count:>6} connections {told['rate']:>12,.0f} /s  p99 "
                  f"{told['p99_us']:,.0f} µs  errors {told['errors']:.0f}", flush=True)
            if port:
                measure = network.redis_benchmark(port, count, 1, 1,
                                                  ("XADD", "s", "*", "m", "x" * BODY))
                found = statistics.median(measure(args.seconds)["rate"]
                                          for _ in range(args.rounds))
                rate["Redis XADD, appendfsync always"].append((count, found))
                print(f"  {count:>6} connections of Redis {found:>12,.0f} /s", flush=True)
    return plot("connections", "Durable sends against connections, one in flight on each",
                "connections", "messages/s", rate)


def workers(args: argparse.Namespace) -> dict[str, Any]:
    rate: Series = {}
    loads = {"64 connections x 1": ("--connections", 64),
             "8 connections x 64": ("--connections", 8, "--in-flight", 64)}
    for count in (1, 2):
        server = Serving("--workers", str(count), data=args.data)
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
    server = Serving(data=args.data)
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
                "messages due a second", "ms from when a message was due", latency, log_y=True)


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
    """One queue, ever fuller; bodies of 16 bytes, so that 1e8 of them fit on a disk.

    An append is timed over the last tenth of the way to a size, because it makes the queue grow.
    """
    cost: Series = {"append, in batches": [], "receive + confirm of 100": [],
                    "read of 1000 from the middle": []}
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        with Store.open(f"{folder}/store", durability="kernel",
                        segment_size=256 << 20) as store:
            queue = store.queue("bench")
            group = queue.group()
            count = 0
            for wanted in map(int, args.retained):
                count, append = grow(store, queue, count, wanted)
                store._flush()

                def take() -> None:
                    found = group.receive(100)
                    if len(found):
                        group.confirm(found.receipts)
                    else:
                        group.seek(offset=0)

                middle = max(0, count // 2 - 1000)
                figures = [append, micros(args, take) / 100, micros(
                    args, lambda: queue.read(offset=middle, max_messages=1000).tolist())
                    / min(1000, count - middle)]
                for found, figure in zip(cost.values(), figures, strict=True):
                    found.append((wanted, figure))
                print(f"  {wanted:>13,} retained " + "  ".join(
                    f"{figure:.3f}" for figure in figures) + " µs", flush=True)
    return plot("retained", "A message's cost against what the queue retains", "messages retained",
                "µs a message, embedded, in the kernel", cost)


def grow(store: Any, queue: Any, count: int, wanted: int) -> tuple[int, float]:
    """Fill a queue up to so many; how many it has, and what the last of them cost each, in µs."""
    taken = []
    batch = min(10_000, max(1, (wanted - count) // 10))
    packed, sizes = b"sixteen bytes ok" * batch, np.full(batch, 16, np.uint32)
    while count < wanted:
        store._prepare(2)
        began = time.perf_counter()
        queue.append_packed(packed, sizes)
        taken.append(time.perf_counter() - began)
        count += batch
    return count, statistics.median(taken[-max(1, len(taken) // 10):]) / batch * 1e6


def backlog(args: argparse.Namespace) -> dict[str, Any]:
    """What a server sends and receives with ever more in one queue that nobody has received."""
    rate: Series = {"send": [], "receive + confirm": []}
    server = Serving(data=args.data)
    held = 0
    try:
        for wanted in (100_000, 1_000_000, 10_000_000):
            if wanted > held:
                held += int(server.bench(
                    "send", "--tcp", server.tcp, "--connections", 2, "--in-flight", 4, "--batch",
                    1000, "--durability", "kernel", "--count", wanted - held)["acknowledged"])
            for name, verb in (("send", "send"), ("receive + confirm", "receive")):
                found = []
                for _ in range(args.rounds):
                    told = server.bench(verb, "--tcp", server.tcp, "--connections", 64,
                                        "--seconds", min(args.seconds, 1.0))
                    held += int(told["messages"]) * (1 if verb == "send" else -1)
                    found.append(told["rate"])
                rate[name].append((wanted, statistics.median(found)))
            print(f"  {wanted:>11,} wait  " + "  ".join(
                f"{name} {found[-1][1]:,.0f} /s" for name, found in rate.items()), flush=True)
    finally:
        server.close()
    return plot("backlog", "Durable work against the backlog, 64 connections, one in flight",
                "messages that wait to be received", "messages/s, one worker", rate)


def disk(args: argparse.Namespace) -> dict[str, Any]:
    """Rates with each sync so much longer."""
    rate: Series = {"64 connections x 1": [], "8 connections x 64": []}
    for delay in (0.0, 0.25, 1.0, 2.0, 5.0):
        server = Serving(before=slow_disk.words(delay), data=args.data)
        try:
            for (name, found), words in zip(
                    rate.items(), ((64, 1), (8, 64)), strict=True):
                told = bench(server, args, "--connections", words[0], "--in-flight", words[1])
                found.append((delay, told["rate"]))
                print(f"  {delay:g} ms longer, {name} {told['rate']:>12,.0f} /s  p50 "
                      f"{told['p50_us']:,.0f} p99 {told['p99_us']:,.0f} µs", flush=True)
        finally:
            server.close()
    return plot("disk", "Durable sends against what is added to each sync", "ms added",
                "messages/s, one worker", rate, log_x=False, log_y=True)


def plot(name: str, title: str, x: str, y: str, series: Series,
         log_x: bool = True, log_y: bool = False) -> dict[str, Any]:
    return {"name": name, "title": title, "x": x, "y": y, "log_x": log_x, "log_y": log_y,
            "series": series, "command": f"python benchmarks/scale.py --plots {name}"}


PLOTS = {work.__name__: work for work in (connections, workers, load, queues, retained, backlog,
                                          disk)}


def main() -> int:
    """Measure the plots that are asked for, and keep them."""
    parser = argparse.ArgumentParser(prog="scale.py", description=__doc__.splitlines()[0])
    parser.add_argument("--plots", default=",".join(PLOTS))
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--retained", default="1e3,1e4,1e5,1e6,1e7,1e8")
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
