"""Rows that need much data: the rate with a backlog, and opening after a kill."""

from __future__ import annotations

import json
import os
import signal
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sidebyside import counters, servers
from sidebyside.network import SIZE, bench

FILL = ("--connections", 2, "--in-flight", 4, "--batch", 1000, "--durability", "kernel")
RSS_LIMIT = 200 << 20
RECOVERY_LIMIT_S = 2.0


def backlog(
    data: Path, counts: Sequence[int], seconds: float, rounds: int, workers: int
) -> dict[str, Any]:
    """The send rate and the private memory with ever more messages retained in one queue.

    A server for each count, all of them measured in turns; medians. What the filling left to write
    back is on disk before.
    """
    points: list[dict[str, float]] = []
    taken: list[list[dict[str, float]]] = []
    with ExitStack() as stack:
        running = []
        for count in (0, *sorted(counts)):
            server = servers.penstock(stack, _made(data / f"backlog-{count}" / "data"), workers)
            if count:
                filled = bench("send", "--tcp", server.tcp, "--size", SIZE, *FILL, "--count", count)
                if filled["acknowledged"] < count:
                    stored = filled["acknowledged"]
                    raise RuntimeError(f"only {stored:,.0f} of {count:,} were stored")
            running.append((count, server))
            taken.append([])
        os.sync()
        for _ in range(rounds):
            for at, (_, server) in enumerate(running):
                taken[at].append(bench("send", "--tcp", server.tcp, "--size", SIZE,
                                       "--connections", 64, "--seconds", seconds))
        for at, (count, server) in enumerate(running):
            points.append({
                "retained": count,
                "rate": statistics.median(one["rate"] for one in taken[at]),
                "p99_us": statistics.median(one["p99_us"] for one in taken[at]),
                "errors": sum(one["errors"] for one in taken[at]),
                "private_bytes": counters.private_bytes(server.process.pid),
            })
            print("  " + json.dumps(points[-1]), flush=True)
    rates = [point["rate"] for point in points]
    flat = min(rates) >= 0.9 * max(rates)
    small = max(point["private_bytes"] for point in points) <= RSS_LIMIT
    return {"key": "backlog", "target": "flat within 10 %, <= 200 MiB private",
            "points": points, "reached": flat and small}


def recovery(data: Path, gibibytes: float, workers: int, size: int = 1024) -> dict[str, Any]:
    """How long a server killed with this much retained takes until it says that it serves."""
    path = _made(data / "recovery" / "data")
    count = int(gibibytes * (1 << 30)) // size
    with ExitStack() as stack:
        server = servers.penstock(stack, path, workers)
        empty = server.ready_s
        filled = bench("send", "--tcp", server.tcp, "--size", size, "--connections", 2,
                       "--in-flight", 4, "--batch", 500, "--durability", "kernel",
                       "--count", count)
        # A store that was not filled would recover in no time, and prove nothing.
        if filled["acknowledged"] < count:
            raise RuntimeError(f"only {filled['acknowledged']:,.0f} of {count:,} were stored")
        bench("send", "--tcp", server.tcp, "--size", size, "--connections", 64, "--seconds", 1)
        for member in reversed(counters.family(server.process.pid)):
            _kill(member)
        server.process.wait()
    with ExitStack() as stack:
        started = time.monotonic()
        server = servers.penstock(stack, path, workers)
        figures = bench("receive", "--tcp", server.tcp, "--size", size, "--connections", 1,
                        "--count", 1)
        first = time.monotonic() - started
    # An empty server's start is Python's own; what is above it is the recovery.
    return {"key": "recovery", "target": f"<= {RECOVERY_LIMIT_S:g} s", "gibibytes": gibibytes,
            "ready_s": server.ready_s, "empty_ready_s": empty, "first_message_s": first,
            "received": figures["messages"], "reached": server.ready_s <= RECOVERY_LIMIT_S}


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
