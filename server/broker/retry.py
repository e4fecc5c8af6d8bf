"""Dead letters put back, step by step: those that fit what is asked, never twice, never lost."""

from typing import Any

from penstock.engine._core import Batch, matches
from penstock.engine.filters import compile_filter
from penstock.engine.retries import Origin, redrive
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind


class DeadLetters:
    """The ask: redrive."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def redrive(self, ask: asks.Redrive) -> dict[str, Any]:
        """One step. next is the cursor to go on with, or None; end is where to stop.

        Who goes on gives the end of the first step each time: what dies again meanwhile lies
        behind it. Raises NOT_FOUND, INVALID.
        """
        queue = self.broker.open(ask.queue, create=False)
        if ask.group not in self.broker.groups(queue):
            raise BrokerError(
                Kind.NOT_FOUND, f"queue {ask.queue} has no group {ask.group!r}")
        to = self.broker.open(ask.to, create=False) if ask.to else None
        if to is not None and to.id == queue.id:
            raise BrokerError(Kind.INVALID, "a redrive goes into another queue")
        visible = queue.stat()["visible"]
        end = visible if ask.end is None else min(ask.end, visible)
        group = self.broker.group(queue, ask.group)
        start = max(ask.cursor, group.stat()["floor"])
        done = redrive(
            group, to=to, wanted=Wanted(ask), start=start, end=end, limit=ask.limit,
            dry_run=ask.dry_run,
        )  # fmt: skip
        following = done.next if done.next is not None and done.next < end else None
        return {
            "queue": ask.queue, "seen": done.seen, "wanted": done.wanted, "moved": done.moved,
            "next": following, "end": end, "left": max(0, end - start), "dry_run": ask.dry_run,
        }


class Wanted:
    """Whether a dead letter is all of what the ask gives. Raises INVALID for a wrong filter."""

    def __init__(self, ask: asks.Redrive) -> None:
        self.ask = ask
        self.filter = compile_filter(ask.kind, ask.filter) if ask.filter else b""

    def __call__(self, batch: Batch, at: int) -> bool:
        ask = self.ask
        died_us = int(batch.timestamps[at])
        if ask.since_us is not None and died_us < ask.since_us:
            return False
        if ask.until_us is not None and died_us >= ask.until_us:
            return False
        if self.filter and not matches(self.filter, batch.attributes(at).pack()):
            return False
        if not (ask.reason or ask.text or ask.origin):
            return True
        origin = batch.origin(at)
        return origin is not None and self.came(origin)

    def came(self, origin: Origin) -> bool:
        """Whether it came from there, and for that."""
        ask = self.ask
        return (
            (not ask.origin or ask.origin == origin.queue_name)
            and ask.reason.casefold() in origin.reason.casefold()
            and ask.text.casefold() in origin.text.casefold()
        )


def told(origin: Origin) -> dict[str, Any]:
    """Where a message came from, as the doors say it."""
    return {
        "queue": origin.queue_name, "id": f"{origin.queue:08x}-{origin.offset:016x}",
        "offset": origin.offset, "sent_us": origin.sent_us, "attempts": origin.attempts,
        "reason": origin.reason, "text": origin.text,
    }
