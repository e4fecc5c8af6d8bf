"""Requests in flight, idempotent retry and reconnect, sans-IO: no sockets, no clock.

The owner of a connection calls connected, feed and lost, and writes what outgoing holds.
"""

from __future__ import annotations

import secrets
from collections import deque
from enum import Enum, auto
from typing import Any

from penstock import wire
from penstock.errors import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    PenstockError,
    ProtocolError,
    QueueNotFoundError,
    TimeoutError,
    TooLargeError,
    error_for,
)
from penstock.later import LEVELS, Check, parse_check, producer
from penstock.parse import fixed_fields, parse_error, parse_messages
from penstock.request import Call, Handle, Nobody, Send, Waiter
from penstock.wire import Receipt, Status, Verb, WireError

IN_FLIGHT_LIMIT = 1 << 16


class State(Enum):
    OFFLINE = auto()
    GREETING = auto()
    RESOLVING = auto()
    ONLINE = auto()
    CLOSED = auto()


class Event(Enum):
    CONNECTED = auto()
    GREETED = auto()
    RESOLVED = auto()
    LOST = auto()
    CLOSE = auto()


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.OFFLINE: {
        Event.CONNECTED: State.GREETING,
        Event.LOST: State.OFFLINE,
        Event.CLOSE: State.CLOSED,
    },
    State.GREETING: {
        Event.GREETED: State.RESOLVING,
        Event.LOST: State.OFFLINE,
        Event.CLOSE: State.CLOSED,
    },
    State.RESOLVING: {
        Event.RESOLVED: State.ONLINE,
        Event.LOST: State.OFFLINE,
        Event.CLOSE: State.CLOSED,
    },
    State.ONLINE: {Event.LOST: State.OFFLINE, Event.CLOSE: State.CLOSED},
    State.CLOSED: {Event.LOST: State.CLOSED, Event.CLOSE: State.CLOSED},
}


class Session:
    """The requests of one client over any number of connections, one after the other.

    Invariants:
      1. pending holds what was asked and not answered, in the order of asking; sends in it
         have growing sequence numbers, and a number is never given to two messages.
      2. Nothing of pending is in outgoing unless the state is ONLINE.
      3. A handle is resolved on this connection before a request that names it is written.
    """

    def __init__(self, producer: int | None = None, limit: int = IN_FLIGHT_LIMIT) -> None:
        self.producer = producer if producer is not None else secrets.randbits(63) | 1
        self.limit = limit
        self.state = State.OFFLINE
        self.frame_bytes = wire.FRAME_BYTES
        self.store = b""
        self.outgoing: list[bytes] = []
        self.pending: dict[int, Send | Call] = {}
        self.sequence = 0
        self.groups: set[str] = set()
        self.checks: deque[Check] = deque()
        self._tag = 0
        self._handles: dict[tuple[str, str], Handle] = {}
        self._resolving: dict[int, Handle] = {}
        self._decoder = wire.Decoder(self.frame_bytes)

    def _move(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state][event]

    # What the connection's owner says.

    def connected(self) -> None:
        """A new connection stands: outgoing holds its HELLO."""
        self._move(Event.CONNECTED)
        self._decoder = wire.Decoder(self.frame_bytes)
        self._resolving.clear()
        self.outgoing[:] = [wire.hello(0, self.producer)]

    def lost(self) -> None:
        """The connection is gone: what may be asked twice stays pending, the rest fails."""
        self._move(Event.LOST)
        self.outgoing.clear()
        self._resolving.clear()
        for handle in self._handles.values():
            handle.resolved = False
        for tag, request in list(self.pending.items()):
            if request.waiter.done():
                del self.pending[tag]
            elif isinstance(request, Call) and not request.retry:
                del self.pending[tag]
                request.waiter.set_exception(
                    ConnectionLostError(f"the connection broke during {request.verb.name}")
                )

    def fail(self, error: PenstockError) -> None:
        """Everyone who waits gets error; nothing will be sent again."""
        waiters = [request.waiter for request in self.pending.values()]
        for handle in self._handles.values():
            waiters += handle.waiters
            handle.waiters = []
        self.pending.clear()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error)

    def expire(self, sequence: int, text: str) -> None:
        """Sends up to that sequence number fail with TimeoutError."""
        for tag, request in list(self.pending.items()):
            if isinstance(request, Send):
                if request.sequence > sequence:
                    break
                del self.pending[tag]
                if not request.waiter.done():
                    request.waiter.set_exception(TimeoutError(text))

    def close(self) -> None:
        """No request is taken from now on; those in flight fail with ClosedError."""
        self._move(Event.CLOSE)
        self.outgoing.clear()
        self.fail(ClosedError("the client was closed"))

    def feed(self, data: bytes) -> None:
        """Answer the waiters of the replies that data completes.

        Raises PenstockError when the connection is of no more use.
        """
        decoder = self._decoder
        data = decoder.whole(data)
        pop = self.pending.pop
        unpack = wire.FRAMED_SEND_REPLY.unpack_from
        new = tuple.__new__
        position = 0
        end = len(data)
        while True:
            # A reply to SEND, the hot one, is recognised and taken in one call.
            if end - position >= 28:
                size, verb, _, status, tag, _, offset, level, twice, waits = unpack(data, position)
                if verb == 0x83 and status == 0 and size == 24:
                    position += 28
                    request = pop(tag, None)
                    if request is not None and not request[0].done():
                        # Receipt(...) takes twice as long; a wrong field count would be a bug here.
                        name = request[1].name
                        fields = (offset, LEVELS[level & 1], twice == 1, 1, name, None)
                        if waits:
                            fields = wire.UNKNOWN_OFFSET, *fields[1:5], offset
                        request[0].set_result(new(Receipt, fields))
                    continue
            taken = self._step(data, position, end)
            if not taken:
                break
            position += taken
        decoder.keep(data, position)

    def _step(self, data: bytes, position: int, end: int) -> int:
        if end - position < 4:
            return 0
        size = int.from_bytes(data[position : position + 4], "little")
        if self._decoder.refuse(size):
            raise ProtocolError(str(self._decoder.failed))
        if size > end - position - 4:
            return 0
        _, verb, _, status, tag, _ = wire.HEAD.unpack_from(data, position)
        payload = memoryview(data)[position + wire.HEAD_SIZE : position + 4 + size]
        try:
            if verb == Verb.CHECK:
                self.checks.append(parse_check(payload))
            else:
                self._reply(verb & 0x7F, status, tag, payload)
        except WireError as broken:
            raise ProtocolError(str(broken)) from broken
        return 4 + size

    def _reply(self, verb: int, status: int, tag: int, payload: memoryview) -> None:
        error = None
        if status:
            error = error_for(status, *parse_error(payload))
        if self.state is State.GREETING:
            self._greet(error, payload)
            return
        handle = self._resolving.pop(tag, None)
        if handle is not None:
            self._resolve(handle, verb, error, payload)
            return
        request = self.pending.get(tag)
        if request is None:
            if status == Status.MALFORMED and error is not None:
                raise error
            return
        # A server that drains refuses everything that follows too: what it refused is
        # asked again, in order and under the same sequence numbers, of its successor.
        if status == Status.SHUTTING_DOWN and (isinstance(request, Send) or request.retry):
            return
        del self.pending[tag]
        self._answer(request, status, error, payload)

    def _answer(
        self,
        request: Send | Call,
        status: int,
        error: PenstockError | None,
        payload: memoryview,
    ) -> None:
        waiter = request.waiter
        handle = request.handle
        if status == Status.NOT_FOUND and handle and handle not in self._resolving.values():
            # The queue was deleted, perhaps created anew under another number.
            self._ask(handle)
        if waiter.done():
            if isinstance(request, Call) and request.verb is Verb.RECEIVE and not error:
                self._give_back(payload)
        elif error is not None:
            waiter.set_exception(error)
        elif isinstance(request, Call):
            try:
                waiter.set_result(request.decode(payload))
            except ValueError as broken:
                waiter.set_exception(ProtocolError(str(broken)))

    def _give_back(self, payload: memoryview) -> None:
        # Nobody waits for these messages any more. Without this they would be withheld from
        # everyone until their lease ends.
        receipts = [message.receipt for message in parse_messages(payload)]
        if receipts:
            call = Call(Nobody(), Verb.RELEASE, lambda tag: wire.release(tag, 0, receipts), bytes)
            self.call(call)

    def _greet(self, error: PenstockError | None, payload: memoryview) -> None:
        if error is not None:
            raise error
        version, _, frame_bytes, store = fixed_fields(wire.HELLO_REPLY, payload)
        if version != wire.VERSION:
            raise ProtocolError(f"the server speaks version {version}, not {wire.VERSION}")
        self.frame_bytes = self._decoder.frame_bytes = frame_bytes
        self.store = bytes(store)
        self._move(Event.GREETED)
        for handle in self._handles.values():
            self._ask(handle)
        self._settle()

    def _settle(self) -> None:
        if self.state is State.RESOLVING and not self._resolving:
            self._move(Event.RESOLVED)
            self.outgoing += [producer(self._next_tag(), group) for group in self.groups]
            for tag, request in self.pending.items():
                self._write(tag, request)

    # Names.

    def open(
        self, waiter: Waiter, name: str, group: str = "", create: bool = True, idle_ms: int = 0
    ) -> None:
        """Answer waiter with the handle of a queue, or of one of its groups."""
        self._check()
        handle = self._handles.setdefault((name, group), Handle(name, group, create))
        handle.create = create
        handle.idle_ms = idle_ms
        if handle.resolved:
            waiter.set_result(handle)
            return
        handle.waiters.append(waiter)
        if len(handle.waiters) == 1 and self.state in (State.RESOLVING, State.ONLINE):
            self._ask(handle)

    def drop(self, handle: Handle) -> None:
        """Forget a queue that nobody will ask for, unless a request for it is under way."""
        if not any(request.handle is handle for request in self.pending.values()):
            if not handle.waiters:
                self._handles.pop((handle.name, handle.group_name), None)

    def _ask(self, handle: Handle) -> None:
        tag = self._next_tag()
        self._resolving[tag] = handle
        self.outgoing.append(
            wire.open_queue(tag, handle.name, handle.create, handle.idle_ms)
        )

    def _resolve(
        self, handle: Handle, verb: int, error: PenstockError | None, payload: memoryview
    ) -> None:
        if error is None:
            (number,) = fixed_fields(wire.COUNT, payload)
            if verb == Verb.OPEN:
                handle.queue = number
                if handle.group_name:
                    tag = self._next_tag()
                    self._resolving[tag] = handle
                    self.outgoing.append(wire.group(tag, number, handle.group_name))
                    return
            else:
                handle.group = number
            handle.resolved = True
            result: Any = handle
        else:
            self._forget(handle, error)
        waiters, handle.waiters = handle.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(error) if error else waiter.set_result(result)
        self._settle()

    def _forget(self, handle: Handle, error: PenstockError) -> None:
        # A queue that is gone would hold up everyone else's requests on every reconnect.
        # Its old number may be another queue's on the next connection, hence resolved.
        handle.resolved = False
        self._handles.pop((handle.name, handle.group_name), None)
        for tag, request in list(self.pending.items()):
            if request.handle is handle:
                del self.pending[tag]
                if not request.waiter.done():
                    request.waiter.set_exception(error)

    # Requests.

    def send(
        self, waiter: Waiter, handle: Handle, durability: int, ext: bytes, body: bytes,
        flags: int = 0,
    ) -> None:
        """Ask for one message to be stored; waiter gets a Receipt."""
        size = len(ext) + len(body)
        if size > self.frame_bytes - 64 or len(ext) > wire.EXT_BYTES:
            raise TooLargeError(f"a message of {size} bytes is over the limit")
        pending = self.pending
        if len(pending) >= self.limit or self.state is State.CLOSED or not handle.resolved:
            self._check(handle)
        sequence = self.sequence = self.sequence + 1
        tag = self._next_tag()
        pending[tag] = Send(waiter, handle, durability, sequence, ext, body, flags)
        if self.state is State.ONLINE:
            start = wire.send_head(
                tag, handle.queue, durability, sequence, len(ext), size, flags
            )
            self.outgoing += (start, ext, body) if ext else (start, body)

    def next_sequence(self) -> int:
        """A sequence number for a batch that is asked for next."""
        self.sequence += 1
        return self.sequence

    def call(self, call: Call) -> None:
        """Ask for anything else; the waiter gets what its decode makes of the reply."""
        self._check(call.handle)
        tag = self._next_tag()
        self.pending[tag] = call
        if self.state is State.ONLINE:
            self._write(tag, call)

    def _write(self, tag: int, request: Send | Call) -> None:
        if isinstance(request, Call):
            self.outgoing.append(request.encode(tag))
        else:
            _, handle, durability, sequence, ext, body, flags = request
            self.outgoing.append(
                wire.send(tag, handle.queue, durability, sequence, body, ext, flags)
            )

    def _check(self, handle: Handle | None = None) -> None:
        if self.state is State.CLOSED:
            raise ClosedError("the client was closed")
        if len(self.pending) >= self.limit:
            raise BusyError(f"{self.limit} requests are in flight already", 1)
        if handle and not handle.resolved and self.state is State.ONLINE:
            raise QueueNotFoundError(f"there is no queue {handle.name!r} any more")

    def _next_tag(self) -> int:
        # 0 is HELLO's, and a tag that waits for its reply must not be given again.
        tag = self._tag + 1 & 0xFFFFFFFF or 1
        while tag in self.pending or tag in self._resolving:
            tag = tag + 1 & 0xFFFFFFFF or 1
        self._tag = tag
        return tag
