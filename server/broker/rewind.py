"""Setting a group to a place: by offset, time or a way back; tried first, or done beside it."""

from typing import Any

from penstock.engine._core import Consumer, Inspector, Queue
from penstock.server.broker.asks import Rewind
from penstock.server.broker.errors import BrokerError, Kind

UNITS_US = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


def rewind(look: Inspector, group: Consumer, ask: Rewind) -> dict[str, Any]:
    """Where the group is now (or would be), how many messages come from there on, how many again.

    skipped: messages that were to come and do not any more.
    Raises INVALID, EXISTS (a shadow group of that name is there already).
    """
    queue = group.queue
    given = [ask.offset, ask.time_us, ask.to, ask.relative, ask.undo or None]
    if sum(one is not None for one in given) != 1:
        text = "exactly one of offset, time_us, to, relative and undo is needed"
        raise BrokerError(Kind.INVALID, text)
    if ask.undo:
        if ask.dry_run or ask.shadow:
            raise BrokerError(Kind.INVALID, "undo is neither tried nor done beside")
        offset, messages = group.undo()
        return {"queue": queue.name, "group": group.name, "offset": offset, "messages": messages}
    stat = queue.stat()
    offset = min(max(target(look, group, ask), stat["first"]), stat["next"])
    answer: dict[str, Any] = {"queue": queue.name, "group": group.name, "offset": offset}
    if ask.shadow:
        return answer | shadow(queue, ask, offset, stat["next"])
    # Counted before: afterwards nothing from there on is confirmed.
    counts, _, _ = look.counts(queue.id, group.id, offset)
    again = counts["confirmed"] + counts["passed"]
    skipped = 0
    if offset > group.stat()["floor"]:
        before, low, high = look.counts(queue.id, group.id, 0, offset)
        skipped = high - low - before["confirmed"] - before["passed"]
    if not ask.dry_run:
        offset, _ = group.seek(offset=offset)
    messages = stat["next"] - offset
    answer |= {"messages": messages, "again": again, "skipped": skipped}
    return answer | {"dry_run": ask.dry_run}


def target(look: Inspector, group: Consumer, ask: Rewind) -> int:
    """The offset that is meant, not yet cut to what there is."""
    if ask.offset is not None:
        return ask.offset
    if ask.time_us is not None:
        return group.queue.offset_at(ask.time_us)
    if ask.to is not None:
        return 0 if ask.to == "earliest" else group.queue.stat()["next"]
    assert ask.relative is not None
    if ask.relative[-1].isdigit():
        return max(0, group.stat()["cursor"] + int(ask.relative))
    back = int(ask.relative[:-1]) * UNITS_US[ask.relative[-1]]
    return group.queue.offset_at(min(max(0, look.now_us() + back), (1 << 63) - 1))


def shadow(queue: Queue, ask: Rewind, offset: int, end: int) -> dict[str, Any]:
    """A new group that begins at the offset; the one that was asked about stays where it is."""
    if ask.shadow in queue.groups():
        raise BrokerError(Kind.EXISTS, f"queue {queue.name} has a group {ask.shadow!r} already")
    if not ask.dry_run:
        queue.store._group(queue.id, ask.shadow.encode(), offset)
    return {"shadow": ask.shadow, "messages": end - offset, "dry_run": ask.dry_run}
