"""What a connection asks about what waits: who may be asked for verdicts, and atomic sends."""

import struct
from collections.abc import Callable
from typing import Protocol

from penstock.engine._core import Queue
from penstock.engine.attributes import Attributes, unpack
from penstock.engine.errors import InvalidError
from penstock.server.broker.broker import Broker, crowded
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.producers import Check, Member, Producers
from penstock.server.broker.transaction import Transactions, group_checked
from penstock.server.protocols.native.statuses import refused

JOIN = 1
NUMBERED = 1
SEQUENCE = struct.Struct("<Q")
ATTRIBUTED, DUE, DELAY = 1, 2, 4
CHECK = struct.Struct("<QQIIHHII")
ALL = struct.Struct("<BBHI")
ONE = struct.Struct("<IBBHI")
LATER = struct.Struct("<QII")
ALL_REPLY = struct.Struct("<BBHI")
ONE_REPLY = struct.Struct("<QII")


Message = tuple[Queue, bytes, Attributes | None, int]


# Whether the connection that asks may use a queue: 0, or the milliseconds after which to try again.
Joins = Callable[[int], int]


def always(_: int) -> int:
    """Nobody is too many."""
    return 0


def joined(joins: Joins, queue: int) -> None:
    """Raise THROTTLED if the connection is one too many for the queue's namespace."""
    closed_ms = joins(queue)
    if closed_ms:
        raise crowded(closed_ms)


class Asked(Protocol):
    """The connection of a producer."""

    def check(self, payload: bytes) -> bool: ...


class Later:
    """The verbs PRODUCER and SEND_ALL."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.producers: Producers = broker.producers
        self.transactions = Transactions(broker)

    def produce(
        self, connection: Asked, places: dict[str, Member], payload: bytes
    ) -> tuple[int, bytes]:
        """Let a connection be asked for the verdicts of a group, or no more. Waits for nothing."""
        try:
            self.place(connection, places, payload)
        except BrokerError as error:
            return refused(error)
        return 0, b""

    def place(self, connection: Asked, places: dict[str, Member], payload: bytes) -> None:
        flags = int.from_bytes(payload[:4], "little")
        if len(payload) < 4 or flags & ~JOIN:
            raise BrokerError(Kind.INVALID, "PRODUCER is flags, 1 to be asked or 0, and a group")
        group = group_checked(text_of(payload[4:]))
        if not flags:
            if group in places:
                places.pop(group).leave()
            return
        limit = self.broker.limits.producer_groups
        if group not in places:
            if len(places) >= limit:
                text = f"a connection is of up to {limit} groups of producers"
                raise BrokerError(Kind.INVALID, text, limit=limit)
            places[group] = self.producers.join(group, asks(connection))

    def send_all(self, payload: bytes, producer: int = 0, joins: Joins = always) -> bytes:
        """Store messages of several queues, all or none. Raises INVALID, NOT_FOUND, TOO_LARGE."""
        if len(payload) < ALL.size:
            raise BrokerError(Kind.INVALID, "SEND_ALL is a durability, a count and messages")
        level, flags, zero, count = ALL.unpack_from(payload)
        limit = self.broker.limits.atomic_messages
        if level > 1 or flags > NUMBERED or zero:
            raise BrokerError(Kind.INVALID, "durability is 0 or 1, flags at most 1, the rest 0")
        if count > limit:
            text = f"an atomic send has up to {limit} messages"
            raise BrokerError(Kind.TOO_LARGE, text, limit=limit)
        at, sequence, messages = ALL.size, 0, list[Message]()
        if flags & NUMBERED:
            if len(payload) < ALL.size + SEQUENCE.size:
                raise BrokerError(Kind.INVALID, "the sequence is cut off")
            (sequence,) = SEQUENCE.unpack_from(payload, at)
            at += SEQUENCE.size
        for _ in range(count):
            message, at = self.one(payload, at)
            messages.append(message)
        if at != len(payload):
            raise BrokerError(Kind.INVALID, "bytes behind the last message")
        for number in {queue.id for queue, *_ in messages}:
            joined(joins, number)
        self.transactions.admit(messages)
        receipts = self.transactions.send_all(
            messages, "disk" if level else "kernel", producer=producer, sequence=sequence)
        rows = (
            ONE_REPLY.pack(one.pending if one.pending else one.offset, bool(one.pending),
                           one.duplicate)
            for one in receipts
        )
        return ALL_REPLY.pack(level, 0, 0, count) + b"".join(rows)

    def one(
        self, payload: bytes, at: int
    ) -> tuple[Message, int]:
        """The message at a place of the payload, and where the next one stands."""
        if len(payload) - at < ONE.size:
            raise BrokerError(Kind.INVALID, f"a message is cut off at byte {at}")
        number, flags, zero, ext_size, body_size = ONE.unpack_from(payload, at)
        at += ONE.size
        if flags > ATTRIBUTED | DUE | DELAY or zero:
            raise BrokerError(Kind.INVALID, "flags are 1, 2 and 4; no half is in an atomic send")
        due_us = 0
        if flags > ATTRIBUTED:
            if len(payload) - at < LATER.size:
                raise BrokerError(Kind.INVALID, f"a message is cut off at byte {at}")
            due_us = self.due_us(flags, *LATER.unpack_from(payload, at))
            at += LATER.size
        middle, end = at + ext_size, at + ext_size + body_size
        if end > len(payload):
            raise BrokerError(Kind.INVALID, f"a message is cut off at byte {at}")
        if ext_size and not flags & ATTRIBUTED:
            raise BrokerError(Kind.INVALID, "the ext of an atomic send is attributes")
        try:
            attributes = unpack(payload[at:middle]) if ext_size else None
        except InvalidError as error:
            raise BrokerError(Kind.INVALID, str(error)) from None
        queue = self.broker.by_id(number)
        return (queue, payload[middle:end], attributes, due_us), end

    def due_us(self, flags: int, time_us: int, check_ms: int, zero: int) -> int:
        if check_ms or zero:
            raise BrokerError(Kind.INVALID, "a field that the flags do not ask for is not 0")
        schedule = self.transactions.schedule
        delay_ms = -(-time_us // 1000) if flags & DELAY else None
        return schedule.due_us(delay_ms, time_us if flags & DUE else None)


def asks(connection: Asked) -> Callable[[Check], bool]:
    """What hands a check to the producer at the other end of the connection."""

    def ask(check: Check) -> bool:
        queue, group = check.target.encode(), check.group.encode()
        fixed = CHECK.pack(
            check.id, check.stored_us, check.checks, check.queue_id, len(queue), len(group),
            len(check.ext), check.attributed)
        return connection.check(b"".join((fixed, queue, group, check.ext, check.body)))

    return ask


def text_of(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BrokerError(Kind.INVALID, "a group's name is UTF-8 text") from error
