"""Whether a receive notices a billion messages in its queue, by simulation of the index.

    python benchmarks/billion.py [--path DIR]

Three queues of one store have a million, a hundred million and a billion offsets. In each, at
2,000 places spread evenly, 128 messages of 16 bytes are really sent, record and entry, and
20,480 one behind the other in the middle; the offsets between are passed over in bulk: the tree
of the index gets all its pages, its nodes are filled in as ever, but the pages of entries that
nobody sent stay holes in the file (of 32 GB for a billion, on disk some 100 MB), and there are
no records for them. So the way to a message is the real one, as long and through as many nodes
as with all of them there; what is not simulated is what would compete for the page cache.

One group reads ten at a time at the places in a random order, one in order in the middle; seeks
are not timed. Warm is compared with warm: a first pass is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from penstock.engine import Queue, Store
from penstock.engine._core import _look_up, _simulate

SIZES = (1_000_000, 100_000_000, 1_000_000_000)
PLACES = 2000
HERE = 128              # real messages at each place: a page of entries
RUN = 20_480            # and in the middle
WAYS = ("in order", "all over")
ROUNDS = 7
LOOKS = 1_000_000


def places(size: int) -> np.ndarray:
    """The offsets at which real messages begin, the last of them at the end of the queue."""
    return np.linspace(0, size - HERE, PLACES).astype(np.uint64) // HERE * HERE


def made(store: Store, size: int) -> Queue:
    queue = store.queue(f"of{size}")
    packed = b"sixteen bytes ok"
    middle = size // 2 // HERE * HERE
    runs = [(at, HERE) for at in places(size).tolist() if not middle <= at < middle + RUN]
    for at, count in sorted([*runs, (middle, RUN)]):
        _simulate(queue, at)
        queue.append_packed(packed * count, np.full(count, 16, np.uint32), durability="kernel")
    store._flush()
    return queue


def receives(queue: Queue, size: int, way: str, order: np.ndarray) -> np.ndarray:
    """How long each receive of ten took, in µs."""
    group = queue.group("bench")
    group.seek(offset=size // 2 // HERE * HERE)
    found = []
    for at in places(size)[order].tolist():
        if way == "all over":
            group.seek(offset=at)
        began = time.perf_counter()
        batch = group.receive(10, lease_ms=60_000)
        found.append(time.perf_counter() - began)
        assert len(batch) == 10
    return np.array(found) * 1e6


def looks(queue: Queue, size: int, chance: np.random.Generator) -> float:
    """What a look into the index costs, in ns, at random real messages."""
    offsets = chance.choice(places(size), LOOKS) + chance.integers(0, HERE, LOOKS, np.uint64)
    began = time.perf_counter()
    found = _look_up(queue, offsets)
    spent = time.perf_counter() - began
    assert found == LOOKS
    return spent / LOOKS * 1e9


def report(queues: dict[int, Queue]) -> None:
    chance = np.random.default_rng(7)
    taken: dict[tuple[int, str], list[np.ndarray]] = {
        (size, way): [] for size in queues for way in WAYS}
    looked: dict[int, list[float]] = {size: [] for size in queues}
    for at in range(ROUNDS + 1):
        order = chance.permutation(PLACES)
        for way in WAYS:
            for size, queue in queues.items():
                spent = receives(queue, size, way, order)
                if at:
                    taken[size, way].append(np.percentile(spent, (50, 99)))
        for size, queue in queues.items():
            looked[size].append(looks(queue, size, chance))
    for way in WAYS:
        for size in queues:
            rounds = np.array(taken[size, way])
            half, most = np.median(rounds, axis=0)
            ratios = np.median(rounds / np.array(taken[SIZES[0], way]), axis=0)
            print(f"{size:,} messages, {way}: receive p50 {half:.1f} µs ({ratios[0]:.2f} of "
                  f"the first queue's), "
                  f"p99 {most:.1f} µs ({ratios[1]:.2f})")
    for size, found in looked.items():
        print(f"{size:,} messages: a look into the index at a random place "
              f"{np.median(found):.0f} ns")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=options.path))
    try:
        with Store.open(folder / "store") as store:
            queues = {size: made(store, size) for size in SIZES}
            report(queues)
    finally:
        shutil.rmtree(folder)
