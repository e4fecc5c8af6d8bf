"""CMQ over TCP beside the native protocol, on one server, in turns.

    python benchmarks/cmq_tcp.py [--rounds 3] [--seconds 2] [--json]

Each load runs once a round over each protocol; printed are the medians. Sends are answered after
fdatasync. What is received is deleted (confirmed) before the next is asked for.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.serving import Serving

DEEP = ("--connections", 8, "--in-flight", 64)
LOADS = {
    "send, 8 connections x 64": ("send", *DEEP),
    "send batches of 16, 8 x 64": ("send", *DEEP, "--batch", 16),
    "receive + delete, 8 x 64": ("receive", *DEEP),
    "receive + delete 16, 8 x 64": ("receive", *DEEP, "--batch", 16),
}
FILLED = 500_000


def measured(words: tuple[object, ...], over: str, seconds: float) -> dict[str, float]:
    """One load over one protocol, on a server and a store of its own."""
    server = Serving("--cmq-tcp", "127.0.0.1:0")
    try:
        filling = ("send", "--tcp", server.tcp, "--connections", 4, "--in-flight", 4, "--batch",
                   1000, "--durability", "kernel", "--count")
        # The first send makes the queue.
        server.bench(*filling, FILLED if words[0] == "receive" else 1000)
        where = ("--cmq-tcp", server.cmq) if over == "cmq" else ("--tcp", server.tcp)
        before = server.cpu_seconds()
        found = server.bench(*words, *where, "--seconds", seconds)
        found["server_cpu"] = (server.cpu_seconds() - before) / found["acknowledged"] * 1e6
        return found
    finally:
        server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    runs: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(args.rounds):
        for load, words in LOADS.items():
            for over in ("cmq", "native"):
                found = measured(words, over, args.seconds)
                runs.setdefault((load, over), []).append(found)
                print(f"{load}, {over}: {found['rate']:,.0f}", file=sys.stderr)
    rows = [
        {"load": load, "protocol": over,
         **{name: statistics.median(run[name] for run in found)
            for name in ("rate", "p50_us", "p99_us", "server_cpu", "generator_cpu", "errors")}}
        for (load, over), found in runs.items()
    ]
    if args.json:
        print(json.dumps(rows))
        return 0
    print(f"{'load':<28} {'protocol':<8} {'messages/s':>12} {'p50 µs':>8} {'p99 µs':>8} "
          f"{'server s per 10^6':>18}")
    for row in rows:
        print(f"{row['load']:<28} {row['protocol']:<8} {row['rate']:>12,.0f} "
              f"{row['p50_us']:>8,.0f} {row['p99_us']:>8,.0f} {row['server_cpu']:>18.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
