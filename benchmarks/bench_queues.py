"""One commit spread over many queues, and one message fanned out to many of them.

    python -m benchmarks.bench_queues       prints what fan-out reaches, and what it writes
"""

import statistics
import time

from .stores import SIZE, Prepared, bodies

MESSAGES = 1000


class Queues(Prepared):
    """A thousand messages in one commit, dealt out to so many queues."""

    params = [1, 100, 10_000]
    param_names = ("queues",)

    def setup(self, queues):
        self.prepare()
        self.queues = [self.store.queue(f"q{number}") for number in range(queues)]
        self.body = bodies(1)[0]
        self.next = 0
        # Each queue has its first index page before the clock runs.
        for low in range(0, queues, 8192):
            self.store.fanout(self.queues[low:low + 8192], self.body, durability="kernel")

    def spread(self):
        count = len(self.queues)
        with self.store.batch() as batch:
            for number in range(self.next, self.next + MESSAGES):
                batch.append(self.queues[number % count], self.body)
        self.next = (self.next + MESSAGES) % count

    def time_commit_1000(self, queues):
        self.spread()

    def track_fsyncs_per_commit(self, queues):
        before = self.spent("fsyncs")[0]
        for _ in range(20):
            self.spread()
        return (self.spent("fsyncs")[0] - before) / 20

    track_fsyncs_per_commit.unit = "fdatasyncs"

    def track_bytes_per_message(self, queues):
        before = self.spent("bytes_written")[0]
        for _ in range(20):
            self.spread()
        return (self.spent("bytes_written")[0] - before) / (20 * MESSAGES)

    track_bytes_per_message.unit = "bytes"


class Fanout(Prepared):
    """One message to so many queues: one body, one record, an index entry for each."""

    params = [10, 1000, 10_000]
    param_names = ("queues",)

    def setup(self, queues):
        self.prepare()
        self.queues = [self.store.queue(f"q{number}") for number in range(queues)]
        self.body = bodies(1, SIZE)[0]
        self.fan()

    def fan(self):
        self.store.fanout(self.queues, self.body, durability="disk")

    def time_fanout(self, queues):
        self.fan()

    def track_bytes_per_queue(self, queues):
        return self.written(10) / queues

    track_bytes_per_queue.unit = "bytes"

    def track_entries_per_second(self, queues):
        return self.rate(queues, "disk", 1)

    track_entries_per_second.unit = "entries/s"

    def rate(self, queues, durability, seconds):
        """One sender, each send answered before the next begins."""
        began, count = time.perf_counter(), 0
        while (spent := time.perf_counter() - began) < seconds:
            self.store.fanout(self.queues, self.body, durability=durability)
            count += 1
        return count * queues / spent

    def written(self, count):
        """The bytes of the log that one fan-out takes: frame, record, recipients and body."""
        before = self.spent("bytes_written")[0]
        for _ in range(count):
            self.fan()
        return (self.spent("bytes_written")[0] - before) / count


def main(rounds=5):
    for queues in Fanout.params:
        suite = Fanout()
        suite.setup(queues)
        try:
            size = suite.written(10)
            for durability in ("disk", "kernel"):
                rates = [suite.rate(queues, durability, 0.7) for _ in range(rounds)]
                print(f"{queues:6} queues, {durability:6} {statistics.median(rates):12,.0f} "
                      f"entries/s "
                      f"({min(rates):,.0f} to {max(rates):,.0f}); {size:,.0f} bytes of log a send: "
                      f"16 a queue and {size - 16 * queues:.0f}, the body's {SIZE} once")
        finally:
            suite.teardown()


if __name__ == "__main__":
    main()
