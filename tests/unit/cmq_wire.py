"""A CMQ client that knows only bytes, and the tables of the protocol written down once more."""

import base64
import hashlib
import hmac
import itertools
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from penstock.engine._core import Store
from penstock.server._wire import MessageNames
from penstock.server.broker.access import Keys, Pair
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Given, Rules
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.limits import Limits

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server

AUTH, SEND, BATCH_SEND, PULL, BATCH_PULL, DELETE, BATCH_DELETE = range(1020, 1027)
PUBLISH, BATCH_PUBLISH = 1027, 1028
HEARTBEAT, CONFIRM, QUERY = 1040, 1041, 1042
MEMBERS = {
    AUTH: 199, SEND: 200, BATCH_SEND: 201, PULL: 202, BATCH_PULL: 204, DELETE: 206,
    BATCH_DELETE: 207, PUBLISH: 208, BATCH_PUBLISH: 209, CONFIRM: 221, QUERY: 223,
}
COMMIT, ROLLBACK = 1, 2
Fields = list[tuple[int, int | bytes]]


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def packed(fields: Fields) -> bytes:
    """A message of protobuf, its fields in the order given."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3) + varint(value)
    return out


def unpacked(data: bytes) -> Fields:
    """The fields of a message; it has whole numbers and bytes only."""
    found: Fields = []
    at = 0

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        value = number()
        if key & 7 == 2:
            found.append((key >> 3, data[at:at + value]))
            assert len(found[-1][1]) == value  # type: ignore[arg-type]
            at += value
        else:
            assert key & 7 == 0
            found.append((key >> 3, value))
    return found


def framed(message: bytes) -> bytes:
    return b"\0\0" + struct.pack("<I", len(message) + 6) + message


def request(seqno: int, command: int, member: Fields | None, *more: tuple[int, int]) -> bytes:
    """A whole frame; more: further fields of the CMQProto, as the client's request number (10)."""
    fields: Fields = [(1, seqno), (2, command), *more]
    if member is not None:
        fields.append((MEMBERS.get(command, 200), packed(member)))
    return framed(packed(fields))


def signed(id: str, secret: str, client: str, method: str = "HmacSHA256") -> Fields:
    """The fields of AUTH."""
    digest = hashlib.sha256 if method == "HmacSHA256" else hashlib.sha1
    mac = hmac.new(secret.encode(), (client + id).encode(), digest).digest()
    texts = (id, base64.b64encode(mac).decode(), client, method)
    return [(number, text.encode()) for number, text in enumerate(texts, 1)]


class Reply:
    """One frame of the server."""

    def __init__(self, message: bytes) -> None:
        self.fields = unpacked(message)
        single: dict[int, Any] = dict(self.fields)
        self.seqno, self.command, self.result = single[1], single[2], single.get(3)
        self.text = single.get(4, b"").decode()
        self.request_id = single.get(10)

    @property
    def ids(self) -> list[int]:
        return [value for number, value in self.fields if number == 29]  # type: ignore[misc]

    @property
    def messages(self) -> list[dict[int, Any]]:
        """What a pull brought: the fields of each message by number."""
        single = dict(self.fields)
        if 26 in single:
            return [dict(unpacked(single[26]))]  # type: ignore[arg-type]
        return [dict(unpacked(value)) for _, value in unpacked(single.get(27, b""))]  # type: ignore

    @property
    def failed(self) -> list[dict[int, Any]]:
        """The handles that could not be deleted."""
        return [dict(unpacked(value)) for number, value in self.fields  # type: ignore[arg-type]
                if number == 28]


class Cmq:
    """One connection that sends requests and reads replies."""

    def __init__(self, port: int, *, auth: Fields | None = None, admit: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.numbers = itertools.count(1)
        self.early: dict[int, Reply] = {}
        self.asked: list[tuple[bytes, int]] = []
        if admit:
            assert self.call(AUTH, auth or signed("AKIDnone", "none", "127.0.0.1@t")).result == 0

    def send(self, command: int, member: Fields | None) -> int:
        seqno = next(self.numbers)
        self.socket.sendall(request(seqno, command, member))
        return seqno

    def read(self) -> Reply:
        head = self.exactly(6)
        assert head[:2] == b"\0\0"
        return Reply(self.exactly(struct.unpack("<I", head[2:])[0] - 6))

    def reply(self, seqno: int) -> Reply:
        """The reply to that request; those that come before it are kept."""
        while seqno not in self.early:
            found = self.read()
            if found.command == QUERY:
                asked = dict(unpacked(dict(found.fields)[223]))  # type: ignore[arg-type]
                self.asked.append((asked[1], asked[2]))  # type: ignore[arg-type]
            else:
                self.early[found.seqno] = found
        return self.early.pop(seqno)

    def call(self, command: int, member: Fields | None = None) -> Reply:
        return self.reply(self.send(command, member))

    def put(self, queue: str, body: bytes, **more: int) -> Reply:
        numbers = {"delay_s": 3, "half": 4, "first_check": 5}
        extra: Fields = [(numbers[name], value) for name, value in more.items()]
        return self.call(SEND, [(1, queue.encode()), (2, body), *extra])

    def take(self, queue: str, wait_s: int = 0, lease_s: int | None = None) -> list[dict[int, Any]]:
        """The message of a pull, if there was one."""
        extra: Fields = [] if lease_s is None else [(3, lease_s)]
        found = self.call(PULL, [(1, queue.encode()), (2, wait_s), *extra])
        assert found.result in (0, 10200), found.text
        return found.messages

    def take_many(self, queue: str, count: int = 16, wait_s: int = 0) -> list[dict[int, Any]]:
        found = self.call(BATCH_PULL, [(1, queue.encode()), (2, count), (3, wait_s)])
        assert found.result in (0, 10200), found.text
        return found.messages

    def delete(self, queue: str, *handles: int) -> Reply:
        command = DELETE if len(handles) == 1 else BATCH_DELETE
        return self.call(command, [(1, queue.encode()), *((2, handle) for handle in handles)])

    def confirm(self, queue: str, state: int, *ids: int) -> Reply:
        items: Fields = [(2, packed([(1, id), (2, state)])) for id in ids]
        return self.call(CONFIRM, [(1, queue.encode()), *items])

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError(f"closed after {len(data)} of {size} bytes")
            data += more
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()


class Control:
    """What the control plane does, done in the store itself."""

    def __init__(self, store: Store, rules: Rules) -> None:
        self.broker = Broker(store, Limits())
        self.queues = CmqQueues(self.broker, rules)
        self.topics = CmqTopics(self.broker, rules, MessageNames(bytearray(16)))
        self.keys = Keys(self.broker)

    def queue(self, name: str, **given: Any) -> None:
        self.queues.create(name, Given(**given), 1)

    def key(self) -> Pair:
        return self.keys.create("test", 1)


@contextmanager
def control(data: Path, rules: Rules = Rules()) -> Iterator[Control]:
    """A second process's view of the store that a server has open."""
    store = Store.open(data)
    try:
        yield Control(store, rules)
    finally:
        store.close()


class Door:
    """A server with a CMQ door, and what its operator does."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.server = Server(data, cmq_tcp="127.0.0.1:0")

    def connect(self) -> Cmq:
        return Cmq(self.server.cmq)

    def queue(self, name: str, **given: object) -> str:
        with control(self.data) as at:
            at.queue(name, **given)
        return name
