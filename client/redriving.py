"""A redrive of any length: the steps, their sum, and how fast they may go. No sockets, no clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from penstock.errors import InvalidError

STEP = 256


class Redriving:
    """What the steps of one redrive asked for and did; both clients walk it.

    Invariants:
      1. What dies again while it runs lies at or behind end, and is not looked at.
      2. total is the sum of the answers that were taken.
    """

    def __init__(
        self, rate: float | None, wanted: dict[str, Any], step: Callable[[dict[str, Any]], None]
    ) -> None:
        if rate is not None and not 0 < rate <= 1e9:
            raise InvalidError("a rate is over 0 messages a second")
        self.rate = rate
        self.step = step
        self.fields = {"limit": STEP if rate is None else max(1, min(STEP, int(rate))), **wanted}
        self.total = {"seen": 0, "wanted": 0, "moved": 0}
        self.done = False

    def take(self, answer: dict[str, Any]) -> float:
        """The seconds to wait before the next step."""
        for name in self.total:
            self.total[name] += answer[name]
        self.fields |= {"cursor": answer["next"], "end": answer["end"]}
        self.done = answer["next"] is None
        self.step(answer)
        return 0.0 if self.rate is None or self.done else answer["moved"] / self.rate


def ignored(_: dict[str, Any]) -> None:
    """Nobody is told of the steps."""
