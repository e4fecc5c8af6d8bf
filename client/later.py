"""What waits, as the wire has it: times, halves and their verdicts, checks, atomic sends."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

from penstock import wire
from penstock.attributes import Attributes, Carried, attribute, pack, unpack
from penstock.errors import InvalidError
from penstock.parse import fixed_fields
from penstock.request import Call, Handle, Waiter
from penstock.wire import UNKNOWN_OFFSET, Receipt, Verb

DUE, DELAY, HALF = 2, 4, 8
JOIN = 1
NUMBERED = 1
LATER = struct.Struct("<QII")
ID = struct.Struct("<Q")
CHECK = struct.Struct("<QQIIHHII")
ALL = struct.Struct("<BBHI")
ONE = struct.Struct("<IBBHI")
ONE_REPLY = struct.Struct("<QII")
PRODUCER_GROUP, CHECK_BACK = 8, 9
LEVELS = ("kernel", "disk")

# Seconds since 1970, or a datetime.
Moment: TypeAlias = float | datetime
# A message of an atomic send: its queue, the flags, later and attributes packed, the body.
Part: TypeAlias = tuple[Handle, int, bytes, bytes]


class Check(NamedTuple):
    """A half whose producers are asked what became of it; id is what commit and rollback take.

    checks: how often it was asked before.
    """

    id: int
    queue: str
    group: str
    body: bytes
    attributes: Attributes
    stored_us: int
    checks: int


def micros(seconds: float) -> int:
    """Seconds as the wire has them; InvalidError for a time that cannot be told."""
    try:
        value = round(seconds * 1_000_000)
    except (ValueError, OverflowError):
        value = -1
    if not 0 <= value < 1 << 63:
        raise InvalidError(f"{seconds} seconds is not a time that can be told")
    return value


def later_of(
    delay: float | None, at: Moment | None, first_check: float | None = None
) -> tuple[int, bytes]:
    """The flags and the bytes of a send that waits; (0, b"") if it does not."""
    flags = time_us = check_ms = 0
    if delay is not None and at is not None:
        raise InvalidError("give a delay or a time, not both")
    if delay is not None:
        flags, time_us = DELAY, micros(delay)
    elif at is not None:
        flags, time_us = DUE, micros(at.timestamp() if isinstance(at, datetime) else at)
    if first_check is not None:
        flags |= HALF
        check_ms = min(micros(first_check) // 1000, 0xFFFFFFFF)
    return flags, LATER.pack(time_us, check_ms, 0) if flags else b""


def half_ext(carried: Carried, group: str, check_every: float, checks: int) -> bytes:
    """What a half carries, and who may be asked about it."""
    packed = pack(carried) + attribute(
        CHECK_BACK, b"", f"{micros(check_every) // 1000} {int(checks)}")
    return packed + attribute(PRODUCER_GROUP, b"", group) if group else packed


def receipt_of(payload: memoryview, name: str) -> Receipt:
    """The receipt in a reply as SEND's."""
    offset, level, twice, waits = fixed_fields(wire.SEND_REPLY, payload)
    return receipt(offset, level, twice, waits, 1, name)


def receipt(offset: int, level: int, twice: int, waits: int, count: int, name: str) -> Receipt:
    """What stands as the offset of a message that waits is its id."""
    found = (offset, None) if not waits else (UNKNOWN_OFFSET, offset)
    return Receipt(found[0], LEVELS[level & 1], twice == 1, count, name, found[1])


def commit_call(waiter: Waiter, id: int, name: str = "") -> Call:
    """May be asked twice: a repetition is answered as the first."""
    return Call(
        waiter, Verb.COMMIT, lambda tag: wire.frame(Verb.COMMIT, tag, ID.pack(id)),
        lambda payload: receipt_of(payload, name))


def rollback_call(waiter: Waiter, id: int) -> Call:
    """Its result: False if it was rolled back before."""
    return Call(
        waiter, Verb.ROLLBACK, lambda tag: wire.frame(Verb.ROLLBACK, tag, ID.pack(id)),
        lambda payload: not fixed_fields(wire.SEND_REPLY, payload)[2])


def producer(tag: int, group: str, flags: int = JOIN) -> bytes:
    """A PRODUCER frame."""
    return wire.frame(Verb.PRODUCER, tag, wire.COUNT.pack(flags) + group.encode())


def producer_call(waiter: Waiter, group: str, flags: int) -> Call:
    return Call(waiter, Verb.PRODUCER, lambda tag: producer(tag, group, flags), bytes)


def parse_check(payload: memoryview) -> Check:
    """What a CHECK asks. Raises WireError, ProtocolError."""
    id, stored_us, checks, _, name_size, group_size, ext_size, flags = fixed_fields(
        CHECK, payload, exact=False)
    ends = [CHECK.size]
    for size in (name_size, group_size, ext_size):
        ends.append(ends[-1] + size)
    if ends[-1] > len(payload):
        raise wire.WireError(wire.Status.MALFORMED, "a check is cut short")
    name, group, ext = (bytes(payload[a:b]) for a, b in zip(ends, ends[1:]))
    carried = unpack(ext) if flags & wire.ATTRIBUTED else Attributes()
    return Check(id, name.decode(), group.decode(), bytes(payload[ends[-1] :]), carried,
                 stored_us, checks)


def part_of(
    handle: Handle, body: bytes, carried: Carried, delay: float | None, at: Moment | None
) -> Part:
    """One message of an atomic send."""
    flags, later = later_of(delay, at)
    ext = pack(carried)
    return handle, flags | (wire.ATTRIBUTED if ext else 0), later + ext, body


def all_call(waiter: Waiter, level: int, parts: Sequence[Part], sequence: int) -> Call:
    """A SEND_ALL. It has a number as a SEND has, so that it may be asked twice."""

    def encode(tag: int) -> bytes:
        rows = [ALL.pack(level, NUMBERED, 0, len(parts)), ID.pack(sequence)]
        for handle, flags, ext, body in parts:
            size = len(ext) - (LATER.size if flags > wire.ATTRIBUTED else 0)
            rows += (ONE.pack(handle.queue, flags, 0, size, len(body)), ext, body)
        return wire.frame(Verb.SEND_ALL, tag, b"".join(rows))

    def decode(payload: memoryview) -> list[Receipt]:
        reached, _, _, count = fixed_fields(ALL, payload, exact=False)
        if len(payload) != ALL.size + count * ONE_REPLY.size or count != len(parts):
            raise wire.WireError(wire.Status.MALFORMED, "not one receipt for each message")
        rows = ONE_REPLY.iter_unpack(payload[ALL.size :])
        return [receipt(offset, reached, twice, waits, 1, part[0].name)
                for (offset, waits, twice), part in zip(rows, parts)]

    return Call(waiter, Verb.SEND_ALL, encode, decode)


def id_number(message: int | str | Receipt) -> int:
    """The number of a message that waits, from any form of its id."""
    text = id_text(message)
    try:
        return int(text.partition("-p")[2], 16)
    except ValueError:
        raise InvalidError(f"{text!r} is no id of a message that waits") from None


def id_text(message: int | str | Receipt) -> str:
    """The id of a message that waits as ADMIN has it; the queue's digits are not looked at."""
    if isinstance(message, str):
        return message
    id = message.pending if isinstance(message, Receipt) else message
    if id is None:
        raise InvalidError("this message did not have to wait")
    return f"{0:08x}-p{id:015x}"
