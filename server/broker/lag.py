"""How far a group is behind, and how long it will be: rates from two looks at it."""

from typing import Any, NamedTuple

SHORTEST_US = 50_000


class Sample(NamedTuple):
    """One look: when, how many were visible, how many of those were done with."""

    time_us: int
    visible: int
    done: int


class Rates:
    """Rates between the looks at each group.

    Invariant: samples holds at most room groups; beyond, all are forgotten and begin anew.
    """

    def __init__(self, room: int) -> None:
        self.room = room
        self.samples: dict[tuple[int, int], tuple[Sample, Sample]] = {}

    def look(
        self, queue: int, group: int, now_us: int, lag: dict[str, Any]
    ) -> dict[str, float | None]:
        """sent_per_s, done_per_s and drain_s (None: not known, or never at these rates)."""
        new = Sample(now_us, lag["visible"], lag["visible"] - lag["lag"])
        if len(self.samples) >= self.room and (queue, group) not in self.samples:
            self.samples.clear()
        older, old = self.samples.get((queue, group), (new, new))
        if now_us - old.time_us >= SHORTEST_US:
            older, old = old, new
            self.samples[queue, group] = (older, new)
        elif older is new:
            self.samples[queue, group] = (new, new)
        return rates(older, old, lag["lag"])


def rates(older: Sample, new: Sample, lag: int) -> dict[str, float | None]:
    """What two looks say. A group that was moved back did less than nothing: no rate is known."""
    span = (new.time_us - older.time_us) / 1e6
    if span <= 0 or new.done < older.done or new.visible < older.visible:
        return {"sent_per_s": None, "done_per_s": None, "drain_s": 0.0 if lag == 0 else None}
    sent, done = (new.visible - older.visible) / span, (new.done - older.done) / span
    drain = 0.0 if lag == 0 else lag / (done - sent) if done > sent else None
    return {"sent_per_s": round(sent, 3), "done_per_s": round(done, 3),
            "drain_s": None if drain is None else round(drain, 3)}
