"""The blocking client. Threads may share it: each request leaves at once, none waits for another's
reply, and whichever thread waits first reads for all."""

from __future__ import annotations

import threading
import time as clock
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from penstock import model
from penstock.attributes import Carried
from penstock.errors import ClosedError, ConnectionLostError, PenstockError, TimeoutError
from penstock.halves import Atomic, Half
from penstock.link import Link
from penstock.model import Bytes, Level
from penstock.redriving import Redriving, ignored
from penstock.replies import Replies
from penstock.request import Call, Reply
from penstock.later import Check, id_number
from penstock.seeing import Seeing
from penstock.session import Session, State
from penstock.squeue import Message, Queue
from penstock.waiting import Waiting
from penstock.wire import Verdict

if TYPE_CHECKING:
    from penstock.checks import Checks, Handler

__all__ = ["Client", "Message", "Queue", "connect"]


class Client(Seeing, Waiting):
    """A connection to a server that is made again when it breaks.

    Invariants:
      1. The session is touched under _lock only.
      2. At most one thread reads, the one that set _reading; it alone reconnects.
      3. Bytes leave in the order in which the session gave them: they are taken from it and
         written under _writing, which is taken before _lock and never while holding it.
    """

    def __init__(
        self,
        address: str = model.DEFAULT_ADDRESS,
        *,
        producer: int | None = None,
        timeout: float = 30.0,
        connect_for: float = 5.0,
        reconnect_for: float = 30.0,
    ) -> None:
        self.timeout = timeout
        self.reconnect_for = reconnect_for
        self._session = Session(producer)
        self._lock = threading.Condition()
        self._writing = threading.Lock()
        self._reading = False
        self._closed = False
        self.replies = Replies(self)
        self.checks: Checks | None = None
        self._link = Link(*model.parse_address(address), timeout)
        try:
            self._connect(connect_for)
        except PenstockError:
            self.close()
            raise

    @classmethod
    def connect(
        cls, address: str = model.DEFAULT_ADDRESS, *, connect_for: float = 5.0, **options: Any
    ) -> Self:
        """A client that is connected; tries for connect_for seconds."""
        return cls(address, connect_for=connect_for, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; what is in flight fails with ClosedError."""
        self.reconnect_for = 0.0
        self.replies.close()
        with self._lock:
            self._closed = True
            self._session.close()
            self._link.close()
            self._lock.notify_all()

    # What a user asks for.

    def queue(
        self, name: str, *, group: str = "", create: bool = True, idle: float = 0.0
    ) -> Queue:
        """The queue of that name; created if absent unless create is False.

        idle: it is a temporary one, removed when no client has asked for it for so many seconds.
        """
        reply, idle_ms = Reply(), model.milliseconds(idle)
        self.issue(lambda session: session.open(reply, name, group, create, idle_ms))
        return Queue(self, self.wait(reply, self.timeout, f"OPEN {name}"))

    def request(
        self,
        queue: str | Queue,
        body: Bytes,
        timeout: float = 30.0,
        durability: Level = "disk",
        **carried: Unpack[Carried],
    ) -> Message:
        """The reply to a message: who receives it says message.reply(body).

        Raises TimeoutError, which says what became of the request as far as is known. The reply
        is confirmed already.
        """
        target = self.queue(queue) if isinstance(queue, str) else queue
        return self.replies.request(target, body, timeout, durability, carried)

    def atomic(self, durability: Level = "disk") -> Atomic:
        """Messages to any queues, stored all or none: with client.atomic() as all: all.send(…)

        After a broken connection they are sent again, and stored once.
        """
        return Atomic(self, durability)

    def half(self, id: int | str) -> Half:
        """A half that was prepared before, by its id: to commit it or roll it back."""
        return Half(self, id=id_number(id))

    def on_check(self, producer_group: str, handler: Handler) -> None:
        """Have halves that a producer of the group left undecided answered by a handler.

        It is called with a Check on a thread of its own and says True to commit, False to roll
        back, None (or raises) if it cannot tell: then it is asked again.
        """
        if self.checks is None:
            from penstock.checks import Checks

            self.checks = Checks(self)
        self.checks.join(producer_group, handler)

    def confirm(self, messages: Sequence[model.MessageFields]) -> list[Verdict]:
        """One verdict per message; what is done will not come again."""
        return self._judge(model.confirm_call, messages)

    def release(
        self,
        messages: Sequence[model.MessageFields],
        delay: float | None = None,
        reason: str = "",
    ) -> list[Verdict]:
        """One verdict per message; what is done comes again after delay seconds.

        delay None: when the group's retry policy says so, at once if it has none. What was tried
        as often as that allows goes to its dead-letter queue instead, with the reason.
        """
        return self._judge(model.release_call, messages, delay, reason)

    def extend(self, messages: Sequence[model.MessageFields], lease: float) -> list[Verdict]:
        """One verdict per message; what is done is leased for lease seconds from now."""
        return self._judge(model.extend_call, messages, model.milliseconds(lease))

    def _judge(
        self, make: Callable[..., Call], messages: Sequence[model.MessageFields], *more: Any
    ) -> list[Verdict]:
        if not messages:
            return []
        receipts = [message.receipt for message in messages]
        verdicts: list[Verdict] = self.ask(lambda _, reply: make(reply, receipts, *more))
        return verdicts

    def ping(self) -> None:
        """Returns when the server has answered."""
        self.ask(lambda _, reply: model.ping_call(reply))

    def admin(self, do: str, **fields: Any) -> Any:
        """What the server answers to one administrative request."""
        return self.ask(lambda session, reply: model.admin_call(reply, do, fields, session))

    def list(self, prefix: str = "") -> Any:
        """The queues of the server whose names begin so, in as many steps as it takes."""
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.admin("queue.list", prefix=prefix, cursor=cursor)
            found, cursor = found + page["queues"], page["next"]
        return {"queues": found}

    def show(self, name: str) -> Any:
        """What the server knows of one queue."""
        return self.admin("queue.show", name=name)

    def delete(self, name: str) -> None:
        """The queue and its messages are gone."""
        self.admin("queue.delete", name=name)

    def purge(self, name: str, *, keep_ms: int = 0) -> Any:
        """The messages of the queue are gone; how many. For keep_ms unpurge takes it back."""
        return self.admin("queue.purge", name=name, keep_ms=keep_ms)

    def unpurge(self, name: str) -> Any:
        """Purges that are still kept are taken back: the first offset, how many come again."""
        return self.admin("queue.unpurge", name=name)

    def redrive_all(
        self,
        queue: str,
        to: str = "",
        *,
        rate: float | None = None,
        step: Callable[[dict[str, Any]], None] = ignored,
        **wanted: Any,
    ) -> dict[str, int]:
        """Put all dead letters back that fit (see redrive); how many were seen, wanted and moved.

        rate: so many a second at most. step: called with the answer to each step.
        """
        walk = Redriving(rate, wanted, step)
        while not walk.done:
            clock.sleep(walk.take(self.redrive(queue, to, **walk.fields)))
        return walk.total

    # Requests on their way.

    def ask(self, make: Callable[[Session, Reply], Call], wait: float = 0.0) -> Any:
        """The reply to the call that make gives, awaited wait seconds over the timeout."""
        reply = Reply()
        names: list[str] = []

        def request(session: Session) -> None:
            call = make(session, reply)
            names.append(call.verb.name)
            session.call(call)

        self.issue(request)
        return self.wait(reply, self.timeout + wait, names[0])

    def issue(self, ask: Callable[[Session], None]) -> None:
        """Ask the session for something and write what it gives."""
        with self._lock:
            ask(self._session)
        self._flush()

    def _flush(self) -> None:
        with self._writing:
            with self._lock:
                data = b"".join(self._session.outgoing)
                self._session.outgoing.clear()
            if data:
                # A broken connection shows itself to the reader, who makes a new one.
                self._link.write(data)

    def wait(self, reply: Reply, seconds: float, what: str) -> Any:
        """The value of a reply, or its error raised; TimeoutError after seconds."""
        deadline = clock.monotonic() + seconds
        while True:
            with self._lock:
                while self._reading and not reply.done() and clock.monotonic() < deadline:
                    self._lock.wait(deadline - clock.monotonic())
                if reply.done():
                    if reply.error:
                        raise reply.error
                    return reply.value
                if clock.monotonic() >= deadline:
                    # Nobody waits for it now: the session gives late messages back.
                    reply.set_exception(TimeoutError(f"no reply to {what} in {seconds} s"))
                    continue
                self._reading = True
            try:
                self._read(deadline)
            finally:
                with self._lock:
                    self._reading = False
                    self._lock.notify_all()

    def next_check(self, seconds: float) -> Check | None:
        """What this client is asked as a producer, None if nothing within that time."""
        deadline = clock.monotonic() + seconds
        with self._lock:
            if self._closed:
                raise ClosedError("the client was closed")
            if not self._session.checks and self._reading:
                self._lock.wait(seconds)
            if self._session.checks:
                return self._session.checks.popleft()
            if self._reading:
                return None
            self._reading = True
        try:
            self._read(deadline)
        finally:
            with self._lock:
                self._reading = False
                self._lock.notify_all()
        return None

    def _read(self, deadline: float) -> None:
        data = self._link.read(deadline - clock.monotonic())
        if data is None:
            return
        try:
            with self._lock:
                if self._closed:
                    return
                if not data:
                    raise ConnectionLostError("the server hung up")
                self._session.feed(data)
                more = bool(self._session.outgoing)
            if more:
                self._flush()
        except PenstockError:
            self._connect(self.reconnect_for)

    def _connect(self, seconds: float) -> None:
        """Make a new connection and greet the server; else fail whoever waits."""
        deadline = clock.monotonic() + seconds
        with self._lock:
            self._session.lost()
        while not self._closed:
            try:
                self._link.open()
                with self._lock:
                    self._session.connected()
                self._flush()
                self._greet(deadline)
                return
            except (OSError, PenstockError) as error:
                with self._lock:
                    self._session.lost()
                if not self._link.pause(deadline):
                    lost = ConnectionLostError(f"{self._link} cannot be reached: {error}")
                    with self._lock:
                        self._session.fail(lost)
                    raise lost from error

    def _greet(self, deadline: float) -> None:
        while True:
            data = self._link.read(deadline - clock.monotonic())
            if not data:
                raise ConnectionLostError("the server hung up" if data == b"" else "no greeting")
            with self._lock:
                self._session.feed(data)
                greeted = self._session.state in (State.RESOLVING, State.ONLINE)
            self._flush()
            if greeted:
                self._link.stands()
                return


def connect(address: str = model.DEFAULT_ADDRESS, **options: Any) -> Client:
    """A client that is connected to the server at tcp://host:port."""
    return Client(address, **options)
