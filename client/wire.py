"""The native codec, sans-IO, used by both ends. docs/wire.md has every byte of it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import NamedTuple

from penstock.moved import Origin, origin_block

VERSION = 1
MAGIC = b"PNST"
FRAME_BYTES = 8 << 20
HEAD_SIZE = 16
REPLY = 0x80
RECEIPT_SIZE = 24
MESSAGE_SIZE = 48
EXT_BYTES = 0xFFFF
LATER_SIZE = 16
ATTRIBUTED = 1      # a flag of SEND, SEND_BATCH and of a message: ext is a list of attributes
MOVED = 2           # a flag of a message: behind its body stands where it came from
BY_POLICY = 0xFFFFFFFF
REASON_BYTES = 1024
UNKNOWN_OFFSET = (1 << 64) - 1
EMPTY_RECEIPT = bytes(RECEIPT_SIZE)


class Verb(IntEnum):
    HELLO = 1
    OPEN = 2
    SEND = 3
    SEND_BATCH = 4
    RECEIVE = 5
    CONFIRM = 6
    RELEASE = 7
    EXTEND = 8
    SEEK = 9
    READ = 10
    GROUP = 11
    ADMIN = 12
    PING = 13
    COMMIT = 14
    ROLLBACK = 15
    CHECK = 16
    PRODUCER = 17
    SEND_ALL = 18


class Status(IntEnum):
    DONE = 0
    MALFORMED = 1
    UNKNOWN_VERB = 2
    NOT_FOUND = 3
    EXISTS = 4
    TOO_LARGE = 5
    STORE_FULL = 6
    POISONED = 7
    BUSY = 8
    INVALID = 9
    SHUTTING_DOWN = 10
    INTERNAL = 11
    CORRUPT = 12
    THROTTLED = 13


class Verdict(IntEnum):
    DONE = 0
    STALE = 1
    FORGED = 2


class Kind(IntEnum):
    """Where a SEEK or a READ starts."""

    OFFSET = 0
    TIME = 1
    EARLIEST = 2
    LATEST = 3


class Durability(IntEnum):
    KERNEL = 0
    DISK = 1


HEAD = struct.Struct("<IBBHII")
HELLO = struct.Struct("<4sHHQ")
HELLO_REPLY = struct.Struct("<HHI16s")
OPEN = struct.Struct("<I")
SEND = struct.Struct("<IBBHQ")
SEND_REPLY = struct.Struct("<QBBH")
BATCH = struct.Struct("<IBBHQII")
BATCH_REPLY = struct.Struct("<QBBHI")
RECEIVE = struct.Struct("<IIIIII")
COUNT = struct.Struct("<I")
COUNT_AND_TIME = struct.Struct("<II")
SEEK = struct.Struct("<IIIIQ")
SEEK_REPLY = struct.Struct("<QQ")
READ = struct.Struct("<IIQIIII")
GROUP = struct.Struct("<II")
MESSAGES = struct.Struct("<II")
MESSAGE = struct.Struct("<24sQIIII")

# Head and fixed payload in one call: the hot verbs are worth a struct of their own.
FRAMED_SEND = struct.Struct("<IBBHIIIBBHQ")
FRAMED_SEND_REPLY = struct.Struct("<IBBHIIQBBH")
SEND_REPLY_SIZE = FRAMED_SEND_REPLY.size
SEND_REPLY_VERB = int(Verb.SEND) | REPLY
SEND_SIZE = 12 + SEND.size
ZERO_HEAD = 12


class WireError(ValueError):
    """Bytes that are not what docs/wire.md says; status is what the other end is told."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(text)
        self.status = status


class Frame(NamedTuple):
    """One frame without its meaning. In a reply, verb still has bit 7 set."""

    verb: int
    status: int
    tag: int
    payload: memoryview


class Receipt(NamedTuple):
    """What the server promises about a send: offset of the first message and the level reached."""

    offset: int
    durability: str
    duplicate: bool
    messages: int = 1
    queue: str = ""
    # The id of a message that waits, of a batch the first one's; its offset is known when it came.
    pending: int | None = None

    @property
    def id(self) -> str:
        """The name of the message within its store."""
        return f"{self.queue}/{self.offset}"


class Delivered(NamedTuple):
    """One message of a RECEIVE or READ reply; ext and body are views of the frame."""

    receipt: bytes
    stored_us: int
    attempts: int
    ext: memoryview
    body: memoryview
    flags: int = 0
    origin: Origin | None = None

    @property
    def offset(self) -> int:
        """The number of the message in its queue."""
        return int.from_bytes(self.receipt[:8], "little")


class Decoder:
    """Turns bytes, cut anywhere, into frames.

    Invariants:
      1. What is held is less than one frame, and was received: nothing is allocated for
         a length that was only announced.
      2. After a bad head, failed says why and nothing is taken any more.
    """

    def __init__(self, frame_bytes: int = FRAME_BYTES) -> None:
        self.frame_bytes = frame_bytes
        self.failed: WireError | None = None
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = HEAD_SIZE

    def whole(self, data: bytes) -> bytes:
        """What is held and data as one piece; empty while a frame is known to be incomplete.

        The caller walks it and gives the rest back with keep.
        """
        if not self._parts:
            return data
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return b""
        data = b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        return data

    def keep(self, data: bytes, start: int) -> None:
        """Hold the bytes from start on: the beginning of a frame."""
        rest = len(data) - start
        if rest:
            self._parts.append(data[start:])
            self._held = rest
            self._needed = HEAD_SIZE
            if rest >= 4:
                self._needed = 4 + int.from_bytes(data[start : start + 4], "little")

    def refuse(self, size: int) -> bool:
        """Whether a frame that announces size is refused; failed then says why."""
        if size < ZERO_HEAD:
            self.failed = WireError(Status.MALFORMED, f"a frame of {size} bytes has no head")
        elif size > self.frame_bytes:
            text = f"a frame of {size} bytes is over the limit of {self.frame_bytes}"
            self.failed = WireError(Status.TOO_LARGE, text)
        return self.failed is not None

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that data completes, in order."""
        frames: list[Frame] = []
        if self.failed:
            return frames
        data = self.whole(data)
        view = memoryview(data)
        position = 0
        end = len(data)
        while end - position >= 4:
            size = int.from_bytes(data[position : position + 4], "little")
            if self.refuse(size):
                return frames
            if size > end - position - 4:
                break
            _, verb, flags, status, tag, zero = HEAD.unpack_from(data, position)
            if flags > (verb == Verb.CONFIRM) or zero:
                self.failed = WireError(Status.MALFORMED, "a reserved field is not zero")
                return frames
            frames.append(Frame(verb, status, tag, view[position + 16 : position + 4 + size]))
            position += 4 + size
        self.keep(data, position)
        return frames


def head(verb: int, tag: int, size: int, status: int = 0) -> bytes:
    """The head of a frame whose payload has size bytes."""
    return HEAD.pack(size + ZERO_HEAD, verb, 0, status, tag, 0)


def frame(verb: int, tag: int, payload: bytes, status: int = 0) -> bytes:
    """A whole frame."""
    return HEAD.pack(len(payload) + ZERO_HEAD, verb, 0, status, tag, 0) + payload


def hello(tag: int, producer: int) -> bytes:
    return frame(Verb.HELLO, tag, HELLO.pack(MAGIC, VERSION, 0, producer))


def open_queue(tag: int, name: str, create: bool, idle_ms: int = 0) -> bytes:
    """idle_ms: the queue is a temporary one, which goes when nobody asked for it that long."""
    if idle_ms:
        return frame(Verb.OPEN, tag, COUNT_AND_TIME.pack(3, idle_ms) + name.encode())
    return frame(Verb.OPEN, tag, OPEN.pack(create) + name.encode())


def group(tag: int, queue: int, name: str) -> bytes:
    return frame(Verb.GROUP, tag, GROUP.pack(queue, 0) + name.encode())


def send_head(
    tag: int, queue: int, durability: int, sequence: int, ext_size: int, size: int, flags: int = 0
) -> bytes:
    """What precedes ext and body; size counts both. Of a send that waits, ext begins with when."""
    if flags > ATTRIBUTED:
        ext_size -= LATER_SIZE
    return FRAMED_SEND.pack(
        SEND_SIZE + size, 3, 0, 0, tag, 0, queue, durability, flags, ext_size, sequence
    )


def send(
    tag: int, queue: int, durability: int, sequence: int, body: bytes, ext: bytes = b"",
    flags: int = 0,
) -> bytes:
    start = send_head(tag, queue, durability, sequence, len(ext), len(ext) + len(body), flags)
    return b"".join((start, ext, body))


def send_batch(
    tag: int, queue: int, durability: int, sequence: int, bodies: Sequence[bytes],
    attributes: Sequence[bytes] | None = None, flags: int = 0, later: bytes = b"",
) -> bytes:
    """attributes: those of each body, packed; perhaps empty. flags and later: when they come."""
    count = len(bodies)
    parts = list(bodies)
    sizes = list(map(len, bodies))
    if attributes is not None:
        pairs = list(zip(attributes, bodies, strict=True))
        parts = [part for pair in pairs for part in pair]
        sizes = [size for ext, body in pairs for size in (len(body), len(ext))]
    flags |= attributes is not None
    fixed = BATCH.pack(queue, durability, flags, 0, sequence, count, 0) + later
    start = head(Verb.SEND_BATCH, tag, len(fixed) + 4 * len(sizes) + sum(sizes))
    return b"".join((start, fixed, struct.pack(f"<{len(sizes)}I", *sizes), *parts))


def receive(
    tag: int,
    queue: int,
    group: int,
    max_messages: int,
    max_bytes: int,
    lease_ms: int,
    wait_ms: int,
) -> bytes:
    fixed = RECEIVE.pack(queue, group, max_messages, max_bytes, lease_ms, wait_ms)
    return frame(Verb.RECEIVE, tag, fixed)


def confirm(tag: int, receipts: Sequence[bytes], again: bool = False) -> bytes:
    """again: it was asked before, and the answer was lost."""
    payload = COUNT.pack(len(receipts)) + b"".join(receipts)
    return HEAD.pack(12 + len(payload), Verb.CONFIRM, again, 0, tag, 0) + payload


def release(tag: int, delay_ms: int, receipts: Sequence[bytes], reason: bytes = b"") -> bytes:
    """delay_ms BY_POLICY: as the group's retry policy says. reason: of at most REASON_BYTES."""
    fixed = COUNT_AND_TIME.pack(len(receipts), delay_ms)
    return frame(Verb.RELEASE, tag, fixed + b"".join(receipts) + reason)


def extend(tag: int, lease_ms: int, receipts: Sequence[bytes]) -> bytes:
    fixed = COUNT_AND_TIME.pack(len(receipts), lease_ms)
    return frame(Verb.EXTEND, tag, fixed + b"".join(receipts))


def seek(tag: int, queue: int, group: int, kind: int, value: int) -> bytes:
    return frame(Verb.SEEK, tag, SEEK.pack(queue, group, kind, 0, value))


def read(
    tag: int, queue: int, kind: int, value: int, max_messages: int, max_bytes: int, wait_ms: int
) -> bytes:
    fixed = READ.pack(queue, kind, value, max_messages, max_bytes, wait_ms, 0)
    return frame(Verb.READ, tag, fixed)


def admin(tag: int, document: bytes) -> bytes:
    return frame(Verb.ADMIN, tag, document)


def ping(tag: int, payload: bytes = b"") -> bytes:
    return frame(Verb.PING, tag, payload)


def error_reply(verb: int, tag: int, status: int, text: str, retry_after_ms: int = 0) -> bytes:
    return frame(verb | REPLY, tag, COUNT.pack(retry_after_ms) + text.encode(), status)


def hello_reply(tag: int, frame_bytes: int, store: bytes) -> bytes:
    return frame(Verb.HELLO | REPLY, tag, HELLO_REPLY.pack(VERSION, 0, frame_bytes, store))


def number_reply(verb: int, tag: int, number: int) -> bytes:
    """The reply to OPEN and to GROUP."""
    return frame(verb | REPLY, tag, COUNT.pack(number))


def send_reply(tag: int, offset: int, durability: int, duplicate: bool) -> bytes:
    return FRAMED_SEND_REPLY.pack(
        24, SEND_REPLY_VERB, 0, 0, tag, 0, offset, durability, duplicate, 0
    )


def batch_reply(tag: int, offset: int, durability: int, duplicate: bool, count: int) -> bytes:
    fixed = BATCH_REPLY.pack(offset, durability, duplicate, 0, count)
    return frame(Verb.SEND_BATCH | REPLY, tag, fixed)


def verdicts_reply(verb: int, tag: int, verdicts: Sequence[int]) -> bytes:
    """The reply to CONFIRM, RELEASE and EXTEND."""
    return frame(verb | REPLY, tag, COUNT.pack(len(verdicts)) + bytes(verdicts))


def seek_reply(tag: int, offset: int, again: int) -> bytes:
    return frame(Verb.SEEK | REPLY, tag, SEEK_REPLY.pack(offset, again))


def messages_reply(verb: int, tag: int, messages: Iterable[Delivered]) -> bytes:
    """The reply to RECEIVE and to READ."""
    parts: list[bytes | memoryview] = []
    count = 0
    for receipt, stored_us, attempts, ext, body, flags, origin in messages:
        fixed = MESSAGE.pack(receipt, stored_us, attempts, len(ext), len(body), flags)
        parts += (fixed, ext, body, origin_block(origin) if origin else b"")
        count += 1
    start = head(verb | REPLY, tag, MESSAGES.size + sum(map(len, parts)))
    return b"".join((start, MESSAGES.pack(count, 0), *parts))
