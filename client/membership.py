"""Being a member that goes when it is idle: when to join again, and how long to wait at most."""

from __future__ import annotations

from penstock.errors import InvalidError

SHORTEST_SECONDS = 1.0


class Membership:
    """One member of a group that broadcasts. No sockets, no clock.

    Invariant: as long as somebody receives as it, it is joined again three times per idle time.
    """

    def __init__(self, queue: str, group: str, member: str, idle: float) -> None:
        if idle and idle < SHORTEST_SECONDS:
            raise InvalidError(f"an idle time is at least {SHORTEST_SECONDS:.0f} s, or none")
        self.names = (queue, group, member)
        self.idle = idle
        self.joined = 0.0

    @property
    def group(self) -> str:
        """What the server calls its group."""
        return f"{self.names[1]}@{self.names[2]}"

    def due(self, now: float) -> bool:
        """Whether to join again now; then it is taken as done."""
        if not self.idle or now < self.joined + self.idle / 3:
            return False
        self.joined = now
        return True

    def longest(self, wait: float) -> float:
        """How long one request may wait."""
        return min(wait, self.idle / 3) if self.idle else wait
