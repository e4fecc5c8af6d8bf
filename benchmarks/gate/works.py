"""The works that the gate counts: the same calls, so often, on whichever engine is on the path.

    python benchmarks/gate/works.py make WORK FOLDER
    python benchmarks/gate/works.py WORK COUNT FOLDER

The first makes a store and waits until its segments are ready, so that making them, which another
thread does when it is scheduled, is not counted with the calls. The second prints what the store
itself counted, and how long the calls took, as JSON. Only calls that every version has, because the
base of a comparison runs this file as well.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from penstock.engine import Store

# Small, because they are written with zeros first; but one work's calls must fit into them.
SEGMENT = 4 << 20
LARGE_SEGMENT = 64 << 20
BODY = bytes(range(33, 126)) + b"x" * 35
COUNTED = ("fsyncs", "bytes_written")
Work = Callable[[Any, int], None]


def appending(batch: int) -> Work:
    bodies = [BODY] * batch

    def work(store: Any, count: int) -> None:
        queue = store.queue("works")
        for _ in range(count):
            queue.append_many(bodies, durability="disk")

    return work


def append_one(store: Any, count: int) -> None:
    queue = store.queue("works")
    for _ in range(count):
        queue.append(BODY, durability="disk")


def delay_one(store: Any, count: int) -> None:
    queue = store.queue("works")
    due_us = time.time_ns() // 1000 + 86_400_000_000
    for _ in range(count):
        queue.append(BODY, durability="disk", due_us=due_us)


def taking(batch: int) -> Work:
    def work(store: Any, count: int) -> None:
        queue = store.queue("works")
        for _ in range(-(-count * batch // 1000)):
            queue.append_many([BODY] * 1000, durability="disk")
        group = queue.group()
        for _ in range(count):
            group.confirm(group.receive(batch).receipts)

    return work


def read_thousand(store: Any, count: int) -> None:
    queue = store.queue("works")
    queue.append_many([BODY] * 1000, durability="disk")
    for _ in range(count):
        queue.read(offset=0, max_messages=1000).tolist()


def fan_out(store: Any, count: int) -> None:
    queues = [store.queue(f"fan{number}") for number in range(100)]
    for _ in range(count):
        store.fanout(queues, BODY, durability="disk")


WORKS: dict[str, Work] = {
    "append-1": append_one,
    "append-64": appending(64),
    "append-1000": appending(1000),
    "delay-1": delay_one,
    "take-confirm-1": taking(1),
    "take-confirm-32": taking(32),
    "read-1000": read_thousand,
    "fan-out-100": fan_out,
}

# How many messages a call has, where it is not one; of a fan-out: into how many queues it goes.
MESSAGES = {"append-64": 64, "append-1000": 1000, "take-confirm-32": 32, "read-1000": 1000,
            "fan-out-100": 100}


def make(name: str, folder: str) -> None:
    """Make a store, and end when nothing is made ready in it any more."""
    size = LARGE_SEGMENT if name == "append-1000" else SEGMENT
    with Store.open(folder, segment_size=size) as store:
        store.queue("works").append(BODY)
        found: list[str] = []
        still = 0
        while still < 5:
            time.sleep(0.05)
            before, found = found, sorted(os.listdir(os.path.join(folder, "log")))
            still = still + 1 if found == before and not any(
                name.endswith(".new") for name in found) else 0


def counted(name: str, count: int, folder: str) -> dict[str, float]:
    """Do the work so often; what the store counted of it, and the seconds."""
    with Store.open(folder) as store:
        store.queue("works").append(BODY)
        before = store.stat()
        began = time.perf_counter()
        WORKS[name](store, count)
        seconds = time.perf_counter() - began
        after = store.stat()
    return {"seconds": seconds, **{what: after[what] - before[what] for what in COUNTED}}


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], sys.argv[3])
    else:
        print(json.dumps(counted(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
