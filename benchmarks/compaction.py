"""What compaction costs those who send meanwhile: p99 without it and with it, in turns.

    python benchmarks/compaction.py [--mib 2048] [--rounds 8] [--path DIR]

A busy queue and one of which a message comes for each ten of the other's are written, the busy
one is purged, and what is left is copied at the rate that the maintenance thread uses, while
four threads send 128 bytes each and wait for the disk. One step of copying (some 32 MB in two
seconds) is one round; before and after each, as many seconds without any. So a round has two
neighbours of its own to be held against.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def measure(path: Path, mib: int, rounds: int) -> None:
    with Store.open(path) as store:
        store._maintenance().stop()
        sparse(store, mib)
        store.queue("sent")
        store._prepare(8)
        os.sync()
        steps = Compactor(store)
        without = [sent_meanwhile(store, lambda: time.sleep(2))]
        during, copied, took = [], 0, 0.0
        while len(during) < rounds:
            found: list[dict[str, Any] | None] = []
            began = time.perf_counter()
            spent = sent_meanwhile(store, lambda: found.append(steps.compact(80, rate=RATE)))
            if found[0] is None or not found[0]["segments"]:
                break
            took += time.perf_counter() - began
            copied += found[0]["bytes"]
            during.append(spent)
            # Segments for the coming sends are the maintenance thread's work in a real store.
            store._prepare(8)
            without.append(sent_meanwhile(store, lambda: time.sleep(2)))
        told(without, during)
        settle(store)
        print(f"{copied / 1e6:.0f} MB copied in {took:.1f} s of {mib:,} MiB; files given "
              f"back, mapped, "
              f"waiting: {steps.retire(True)}")


def sent_meanwhile(store: Store, work: Callable[[], object]) -> np.ndarray:
    """The latencies of what four threads send while some work is done."""
    ended = threading.Event()

    def done() -> None:
        work()
        ended.set()

    thread = threading.Thread(target=done)
    thread.start()
    found = latencies(store, 60, ended)
    thread.join()
    return found


def told(without: list[np.ndarray], during: list[np.ndarray]) -> None:
    ratios = []
    for at, one in enumerate(during):
        quiet = np.concatenate(without[at:at + 2])
        here, there = np.percentile(one, (50, 99)), np.percentile(quiet, (50, 99))
        ratios.append(here[1] / there[1])
        print(f"round {at + 1}: without p50 {there[0]:.3f} p99 {there[1]:.3f} ms, with p50 "
              f"{here[0]:.3f} "
              f"p99 {here[1]:.3f} ms: {ratios[-1]:.2f}")
    all_without, all_during = (
        np.percentile(np.concatenate(some), 99) for some in (without, during))
    print(f"p99 with compaction against without: {np.median(ratios):.2f} (median of "
          f"{len(ratios)} rounds, "
          f"{min(ratios):.2f} to {max(ratios):.2f}); all rounds together "
          f"{all_during / all_without:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--path")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=options.path))
    try:
        measure(folder / "store", options.mib, options.rounds)
    finally:
        shutil.rmtree(folder)
