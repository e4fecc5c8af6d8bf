"""Whether a receive notices how much is retained: with a million messages and with a hundred.

    python benchmarks/retained.py [--millions 100] [--path DIR]

Messages of 16 bytes, 12 GB of log and index for 100 millions, removed afterwards. A group reads in
order, another all over the queue: each of its receives follows a seek, which is not timed.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from penstock.engine import Store

BATCH = 100_000
RECEIVES = 2000


def grown(store: Store, name: str, to: int) -> None:
    queue = store.queue(name)
    sizes = np.full(BATCH, 16, np.uint32)
    packed = b"sixteen bytes ok" * BATCH
    while queue.stat()["next"] < to:
        store._prepare(4)
        queue.append_packed(packed, sizes, durability="kernel")
    store._flush()


def receives(store: Store, name: str, *, spread: bool) -> np.ndarray:
    """How long each receive of ten took, in µs: from the start on, or all over the queue."""
    queue = store.queue(name)
    group = queue.group(f"g{time.time_ns()}")
    chance = random.Random(7)
    last = queue.stat()["next"] - 10
    found = []
    for _ in range(RECEIVES):
        if spread:
            group.seek(offset=chance.randrange(last))
        began = time.perf_counter()
        batch = group.receive(10, lease_ms=1000)
        found.append(time.perf_counter() - began)
        assert len(batch) == 10
    return np.array(found) * 1e6


def report(store: Store, name: str) -> None:
    count = store.queue(name).stat()["next"]
    for spread in (False, True):
        rounds = [receives(store, name, spread=spread) for _ in range(3)]
        p50 = np.median([np.percentile(one, 50) for one in rounds])
        p99 = np.median([np.percentile(one, 99) for one in rounds])
        print(f"{count:,} retained, {'all over' if spread else 'in order'}: "
              f"p50 {p50:.1f} p99 {p99:.1f} µs")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--path")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=options.path))
    try:
        with Store.open(folder / "store", segment_size=256 << 20) as store:
            grown(store, "q", 1_000_000)
            report(store, "q")
            began = time.perf_counter()
            grown(store, "q", options.millions * 1_000_000)
            print(f"grown in {time.perf_counter() - began:.0f} s")
            report(store, "q")
    finally:
        shutil.rmtree(folder)
