"""What order by key and what halves cost, each beside the plain thing.

    python -m benchmarks.bench_order        prints the ratios of several rounds in turns
"""

from __future__ import annotations

import statistics
import time

from penstock.engine import Attributes

from .stores import Prepared, bodies

KEYS = 100_000
COUNT = 200_000
HALVES = 10_000


class Order(Prepared):
    """Take and confirm a thousand at a time, of a queue with a hundred thousand keys."""

    params = ["none", "key"]
    param_names = ("order",)

    def setup(self, order):
        self.prepare()
        self.ordered = self.store.queue("ordered")
        body = bodies(1)[0]
        step = 10_000
        for start in range(0, COUNT, step):
            told = [Attributes(key=f"key {at % KEYS}") for at in range(start, start + step)]
            self.ordered.append_many([body] * step, attributes=told, durability="kernel")
        self.store._flush()
        self.group = self.ordered.group("g")
        self.group.configure(order=order)

    def track_per_second(self, order):
        began, done = time.perf_counter(), 0
        while len(batch := self.group.receive(1000, max_bytes=1 << 22)):
            self.group.confirm(batch.receipts)
            done += len(batch)
        assert done == COUNT
        return done / (time.perf_counter() - began)

    track_per_second.unit = "messages/s"


class Halves(Prepared):
    """Prepare and commit, one by one, against plain sends; all of it on disk."""

    params = ["plain", "half"]
    param_names = ("kind",)

    def setup(self, kind):
        self.prepare()
        self.body = bodies(1)[0]

    def send(self, kind):
        if kind == "plain":
            self.queue.append(self.body)
        else:
            self.store.pending.commit(self.queue.prepare(self.body).pending)

    def time_one(self, kind):
        self.send(kind)

    def track_per_second(self, kind):
        began = time.perf_counter()
        for _ in range(HALVES):
            self.send(kind)
        return HALVES / (time.perf_counter() - began)

    track_per_second.unit = "messages/s"


def compared(suite, track, rounds):
    """The rates of a suite's first kind, the plain one, and of its second, in turns."""
    rates = {kind: [] for kind in suite.params}
    for _ in range(rounds):
        for kind in suite.params:
            one = suite()
            one.setup(kind)
            try:
                rates[kind].append(track(one, kind))
            finally:
                one.teardown()
    plain, other = rates.values()
    ratios = [there / here for here, there in zip(plain, other)]
    print(f"{suite.__name__}: {suite.params[1]} {statistics.median(other):,.0f}/s, "
          f"{suite.params[0]} "
          f"{statistics.median(plain):,.0f}/s: {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f})")


def main(rounds=7):
    compared(Order, Order.track_per_second, rounds)
    compared(Halves, Halves.track_per_second, 3)


if __name__ == "__main__":
    main()
