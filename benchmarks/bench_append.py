"""Appending: one message, batches, packed batches, and what they cost the disk."""

import os
import threading

import numpy as np

from .sidebyside.counters import device_bytes
from .stores import LEVELS, Prepared, bodies

BATCHES = [1, 64, 1000]
SIZES = [128, 1024]
THREADS = 16


class Append(Prepared):
    params = (LEVELS, BATCHES, SIZES)
    param_names = ("durability", "batch", "size")

    def setup(self, durability, batch, size):
        self.prepare()
        self.bodies = bodies(batch, size)
        self.packed = np.frombuffer(b"".join(self.bodies), dtype=np.uint8)
        self.sizes = np.full(batch, size, dtype=np.uint32)

    def time_append_many(self, durability, batch, size):
        self.queue.append_many(self.bodies, durability=durability)

    def time_append_packed(self, durability, batch, size):
        self.queue.append_packed(self.packed, self.sizes, durability=durability)

    def track_fsyncs_per_append(self, durability, batch, size):
        return self.each("fsyncs", durability, 100)

    def track_bytes_per_message(self, durability, batch, size):
        return self.each("bytes_written", durability, 100) / batch

    def track_device_bytes_per_message(self, durability, batch, size):
        """What the disk took, write-back included: the least of three, for it has neighbours."""
        count = max(100, 1000 // batch)
        taken = [self.taken_by_device(durability, count) for _ in range(3)]
        return min(taken) / (count * batch) if None not in taken else float("nan")

    def taken_by_device(self, durability, count):
        os.sync()
        before = device_bytes(self.folder)
        for _ in range(count):
            self.queue.append_many(self.bodies, durability=durability)
        os.sync()
        after = device_bytes(self.folder)
        return None if before is None or after is None else after - before

    track_fsyncs_per_append.unit = "fdatasyncs"
    track_device_bytes_per_message.unit = "bytes"
    track_bytes_per_message.unit = "bytes"

    def each(self, what, durability, count):
        before = self.spent(what)[0]
        for _ in range(count):
            self.queue.append_many(self.bodies, durability=durability)
        return (self.spent(what)[0] - before) / count


class AppendOne(Prepared):
    params = LEVELS
    param_names = ("durability",)

    def setup(self, durability):
        self.prepare()
        self.body = bodies(1)[0]

    def time_append(self, durability):
        self.queue.append(self.body, durability=durability)


class AppendThreads(Prepared):
    """Threads that append one message at a time share their syncs."""

    params = LEVELS
    param_names = ("durability",)

    def setup(self, durability):
        self.prepare()
        self.body = bodies(1)[0]

    def run(self, durability, count=50):
        def work():
            for _ in range(count):
                self.queue.append(self.body, durability=durability)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return THREADS * count

    def time_append(self, durability):
        self.run(durability)

    def track_fsyncs_per_message(self, durability):
        before = self.spent("fsyncs")[0]
        count = self.run(durability)
        return (self.spent("fsyncs")[0] - before) / count

    track_fsyncs_per_message.unit = "fdatasyncs"
