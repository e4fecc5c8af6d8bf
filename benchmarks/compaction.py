"""What compaction costs those who send meanwhile: p99 of single durable sends, before and during.

    python benchmarks/compaction.py [--mib 1024] [--seconds 6] [--rounds 3] [--path DIR]

A busy queue and one of which a message comes for each ten of the other's are written, the busy one
is purged, and what is left is copied at the rate that the maintenance thread uses, while four
threads send 128 bytes each and wait for the disk.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from penstock.engine import Store
from penstock.engine._core import Compactor, Reclaimer
from penstock.engine.compaction import RATE
from penstock.engine.reclaim import save


def sparse(store: Store, mib: int) -> None:
    """Write so much, of which a tenth is still needed, and let checkpoints know of it."""
    slow, busy = store.queue("slow"), store.queue("busy")
    for _ in range(mib):
        store._prepare(2)
        slow.append_many([b"s" * 1000] * 100, durability="kernel")
        busy.append_many([b"b" * 1000] * 950, durability="kernel")
    store._flush()
    busy.purge()
    settle(store)


def settle(store: Store) -> None:
    steps = Reclaimer(store)
    while not steps.give_up():
        pass
    for _ in range(2):
        steps.mark()
        save(store)
    steps.shed()


def latencies(store: Store, seconds: float, ended: threading.Event) -> np.ndarray:
    """How long each of the single sends of four threads took, in ms."""
    found: list[float] = []
    queue = store.queue("sent")

    def send() -> None:
        until = time.perf_counter() + seconds
        while time.perf_counter() < until and not ended.is_set():
            began = time.perf_counter()
            queue.append(b"x" * 128)
            found.append(time.perf_counter() - began)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return np.array(found) * 1000


def measure(path: Path, mib: int, seconds: float) -> None:
    store = Store.open(path)
    store._maintenance().stop()
    sparse(store, mib)
    store.queue("sent")
    store._prepare(4)
    quiet = latencies(store, seconds, threading.Event())
    copied = {"bytes": 0, "segments": 0}
    ended = threading.Event()

    def compact() -> None:
        steps = Compactor(store)
        while (found := steps.compact(80, rate=RATE)) is not None and found["segments"]:
            copied["bytes"] += found["bytes"]
            copied["segments"] += found["segments"]
        ended.set()

    store._prepare(4)
    thread = threading.Thread(target=compact)
    began = time.perf_counter()
    thread.start()
    during = latencies(store, 60, ended)
    thread.join()
    took = time.perf_counter() - began
    settle(store)
    gone = Compactor(store).retire(True)
    print(f"before: {len(quiet) / seconds:,.0f}/s p50 {np.percentile(quiet, 50):.3f} p99 "
          f"{np.percentile(quiet, 99):.3f} ms; during: {len(during) / took:,.0f}/s p50 "
          f"{np.percentile(during, 50):.3f} p99 {np.percentile(during, 99):.3f} ms; "
          f"ratio of p99 {np.percentile(during, 99) / np.percentile(quiet, 99):.2f}; "
          f"{copied['segments']} segments, {copied['bytes'] / 1e6:.0f} MB copied in {took:.1f} s, "
          f"retired {gone}")
    store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--path")
    options = parser.parse_args()
    for _ in range(options.rounds):
        folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=options.path))
        try:
            measure(folder / "store", options.mib, options.seconds)
        finally:
            shutil.rmtree(folder)
