"""Where a message came from that was moved: a dead letter, or one that was redriven."""

from __future__ import annotations

import struct
from typing import NamedTuple

ORIGIN = struct.Struct("<IQQIIIHH")
# Why, by number.
MOVES = {1: "attempts used up", 2: "given back for the last time", 3: "redriven"}


class Origin(NamedTuple):
    """Where a message was before it was moved.

    queue is empty if that was deleted since. attempts: how often it was delivered there; text:
    what was said when it was given back the last time.
    """

    queue: str
    queue_id: int
    group_id: int
    offset: int
    sent_us: int
    attempts: int
    reason: str
    text: str

    @property
    def id(self) -> str:
        """The id that the message had there."""
        return f"{self.queue_id:08x}-{self.offset:016x}"


def parse_origin(payload: memoryview) -> tuple[Origin, int] | None:
    """The origin at the start of payload and its size; None if it does not fit."""
    if len(payload) < ORIGIN.size:
        return None
    size, offset, sent_us, queue, group, attempts, reason, name_size = ORIGIN.unpack_from(payload)
    end, text = 4 + size, ORIGIN.size + name_size
    if end > len(payload) or text > end:
        return None
    origin = Origin(
        str(payload[ORIGIN.size : text], "utf-8", "replace"), queue, group, offset, sent_us,
        attempts, MOVES.get(reason, str(reason)), str(payload[text:end], "utf-8", "replace"),
    )  # fmt: skip
    return origin, end


def origin_block(origin: Origin) -> bytes:
    """The bytes of it."""
    name, text = origin.queue.encode(), origin.text.encode()
    numbers = {said: number for number, said in MOVES.items()}
    reason = numbers.get(origin.reason) or int(origin.reason)
    return ORIGIN.pack(
        ORIGIN.size - 4 + len(name) + len(text), origin.offset, origin.sent_us, origin.queue_id,
        origin.group_id, origin.attempts, reason, len(name),
    ) + name + text  # fmt: skip
