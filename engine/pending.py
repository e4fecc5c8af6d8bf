"""What a caller sees of a message that is in the log and in no queue yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# As _pending.pxi numbers them.
WAITS: tuple[Literal["delayed", "half", "committed"], ...] = ("delayed", "half", "committed")


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that waits for its time ("delayed", "committed") or for its verdict ("half").

    id is what cancel, move, commit and rollback take. due_us (µs since 1970) is when it gets into
    its queue; of a half, when its producer is asked next. checks: how often its producer was asked.
    stored_us: when it was sent. position: where a list goes on after this one.
    """

    id: int
    queue: str
    due_us: int
    state: Literal["delayed", "half", "committed"]
    checks: int
    stored_us: int = 0
    position: int = 0
