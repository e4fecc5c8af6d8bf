"""What a delay costs its sender, and how late what is due comes, with many pending.

    python -m benchmarks.bench_pending [PENDING]     prints all of it, for 1,000,000 unless said
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
from penstock.engine import Store

from .stores import SIZE, Prepared

HOUR_US = 3_600_000_000
BATCH = 1000


def now_us():
    return time.time_ns() // 1000


class Delay(Prepared):
    """The caller's own time for a message, with and without a delay."""

    params = ["plain", "delayed"]
    param_names = ("kind",)

    def setup(self, kind):
        self.prepare()
        self.due_us = now_us() + HOUR_US if kind == "delayed" else 0
        self.bodies = np.zeros(BATCH * SIZE, np.uint8)
        self.sizes = np.full(BATCH, SIZE, np.uint32)

    def append(self):
        self.queue.append_packed(self.bodies, self.sizes, durability="kernel", due_us=self.due_us)

    def time_append(self, kind):
        self.append()

    def track_cpu_per_message(self, kind):
        before = time.thread_time()
        for _ in range(100):
            self.append()
        return (time.thread_time() - before) / (100 * BATCH) * 1e9

    track_cpu_per_message.unit = "ns"


class Waiting(Prepared):
    """With so many others pending: lateness, memory of the process's own, and a restart."""

    params = [1_000_000, 10_000_000]
    param_names = ("pending",)

    def setup(self, pending):
        self.prepare()
        sizes = np.full(BATCH, 16, np.uint32)
        bodies = np.zeros(BATCH * 16, np.uint8)
        for at in range(pending // BATCH):
            self.queue.append_packed(bodies, sizes, durability="kernel",
                                     due_us=now_us() + HOUR_US + at * 10_000_000)

    def track_late_p99(self, pending):
        before = self.queue.stat()["next"]
        due = now_us() + 3_000_000 + np.arange(2000) * 500
        for at in due.tolist():
            self.queue.append(b"due", due_us=at, durability="kernel")
        while self.queue.stat()["visible"] < before + len(due):
            time.sleep(0.05)
        stored = self.queue.index(before)["stored_us"].astype(np.int64)
        return float(np.percentile(stored - due, 99)) / 1000

    track_late_p99.unit = "ms"

    def track_private(self, pending):
        self.queue.append(b"due", due_us=now_us() + 2_000_000)
        time.sleep(3)
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024

    track_private.unit = "MiB"

    def track_restart(self, pending):
        """Until the first message that falls due after the opening is there."""
        self.store.close()
        began = time.perf_counter()
        self.store = Store.open(self.folder / "store")
        self.queue = self.store.queue("bench")
        before = self.queue.stat()["next"]
        self.queue.append(b"due", due_us=now_us() + 1000)
        while self.queue.stat()["visible"] == before:
            time.sleep(0.002)
        return time.perf_counter() - began

    track_restart.unit = "s"


def costs(rounds=5):
    """The caller's own time for a message, in turns."""
    found = {kind: [] for kind in Delay.params}
    for _ in range(rounds):
        for kind in Delay.params:
            suite = Delay()
            suite.setup(kind)
            found[kind].append(suite.track_cpu_per_message(kind))
            suite.teardown()
    ratios = [late / plain for plain, late in zip(found["plain"], found["delayed"])]
    print(f"a message sent with a delay {statistics.median(found['delayed']):.0f} ns, without "
          f"{statistics.median(found['plain']):.0f} ns: {statistics.median(ratios):.2f}")


def main(pending):
    costs()
    suite = Waiting()
    suite.setup(pending)
    try:
        late = [suite.track_late_p99(pending) for _ in range(3)]
        print(f"{pending:,} pending: late p99 {statistics.median(late):.1f} ms "
              f"({min(late):.1f} to {max(late):.1f})")
        print(f"{pending:,} pending: private memory {suite.track_private(pending):.0f} MiB")
        print(f"{pending:,} pending: restart up to the first message due "
              f"{suite.track_restart(pending):.2f} s")
    finally:
        suite.teardown()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
