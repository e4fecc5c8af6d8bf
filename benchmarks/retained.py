"""Whether a receive notices what is retained: a million messages beside a hundred millions.

    python benchmarks/retained.py [--millions 100] [--path DIR]
    python benchmarks/retained.py --path DIR --fill; python benchmarks/retained.py --path DIR --kept

Messages of 16 bytes, 10 GB of log and index for 100 millions, removed afterwards. Both queues
are in one store, all is on disk before the clock runs, and the rounds go in turns. A group
reads in order from the middle of the queue, another all over it, at the same 2,000 places in
each round; the seeks are not timed.

Warm is compared with warm. The first round, in which pages of log and index are mapped for the
first time, is told on its own: that is a cost of a page, whatever the backlog. --fill and
--kept do it in two steps.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from penstock.engine import Store

BATCH = 100_000
RECEIVES = 2000
ROUNDS = 9
FEW = 1_000_000
WAYS = ("in order", "all over")


def grown(store: Store, name: str, to: int) -> None:
    queue = store.queue(name)
    sizes = np.full(BATCH, 16, np.uint32)
    packed = b"sixteen bytes ok" * BATCH
    while queue.stat()["next"] < to:
        store._prepare(4)
        queue.append_packed(packed, sizes, durability="kernel")
    store._flush()


def receives(store: Store, name: str, way: str) -> np.ndarray:
    """How long each receive of ten took, in µs."""
    queue = store.queue(name)
    group = queue.group("bench")
    count = queue.stat()["next"]
    places = np.random.default_rng(7).integers(0, count - 10, RECEIVES).tolist()
    group.seek(offset=count // 2)
    found = []
    for place in places:
        if way == "all over":
            group.seek(offset=place)
        began = time.perf_counter()
        batch = group.receive(10, lease_ms=60_000)
        found.append(time.perf_counter() - began)
        assert len(batch) == 10
    return np.array(found) * 1e6


def report(store: Store) -> None:
    names = ("few", "many")
    found = {(name, way): [] for name in names for way in WAYS}
    for _ in range(ROUNDS + 1):
        for way in WAYS:
            for name in names:
                spent = receives(store, name, way)
                found[name, way].append([np.percentile(spent, 50), np.percentile(spent, 99)])
    for way in WAYS:
        for name in names:
            rounds = np.array(found[name, way])
            half, most = np.median(rounds[1:], axis=0)
            print(f"{store.queue(name).stat()['next']:,} retained, {way}: p50 {half:.1f} "
                  f"p99 {most:.1f} µs "
                  f"({rounds[1:, 1].min():.1f} to {rounds[1:, 1].max():.1f}); first touch "
                  f"p99 {rounds[0, 1]:.1f}")
        few, many = (np.array(found[name, way])[1:] for name in names)
        ratios = many / few
        print(f"  {way}: p50 {np.median(ratios[:, 0]):.2f}, p99 "
              f"{np.median(ratios[:, 1]):.2f} of the small queue's "
              f"({ratios[:, 1].min():.2f} to {ratios[:, 1].max():.2f}), {ROUNDS} warm "
              f"rounds in turns")


def opened(folder: Path) -> Store:
    return Store.open(folder / "store", segment_size=256 << 20)


def fill(folder: Path, millions: int) -> None:
    began = time.perf_counter()
    with opened(folder) as store:
        grown(store, "few", FEW)
        grown(store, "many", millions * 1_000_000)
    os.sync()
    print(f"filled, and on disk, in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--millions", type=int, default=100)
    parser.add_argument("--path")
    parser.add_argument("--fill", action="store_true", help="only write the store, to --path")
    parser.add_argument("--kept", action="store_true", help="measure what --fill left, remove it")
    options = parser.parse_args()
    folder = Path(options.path) / "retained" if options.fill or options.kept else Path(
        tempfile.mkdtemp(prefix="penstock-", dir=options.path))
    try:
        if not options.kept:
            folder.mkdir(exist_ok=True)
            fill(folder, options.millions)
        if not options.fill:
            with opened(folder) as store:
                report(store)
    finally:
        if not options.fill:
            shutil.rmtree(folder)
