"""Request and reply for the blocking client: what was asked, and the queue of the replies."""

from __future__ import annotations

import contextlib
import secrets
import threading
import time as clock
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock import model, wire
from penstock.errors import InvalidError, PenstockError, TimeoutError
from penstock.parse import fixed_fields
from penstock.request import Call, Handle, Waiter
from penstock.wire import Receipt, Verb

if TYPE_CHECKING:
    from penstock.attributes import Carried
    from penstock.model import Bytes, Level
    from penstock.squeue import Message, Queue
    from penstock.sync import Client

# The server removes a reply queue for which its client did not ask for this long.
IDLE_SECONDS = 120.0
MARGIN_SECONDS = 10.0
ADDRESSES = 256
TAKEN = 64
CLOSE_SECONDS = 1.0


class ReplyQueue:
    """The name of a client's reply queue, and until when the server keeps it."""

    def __init__(self) -> None:
        self.name = f"reply.{secrets.token_hex(8)}"
        self.idle = IDLE_SECONDS
        self.kept_until = 0.0

    def touch(self, timeout: float, now: float) -> bool:
        """Whether the server must be asked to keep it, for a request of that timeout."""
        if now + timeout + MARGIN_SECONDS <= self.kept_until:
            return False
        self.idle = max(IDLE_SECONDS, 2 * (timeout + MARGIN_SECONDS))
        self.kept_until = now + self.idle
        return True


def touch_call(waiter: Waiter, handle: Handle, idle_ms: int) -> Call:
    """OPEN of a temporary queue once more; it may have been made anew meanwhile."""
    handle.idle_ms = idle_ms

    def decode(payload: memoryview) -> int:
        (handle.queue,) = fixed_fields(wire.COUNT, payload)
        return handle.queue

    def encode(tag: int) -> bytes:
        return wire.open_queue(tag, handle.name, True, idle_ms)

    return Call(waiter, Verb.OPEN, encode, decode)


def late(receipt: Receipt, seconds: float, shown: Any) -> TimeoutError:
    """No reply came: the error that says what became of the request as far as is known."""
    what = "what became of it is not known"
    if isinstance(shown, dict) and "cursor" in shown:
        if shown["floor"] > receipt.offset:
            what = "it was confirmed, but not replied to"
        elif shown["cursor"] > receipt.offset:
            what = "it was received, but not replied to yet"
        else:
            what = "nobody has received it yet"
    return TimeoutError(f"no reply to request {receipt.id} in {seconds} s: {what}")


class Addresses:
    """The reply queues of others that were replied to lately; what falls out is told to forget."""

    def __init__(self, forget: Callable[[Any], None]) -> None:
        self.known: OrderedDict[str, Any] = OrderedDict()
        self.forget = forget

    def get(self, name: str) -> Any:
        """The queue of that name, or None."""
        if name in self.known:
            self.known.move_to_end(name)
        return self.known.get(name)

    def put(self, name: str, queue: Any) -> None:
        """Remember it; forget the one not used for longest when there are too many."""
        self.known[name] = queue
        if len(self.known) > ADDRESSES:
            self.forget(self.known.popitem(last=False)[1])

    def drop(self, name: str) -> None:
        """It is there no more."""
        queue = self.known.pop(name, None)
        if queue is not None:
            self.forget(queue)


def address_of(message: model.MessageFields) -> str:
    """Where a reply goes. Raises InvalidError for a message that wants none."""
    if not message.attributes.reply_to:
        raise InvalidError("the message has no reply address: it was not sent as a request")
    return message.attributes.reply_to


class Replies:
    """The replies to one client's requests.

    Invariants:
      1. waiting has an entry for each request under way; None until its reply is there.
      2. At most one thread receives, the one that set receiving; it wakes the others.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.own = ReplyQueue()
        self.queue: Queue | None = None
        self.lock = threading.Condition()
        self.opening = threading.Lock()
        self.waiting: dict[str, Message | None] = {}
        self.receiving = False
        self.addresses = Addresses(self._forget)

    def request(
        self, queue: Queue, body: Bytes, timeout: float, durability: Level, carried: Carried
    ) -> Message:
        """The reply to a message that is sent to queue, confirmed already."""
        deadline = clock.monotonic() + timeout
        replies = self._opened(timeout)
        correlation = carried.setdefault("correlation", secrets.token_hex(8))
        carried["reply_to"] = self.own.name
        with self.lock:
            if correlation in self.waiting:
                raise InvalidError(f"a request with correlation {correlation!r} is under way")
            self.waiting[correlation] = None
        try:
            receipt = queue.send(body, durability, **carried)
            return self._awaited(replies, correlation, deadline) or self._fail(receipt, timeout)
        finally:
            with self.lock:
                del self.waiting[correlation]

    def _opened(self, timeout: float) -> Queue:
        with self.opening:
            touch = self.own.touch(timeout, clock.monotonic())
            idle_ms = model.milliseconds(self.own.idle)
            if self.queue is None:
                self.queue = self.client.queue(self.own.name, idle=self.own.idle)
            elif touch:
                handle = self.queue.handle
                self.client.ask(lambda _, reply: touch_call(reply, handle, idle_ms))
            return self.queue

    def _awaited(self, replies: Queue, correlation: str, deadline: float) -> Message | None:
        while True:
            with self.lock:
                while self.receiving and self.waiting[correlation] is None:
                    if not self.lock.wait(deadline - clock.monotonic()):
                        break
                left = deadline - clock.monotonic()
                if self.waiting[correlation] is not None or self.receiving or left <= 0:
                    return self.waiting[correlation]
                self.receiving = True
            try:
                self._receive(replies, left)
            finally:
                with self.lock:
                    self.receiving = False
                    self.lock.notify_all()

    def _receive(self, replies: Queue, seconds: float) -> None:
        messages = replies.receive(TAKEN, wait=seconds)
        with self.lock:
            for message in messages:
                # A late one is nobody's any more: it is confirmed and dropped.
                if message.attributes.correlation in self.waiting:
                    self.waiting[message.attributes.correlation] = message
            self.lock.notify_all()
        if messages:
            self.client.confirm(messages)

    def _fail(self, receipt: Receipt, timeout: float) -> Message:
        shown = None
        with contextlib.suppress(PenstockError):
            shown = self.client.show(receipt.queue)
        raise late(receipt, timeout, shown)

    def reply(
        self, message: Message, body: Bytes, durability: Level, carried: Carried
    ) -> Receipt:
        """Send to the reply address of a message."""
        name = address_of(message)
        carried.setdefault("correlation", message.attributes.correlation)
        queue = self.addresses.get(name)
        try:
            if queue is None:
                queue = self.client.queue(name, create=False)
                self.addresses.put(name, queue)
            receipt: Receipt = queue.send(body, durability, **carried)
            return receipt
        except PenstockError:
            self.addresses.drop(name)
            raise

    def _forget(self, queue: Queue) -> None:
        self.client.issue(lambda session: session.drop(queue.handle))

    def close(self) -> None:
        """Have the queue removed, unless the server is out of reach: then its idle time does it."""
        if self.queue is not None:
            # Whoever still receives asks for the queue once more: it must not be made anew then.
            self.queue.handle.create, self.queue.handle.idle_ms = False, 0
            self.queue = None
            with contextlib.suppress(PenstockError, OSError):
                self.client.ask(
                    lambda _, reply: model.admin_call(
                        reply, "queue.delete", {"name": self.own.name}
                    ),
                    CLOSE_SECONDS - self.client.timeout,
                )
