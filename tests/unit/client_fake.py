"""A server in memory that speaks the native codec, for the tests of the clients."""

from __future__ import annotations

import asyncio
import json
import struct
import threading
from collections import deque

from penstock import parse, wire
from penstock.wire import Delivered, Frame, Kind, Status, Verb, Verdict


class Stored:
    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes, int]] = []
        self.waiting: deque[tuple[Conversation, int, int]] = deque()
        self.position: dict[int, int] = {}
        self.again: deque[int] = deque()
        self.leased: set[int] = set()
        self.attempts: dict[int, int] = {}


class FakeServer:
    """Keeps messages in lists. Tests set refuse, mute or hang_up_after to make it misbehave."""

    def __init__(self) -> None:
        self.queues: dict[str, Stored] = {}
        self.numbers: list[str] = []
        self.producers: dict[int, dict[int, int]] = {}
        self.frames: list[int] = []
        self.conversations: set[Conversation] = set()
        self.refuse: dict[int, Status] = {}
        self.mute: set[int] = set()
        self.absent: set[str] = set()
        self.store_then_hang_up = 0
        self.shift = 0
        self.confirmed: list[int] = []
        self.released: list[int] = []
        self.extended: list[int] = []
        self.port = 0
        self.server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(
            lambda: Conversation(self), "127.0.0.1", port, reuse_address=True
        )
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self.server
        self.server.close()
        self.abort_all()
        await self.server.wait_closed()

    def hang_up(self) -> None:
        """Break all connections; also to be called from another thread."""
        assert self.server
        self.server.get_loop().call_soon_threadsafe(self.abort_all)

    def abort_all(self) -> None:
        for conversation in list(self.conversations):
            conversation.transport.abort()

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"


class Conversation(asyncio.Protocol):
    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.decoder = wire.Decoder()
        self.producer = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.conversations.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server.conversations.discard(self)

    def data_received(self, data: bytes) -> None:
        replies = [self.answer(frame) for frame in self.decoder.feed(data)]
        if not self.transport.is_closing():
            self.transport.write(b"".join(replies))

    def answer(self, frame: Frame) -> bytes:
        server, (verb, _, tag, payload) = self.server, frame
        server.frames.append(verb)
        if verb in server.refuse:
            return wire.error_reply(verb, tag, server.refuse[verb], "as told", 7)
        if verb in server.mute:
            return b""
        reply: bytes = getattr(self, Verb(verb).name.lower())(tag, payload)
        return reply

    def stored(self, number: int) -> Stored:
        return self.server.queues[self.server.numbers[number - 1000 - self.server.shift]]

    def hello(self, tag: int, payload: memoryview) -> bytes:
        magic, version, _, self.producer = wire.HELLO.unpack(payload)
        assert magic == b"PNST" and version == 1
        return wire.hello_reply(tag, wire.FRAME_BYTES, b"s" * 16)

    def open(self, tag: int, payload: memoryview) -> bytes:
        name = str(payload[4:], "utf-8")
        if name not in self.server.queues:
            if not payload[0]:
                return wire.error_reply(Verb.OPEN, tag, Status.NOT_FOUND, f"no queue {name}")
            self.server.queues[name] = Stored()
            self.server.numbers.append(name)
        number = self.server.numbers.index(name) + 1000 + self.server.shift
        return wire.number_reply(Verb.OPEN, tag, number)

    def group(self, tag: int, payload: memoryview) -> bytes:
        return wire.number_reply(Verb.GROUP, tag, 1 + payload[8])

    def append(self, stored: Stored, sequence: int, parts: list[tuple[bytes, bytes, int]]):
        seen = self.server.producers.setdefault(self.producer, {})
        if sequence and sequence <= max(seen, default=0):
            return seen.get(sequence, wire.UNKNOWN_OFFSET), True
        offset = seen[sequence] = len(stored.log)
        stored.log += parts
        self.server.store_then_hang_up -= 1
        if self.server.store_then_hang_up == 0:
            self.transport.abort()
        while stored.waiting and not stored.waiting[0][0].transport.is_closing():
            conversation, waiting, count = stored.waiting.popleft()
            conversation.transport.write(conversation.take(waiting, stored, 0, count))
        return offset, False

    def send(self, tag: int, payload: memoryview) -> bytes:
        queue, level, sequence, ext, body, flags = parse.parse_send(payload)
        parts = [(bytes(ext), bytes(body), flags)]
        offset, twice = self.append(self.stored(queue), sequence, parts)
        return wire.send_reply(tag, offset, level, twice)

    def send_batch(self, tag: int, payload: memoryview) -> bytes:
        queue, level, sequence, bodies, exts = parse.parse_batch(payload)
        parts = [
            (bytes(ext), bytes(body), int(len(ext) > 0))
            for ext, body in zip(exts or [b""] * len(bodies), bodies)
        ]
        offset, twice = self.append(self.stored(queue), sequence, parts)
        return wire.batch_reply(tag, offset, level, twice, len(bodies))

    def message(self, stored: Stored, offset: int, salt: int) -> Delivered:
        ext, body, flags = stored.log[offset]
        receipt = struct.pack("<QQQ", offset, salt, salt)
        attempts = stored.attempts.get(offset, 0)
        views = memoryview(ext), memoryview(body)
        return Delivered(receipt, 1_000_000 + offset, attempts, *views, flags)

    def take(self, tag: int, stored: Stored, group: int, count: int) -> bytes:
        found: list[Delivered] = []
        while len(found) < count:
            if stored.again:
                offset = stored.again.popleft()
            elif stored.position.get(group, 0) < len(stored.log):
                offset = stored.position.get(group, 0)
                stored.position[group] = offset + 1
            else:
                break
            stored.leased.add(offset)
            stored.attempts[offset] = stored.attempts.get(offset, 0) + 1
            found.append(self.message(stored, offset, 1))
        return wire.messages_reply(Verb.RECEIVE, tag, found)

    def receive(self, tag: int, payload: memoryview) -> bytes:
        queue, group, count, _, _, wait_ms = wire.RECEIVE.unpack(payload)
        stored = self.stored(queue)
        if wait_ms and not stored.again and stored.position.get(group, 0) >= len(stored.log):
            waiter = (self, tag, count)
            stored.waiting.append(waiter)
            loop = asyncio.get_running_loop()
            loop.call_later(wait_ms / 1000, self.expire, stored, waiter)
            return b""
        return self.take(tag, stored, group, count)

    def expire(self, stored: Stored, waiter: tuple[Conversation, int, int]) -> None:
        if waiter in stored.waiting:
            stored.waiting.remove(waiter)
            self.transport.write(wire.messages_reply(Verb.RECEIVE, waiter[1], []))

    def judge(self, verb: Verb, tag: int, payload: memoryview, into: list[int]) -> bytes:
        text = wire.REASON_BYTES if verb is Verb.RELEASE else 0
        _, receipts = parse.parse_receipts(payload, verb is not Verb.CONFIRM, text)
        verdicts = []
        for receipt in receipts:
            offset, salt, _ = struct.unpack("<QQQ", receipt)
            holder = [s for s in self.server.queues.values() if offset in s.leased]
            into.append(offset)
            if not salt:
                verdicts.append(Verdict.FORGED)
            elif not holder:
                verdicts.append(Verdict.STALE)
            else:
                verdicts.append(Verdict.DONE)
                if verb is not Verb.EXTEND:
                    holder[0].leased.discard(offset)
                if verb is Verb.RELEASE:
                    holder[0].again.append(offset)
        return wire.verdicts_reply(verb, tag, verdicts)

    def confirm(self, tag: int, payload: memoryview) -> bytes:
        return self.judge(Verb.CONFIRM, tag, payload, self.server.confirmed)

    def release(self, tag: int, payload: memoryview) -> bytes:
        return self.judge(Verb.RELEASE, tag, payload, self.server.released)

    def extend(self, tag: int, payload: memoryview) -> bytes:
        return self.judge(Verb.EXTEND, tag, payload, self.server.extended)

    def place(self, stored: Stored, kind: int, value: int) -> int:
        last = len(stored.log)
        return {Kind.OFFSET: value, Kind.TIME: max(0, value - 1_000_000), 2: 0, 3: last}[kind]

    def seek(self, tag: int, payload: memoryview) -> bytes:
        queue, group, kind, _, value = wire.SEEK.unpack(payload)
        stored = self.stored(queue)
        offset = self.place(stored, kind, value)
        stored.position[group] = offset
        return wire.seek_reply(tag, offset, len(stored.log) - offset)

    def read(self, tag: int, payload: memoryview) -> bytes:
        queue, kind, value, count, _, _, _ = wire.READ.unpack(payload)
        stored = self.stored(queue)
        start = self.place(stored, kind, value)
        offsets = range(start, min(start + count, len(stored.log)))
        found = [self.message(stored, offset, 0) for offset in offsets]
        return wire.messages_reply(Verb.READ, tag, found)

    def admin(self, tag: int, payload: memoryview) -> bytes:
        document = json.loads(bytes(payload))
        if document.get("name") in self.server.absent:
            return wire.error_reply(Verb.ADMIN, tag, Status.NOT_FOUND, "it is not there")
        return wire.frame(Verb.ADMIN | wire.REPLY, tag, json.dumps({"asked": document}).encode())

    def ping(self, tag: int, payload: memoryview) -> bytes:
        return wire.frame(Verb.PING | wire.REPLY, tag, bytes(payload))


class Background:
    """A FakeServer in a thread of its own, for the blocking client."""

    def __enter__(self) -> FakeServer:
        self.server = FakeServer()
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(), self.loop).result(5)
        return self.server

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()
