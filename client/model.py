"""What both clients share: addresses, times, and what they ask a session for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

from penstock import later, wire
from penstock.attributes import NOTHING, Attributes, Carried, pack, unpack
from penstock.errors import ForgedError, InvalidError, StaleError, TooLargeError
from penstock.parse import fixed_fields, parse_messages, parse_verdicts
from penstock.request import Call, Handle, Waiter
from penstock.wire import EMPTY_RECEIPT, Delivered, Kind, Receipt, Verb, Verdict

if TYPE_CHECKING:
    from penstock.session import Session

Level: TypeAlias = Literal["disk", "kernel"]
Bytes: TypeAlias = bytes | bytearray | memoryview
Value = TypeVar("Value")
Place: TypeAlias = Literal["earliest", "latest"]

DURABILITY: dict[str, int] = {"kernel": 0, "disk": 1}
DEFAULT_ADDRESS = "tcp://127.0.0.1:7711"
WAIT_MS_LIMIT = MOST_32 = 0xFFFFFFFF
MOST_64 = (1 << 64) - 1
RECEIVE_BYTES = 4 << 20
EACH_WINDOW = 1000
# Of ADMIN, what stores messages.
NUMBERED = ("topic.send",)


class Sought(NamedTuple):
    """Where the group stands after a seek, and how many messages will come again."""

    offset: int
    messages: int


def parse_address(address: str) -> tuple[str, int]:
    """(host, port) of tcp://host:port or host:port; an IPv6 host stands in brackets."""
    host, colon, port = address.removeprefix("tcp://").rstrip("/").rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
        raise InvalidError(f"{address!r} is not tcp://host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def as_bytes(body: Bytes) -> bytes:
    """The body itself, or a copy of one that its owner could still change before a retry."""
    if type(body) is bytes:
        return body
    if not isinstance(body, bytes | bytearray | memoryview):
        raise TypeError(f"a body is bytes, not {type(body).__name__}")
    return bytes(body)


def packed_each(attributes: Iterable[Carried | None] | None) -> list[bytes] | None:
    """The attributes of each message of a batch as the wire has them."""
    if attributes is None:
        return None
    return [pack(one) if one else b"" for one in attributes]


def carried_bytes(ext: bytes, carried: Carried) -> bytes:
    """What stands before the body; a message has either ext or attributes."""
    if ext:
        raise InvalidError("a message has attributes or ext, not both")
    return pack(carried)


def level_of(durability: str) -> int:
    """The durability as the wire has it."""
    try:
        return DURABILITY[durability]
    except KeyError:
        raise InvalidError(f"durability is disk or kernel, not {durability!r}") from None


def milliseconds(seconds: float) -> int:
    """Seconds as the wire has them, refused when they cannot be told."""
    # What is no number at all is not within anything either.
    if not 0 <= seconds * 1000 <= WAIT_MS_LIMIT:
        raise InvalidError(f"{seconds} seconds is not a time that can be told")
    return round(seconds * 1000)


def within(name: str, value: int, most: int) -> int:
    """The value, refused by its name when the wire has no room for it."""
    if not 0 <= value <= most:
        raise InvalidError(f"{name} is from 0 to {most}, not {value}")
    return value


def place_of(
    to: str | None, offset: int | None, time_us: int | None
) -> tuple[Kind, int]:
    """(kind, value) of a SEEK or READ of which exactly one argument is given."""
    if (to is not None) + (offset is not None) + (time_us is not None) != 1:
        raise InvalidError("give one of: a place, offset, time")
    if offset is not None:
        return Kind.OFFSET, within("offset", offset, MOST_64)
    if time_us is not None:
        return Kind.TIME, within("time in µs", time_us, MOST_64)
    if to not in ("earliest", "latest"):
        raise InvalidError(f"a place is earliest or latest, not {to!r}")
    return (Kind.EARLIEST if to == "earliest" else Kind.LATEST), 0


def micros(moment: float) -> int:
    """Seconds since 1970 as the wire has them, refused when they cannot be told."""
    if not 0 <= moment * 1_000_000 <= MOST_64:
        raise InvalidError(f"a time is seconds since 1970, not {moment}")
    return int(moment * 1_000_000)


def now_us() -> int:
    """The present moment as stored_us has it."""
    return time.time_ns() // 1000


def batch_call(
    waiter: Waiter, handle: Handle, durability: str, sequence: int, bodies: Sequence[bytes],
    frame_bytes: int, attributes: Sequence[bytes] | None = None, when: tuple[int, bytes] = (0, b""),
) -> Call:
    """A SEND_BATCH; refused when it does not fit one frame, for a batch is stored as one."""
    level = level_of(durability)
    size = sum(map(len, bodies)) + 4 * len(bodies) + 64
    if attributes is not None:
        if len(attributes) != len(bodies):
            raise InvalidError(f"{len(bodies)} bodies and attributes of {len(attributes)}")
        size += sum(map(len, attributes)) + 4 * len(attributes)
    if size > frame_bytes:
        raise TooLargeError(f"a batch of {size} bytes is over the limit of {frame_bytes}")
    if not bodies:
        raise InvalidError("a batch has at least one message")

    def encode(tag: int) -> bytes:
        return wire.send_batch(tag, handle.queue, level, sequence, bodies, attributes, *when)

    def decode(payload: memoryview) -> Receipt:
        offset, reached, twice, waits, count = fixed_fields(wire.BATCH_REPLY, payload)
        return later.receipt(offset, reached, twice, waits, count, handle.name)

    return Call(waiter, Verb.SEND_BATCH, encode, decode, handle)


def receive_call(
    waiter: Waiter, handle: Handle, max_messages: int, lease_ms: int, wait_ms: int, max_bytes: int
) -> Call:
    within("max_messages", max_messages, MOST_32)
    within("max_bytes", max_bytes, MOST_32)

    def encode(tag: int) -> bytes:
        return wire.receive(
            tag, handle.queue, handle.group, max_messages, max_bytes, lease_ms, wait_ms
        )

    return Call(waiter, Verb.RECEIVE, encode, parse_messages, handle)


def read_call(
    waiter: Waiter, handle: Handle, kind: Kind, value: int, max_messages: int, wait_ms: int
) -> Call:
    within("max_messages", max_messages, MOST_32)

    def encode(tag: int) -> bytes:
        return wire.read(
            tag, handle.queue, kind, value, max_messages, RECEIVE_BYTES, wait_ms
        )

    return Call(waiter, Verb.READ, encode, parse_messages, handle)


def confirm_call(waiter: Waiter, receipts: Sequence[bytes]) -> Call:
    asked = False

    def encode(tag: int) -> bytes:
        # The first time may have been carried out though its answer was lost.
        nonlocal asked
        again, asked = asked, True
        return wire.confirm(tag, receipts, again)

    return Call(waiter, Verb.CONFIRM, encode, parse_verdicts)


def release_call(
    waiter: Waiter, receipts: Sequence[bytes], delay: float | None, reason: str = ""
) -> Call:
    """delay None: as the group's retry policy says, or at once. reason is cut to what is kept."""
    delay_ms = wire.BY_POLICY if delay is None else milliseconds(delay)
    if delay is not None and delay_ms == wire.BY_POLICY:
        raise InvalidError(f"{delay} seconds is not a time that can be told")
    text = reason.encode()[: wire.REASON_BYTES]

    def encode(tag: int) -> bytes:
        return wire.release(tag, delay_ms, receipts, text)

    return Call(waiter, Verb.RELEASE, encode, parse_verdicts)


def extend_call(waiter: Waiter, receipts: Sequence[bytes], lease_ms: int) -> Call:
    def encode(tag: int) -> bytes:
        return wire.extend(tag, lease_ms, receipts)

    return Call(waiter, Verb.EXTEND, encode, parse_verdicts)


def seek_call(waiter: Waiter, handle: Handle, kind: Kind, value: int) -> Call:
    def encode(tag: int) -> bytes:
        return wire.seek(tag, handle.queue, handle.group, kind, value)

    def decode(payload: memoryview) -> Sought:
        return Sought(*fixed_fields(wire.SEEK_REPLY, payload))

    return Call(waiter, Verb.SEEK, encode, decode, handle)


def admin_call(
    waiter: Waiter, do: str, fields: dict[str, Any], session: Session | None = None
) -> Call:
    """What changes something is asked once; a send of a session has a number and may come again."""
    numbered = session is not None and do in NUMBERED
    if session is not None and numbered:
        fields = {"sequence": session.next_sequence(), **fields}
    document = json.dumps({"do": do, **fields}).encode()

    def decode(payload: memoryview) -> Any:
        return json.loads(bytes(payload)) if payload else {}

    # After a broken connection nobody knows whether a purge was done, and doing it again
    # would purge what was sent since.
    retry = numbered or do in (
        "pending.list", "pending.get", "schedule.list", "schedule.show",
        "queue.list", "queue.show", "group.show", "explain", "find", "trace", "lag", "topic.list",
        "topic.show", "offset.show", "offset.commit", "member.join", "member.list",
    )  # fmt: skip
    return Call(waiter, Verb.ADMIN, lambda tag: wire.admin(tag, document), decode, retry=retry)


def ping_call(waiter: Waiter) -> Call:
    return Call(waiter, Verb.PING, wire.ping, bytes)


def raise_for(verdicts: Iterable[Verdict]) -> None:
    """Raise StaleError or ForgedError unless all verdicts are done."""
    for verdict in verdicts:
        if verdict is Verdict.STALE:
            raise StaleError("the lease was lost, or the message was confirmed or rewound")
        if verdict is Verdict.FORGED:
            raise ForgedError("the receipt is not one that this server gave")


class MessageFields:
    """What a message says of itself; the clients add what can be done with it."""

    __slots__ = (
        "_attributes", "attempts", "body", "ext", "offset", "origin", "receipt", "stored_us",
    )

    def __init__(self, delivered: Delivered) -> None:
        receipt, stored_us, attempts, ext, body, flags, self.origin = delivered
        # Unpacked when they are asked for first.
        self._attributes = None if flags & wire.ATTRIBUTED else NOTHING
        self.receipt = receipt
        self.stored_us = stored_us
        self.attempts = attempts
        # Copied, or each message would keep the whole frame of its batch alive.
        self.ext = bytes(ext)
        self.body = bytes(body)
        self.offset = int.from_bytes(receipt[:8], "little")

    @property
    def attributes(self) -> Attributes:
        """What the message carries beside its body."""
        if self._attributes is None:
            self._attributes = unpack(self.ext)
        return self._attributes

    @property
    def tag(self) -> str:
        """What filters sort it by; empty for none."""
        return self.attributes.tag

    @property
    def key(self) -> str:
        """What it is ordered by; empty for none."""
        return self.attributes.key

    @property
    def properties(self) -> Mapping[str, str]:
        """The sender's properties by name."""
        return self.attributes.properties

    @property
    def leased(self) -> bool:
        """Whether it was received, and can be confirmed; a peeked one cannot."""
        return self.receipt[8:] != EMPTY_RECEIPT[8:]

    def __repr__(self) -> str:
        body = self.body if len(self.body) <= 40 else self.body[:37] + b"..."
        return f"<Message {self.offset} {body!r} attempts={self.attempts}>"


def chunks(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Lists of up to size values, until there are none."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk
