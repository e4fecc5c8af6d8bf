"""How fast a group passes over what its filter does not want, with nothing and 1 % wanted.

    python -m benchmarks.bench_filter       prints the rates of one thread, medians of rounds
"""

import statistics
from time import perf_counter

from penstock.engine import Attributes

from .stores import Prepared

COUNT = 400_000
BATCH = 8_000
FILTERS = {
    "tag": ("tag", "none || neither"),
    "routing": ("routing", "order.*.refunded.#"),
    "sql": ("sql", "price > 100 AND color IN ('red', 'blue') OR size BETWEEN 1 AND 9"),
    "like": ("sql", "color LIKE 'b%w_'"),
}


class Filter(Prepared):
    params = list(FILTERS)
    param_names = ("kind",)

    def setup(self, kind):
        self.prepare()
        told = [
            Attributes(tag="paid" if at % 100 else "sent", routing_key=f"order.{at}.paid",
                       properties={"price": f"{at % 100}.5", "color": "green", "size": "42"})
            for at in range(BATCH)
        ]
        while self.queue.stat()["next"] < COUNT:
            self.queue.append_many([b"x" * 64] * BATCH, attributes=told, durability="kernel")
        self.store._flush()
        self.group = self.queue.group("bench")
        self.group.filter(*FILTERS[kind])
        self.passing()

    def passing(self):
        """Messages a second that are passed over by one thread, none of them wanted."""
        self.group.seek(offset=0)
        began = perf_counter()
        found = len(self.group.receive())
        took = perf_counter() - began
        assert found == 0 and self.group.stat()["cursor"] >= COUNT
        return self.group.stat()["cursor"] / took

    def track_passed_over(self, kind):
        return max(self.passing() for _ in range(3))

    track_passed_over.unit = "messages/s"

    def track_one_in_a_hundred(self, kind):
        """Messages a second that are passed over or taken, when one in a hundred is wanted."""
        self.group.filter("tag", "sent")
        best = max(self.taking() for _ in range(3))
        self.group.filter(*FILTERS[kind])
        return best

    def taking(self):
        self.group.seek(offset=0)
        began = perf_counter()
        taken = 0
        while found := len(self.group.receive(1000, lease_ms=600_000)):
            taken += found
        took = perf_counter() - began
        assert taken >= COUNT // 100
        return COUNT / took

    track_one_in_a_hundred.unit = "messages/s"


def main(rounds=7):
    for kind in FILTERS:
        suite = Filter()
        suite.setup(kind)
        try:
            rates = [suite.passing() for _ in range(rounds)]
            print(f"{kind:8} wants nothing: {statistics.median(rates):14,.0f} messages/s "
                  f"passed over "
                  f"({min(rates):,.0f} to {max(rates):,.0f})")
            if kind == "tag":
                suite.group.filter("tag", "sent")
                rates = [suite.taking() for _ in range(rounds)]
                print(f"{kind:8} wants 1 %:     {statistics.median(rates):14,.0f} "
                      f"messages/s passed over or taken "
                      f"({min(rates):,.0f} to {max(rates):,.0f})")
        finally:
            suite.teardown()


if __name__ == "__main__":
    main()
