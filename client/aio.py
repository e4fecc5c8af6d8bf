"""The asyncio client: pipelines by itself, one write and one pass over the replies per turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, Unpack, cast

from penstock import model
from penstock.aqueue import AsyncMessage, AsyncQueue
from penstock.areplies import AsyncReplies
from penstock.attributes import Carried
from penstock.checks import AsyncChecks, AsyncHandler
from penstock.consume import Consumption
from penstock.errors import ConnectionLostError, PenstockError, TimeoutError
from penstock.halves import AsyncAtomic, AsyncHalf
from penstock.later import id_number
from penstock.model import Bytes, Level
from penstock.redriving import Redriving, ignored
from penstock.request import Call
from penstock.seeing import Seeing
from penstock.session import Session, State
from penstock.waiting import Waiting
from penstock.wire import Verdict

__all__ = ["AsyncClient", "AsyncMessage", "AsyncQueue"]

BACKOFF_SECONDS = 0.02
BACKOFF_LIMIT_SECONDS = 2.0
ATTEMPT_SECONDS = 5.0


class AsyncClient(Seeing, Waiting):
    """A connection to a server that is made again when it breaks.

    Invariants:
      1. One task, _keep, opens connections; there is at most one at a time.
      2. What session.outgoing holds is written in this loop turn, or when the transport
         takes more, or never because the connection is gone and it will be encoded anew.
    """

    def __init__(
        self,
        address: str = model.DEFAULT_ADDRESS,
        *,
        producer: int | None = None,
        timeout: float = 30.0,
        reconnect_for: float = 30.0,
        in_flight: int = 16384,
    ) -> None:
        self.host, self.port = model.parse_address(address)
        self.timeout = timeout
        self.reconnect_for = reconnect_for
        self.in_flight = in_flight
        self.session = Session(producer)
        self.flushing = False
        self.loop: asyncio.AbstractEventLoop
        self._connection: _Connection | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._waiting: list[asyncio.Future[None]] = []
        self.replies = AsyncReplies(self)
        self.checks = AsyncChecks(self)
        self.consumptions: set[Consumption] = set()

    @classmethod
    async def connect(
        cls, address: str = model.DEFAULT_ADDRESS, *, connect_for: float = 5.0, **options: Any
    ) -> Self:
        """A client that is connected; tries for connect_for seconds."""
        client = cls(address, **options)
        await client.start(connect_for)
        return client

    async def start(self, connect_for: float = 5.0) -> None:
        """Connect, and go on connecting whenever the connection breaks."""
        self.loop = asyncio.get_running_loop()
        connected = self.loop.create_future()
        self._keeper = self.loop.create_task(self._keep(connected, connect_for))
        self._sweep(0, 0)
        try:
            await connected
        except BaseException:
            await self.close()
            raise

    async def __aenter__(self) -> Self:
        if self._keeper is None:
            await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; what is in flight fails with ClosedError."""
        if self.session.state is State.ONLINE:
            await asyncio.gather(*(one.close() for one in self.consumptions))
            await self.replies.close()
        self.flush()
        self.session.close()
        if self._sweeper:
            self._sweeper.cancel()
        if self._connection and self._connection.transport:
            self._connection.transport.close()
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper

    # What a user asks for.

    async def queue(
        self, name: str, *, group: str = "", create: bool = True, idle: float = 0.0
    ) -> AsyncQueue:
        """The queue of that name; created if absent unless create is False.

        idle: it is a temporary one, removed when no client has asked for it for so many seconds.
        """
        future = self.loop.create_future()
        self.session.open(future, name, group, create, model.milliseconds(idle))
        self.flush_soon()
        return AsyncQueue(self, await self._timed(future, self.timeout, f"OPEN {name}"))

    async def request(
        self,
        queue: str | AsyncQueue,
        body: Bytes,
        timeout: float = 30.0,
        durability: Level = "disk",
        **carried: Unpack[Carried],
    ) -> AsyncMessage:
        """The reply to a message: who receives it says message.reply(body).

        Raises TimeoutError, which says what became of the request as far as is known. The reply
        is confirmed already.
        """
        target = await self.queue(queue) if isinstance(queue, str) else queue
        return await self.replies.request(target, body, timeout, durability, carried)

    def atomic(self, durability: Level = "disk") -> AsyncAtomic:
        """Messages to any queues that are stored all or none: see Client.atomic."""
        return AsyncAtomic(self, durability)

    def half(self, id: int | str) -> AsyncHalf:
        """A half that was prepared before, by its id: to commit it or roll it back."""
        return AsyncHalf(self, id=id_number(id))

    async def on_check(self, producer_group: str, handler: AsyncHandler) -> None:
        """Have halves that a producer of the group left undecided answered: see Client.on_check."""
        await self.checks.join(producer_group, handler)

    async def confirm(self, messages: Sequence[model.MessageFields]) -> list[Verdict]:
        """One verdict per message; what is done will not come again."""
        return await self._judge(model.confirm_call, messages)

    async def release(
        self,
        messages: Sequence[model.MessageFields],
        delay: float | None = None,
        reason: str = "",
    ) -> list[Verdict]:
        """One verdict per message; what is done comes again after delay seconds.

        delay None: when the group's retry policy says so, at once if it has none. What was tried
        as often as that allows goes to its dead-letter queue instead, with the reason.
        """
        return await self._judge(model.release_call, messages, delay, reason)

    async def extend(
        self, messages: Sequence[model.MessageFields], lease: float
    ) -> list[Verdict]:
        """One verdict per message; what is done is leased for lease seconds from now."""
        return await self._judge(model.extend_call, messages, model.milliseconds(lease))

    async def _judge(
        self, make: Callable[..., Call], messages: Sequence[model.MessageFields], *more: Any
    ) -> list[Verdict]:
        if not messages:
            return []
        receipts = [message.receipt for message in messages]
        call = make(self.loop.create_future(), receipts, *more)
        verdicts: list[Verdict] = await self.ask(call, self.timeout)
        return verdicts

    async def ping(self) -> None:
        """Returns when the server has answered."""
        await self.ask(model.ping_call(self.loop.create_future()), self.timeout)

    async def admin(self, do: str, **fields: Any) -> Any:
        """What the server answers to one administrative request."""
        call = model.admin_call(self.loop.create_future(), do, fields, self.session)
        return await self.ask(call, self.timeout)

    async def list(self, prefix: str = "") -> Any:
        """The queues of the server whose names begin so, in as many steps as it takes."""
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await self.admin("queue.list", prefix=prefix, cursor=cursor)
            found, cursor = found + page["queues"], page["next"]
        return {"queues": found}

    async def redrive_all(
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
            await asyncio.sleep(walk.take(await self.redrive(queue, to, **walk.fields)))
        return walk.total

    async def show(self, name: str) -> Any:
        """What the server knows of one queue."""
        return await self.admin("queue.show", name=name)

    async def delete(self, name: str) -> None:
        """The queue and its messages are gone."""
        await self.admin("queue.delete", name=name)

    async def purge(self, name: str, *, keep_ms: int = 0) -> Any:
        """The messages of the queue are gone; how many. For keep_ms unpurge takes it back."""
        return await self.admin("queue.purge", name=name, keep_ms=keep_ms)

    async def unpurge(self, name: str) -> Any:
        """Purges that are still kept are taken back: the first offset, how many come again."""
        return await self.admin("queue.unpurge", name=name)

    # Requests on their way.

    async def ask(self, call: Call, seconds: float) -> Any:
        """The reply to call, whose waiter is a future of this loop."""
        self.session.call(call)
        self.flush_soon()
        return await self._timed(call.waiter, seconds, call.verb.name)

    async def _timed(self, future: Any, seconds: float, what: str) -> Any:
        try:
            async with asyncio.timeout(seconds):
                return await future
        except asyncio.TimeoutError as error:
            if isinstance(error, PenstockError):
                raise
            raise TimeoutError(f"no reply to {what} in {seconds} s") from None

    async def room(self) -> None:
        """Returns when fewer than in_flight requests are unanswered."""
        while len(self.session.pending) >= self.in_flight:
            future = self.loop.create_future()
            self._waiting.append(future)
            await future

    def flush_soon(self) -> None:
        """Have outgoing written at the end of this loop turn, together with what follows."""
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what is outgoing, unless the transport has enough already."""
        self.flushing = False
        outgoing = self.session.outgoing
        connection = self._connection
        if outgoing and connection and connection.transport and not connection.paused:
            data = b"".join(outgoing)
            outgoing.clear()
            connection.transport.write(data)

    def answered(self) -> None:
        """Replies were taken: wake who waits for room, write what the replies led to."""
        if self.session.checks:
            self.checks.heard()
        if self.session.outgoing and not self.flushing:
            self.flush_soon()
        if self._waiting and len(self.session.pending) < self.in_flight:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)

    def _sweep(self, older: int, newer: int) -> None:
        # A timer per send costs as much as the send. What was unanswered two sweeps ago is
        # late; it is told so within one and a half times the timeout.
        if self.session.state is not State.CLOSED:
            self.session.expire(older, f"no reply to a send in {self.timeout} s")
            self.answered()
            self._sweeper = self.loop.call_later(
                self.timeout / 2, self._sweep, newer, self.session.sequence
            )

    # The connection.

    async def _keep(self, connected: asyncio.Future[None], connect_for: float) -> None:
        pause = BACKOFF_SECONDS
        deadline = self.loop.time() + connect_for
        while True:
            connection = _Connection(self)
            try:
                async with asyncio.timeout(ATTEMPT_SECONDS):
                    await self.loop.create_connection(lambda: connection, self.host, self.port)
                    await connection.greeted
                if not connected.done():
                    connected.set_result(None)
                pause = BACKOFF_SECONDS
                await connection.closed
                deadline = self.loop.time() + self.reconnect_for
            except (OSError, PenstockError) as error:
                if connection.transport:
                    connection.transport.abort()
                if self.loop.time() + pause >= deadline:
                    self._give_up(connected, error)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, BACKOFF_LIMIT_SECONDS)

    def _give_up(self, connected: asyncio.Future[None], cause: Exception) -> None:
        error = ConnectionLostError(f"{self.host}:{self.port} cannot be reached: {cause!r}")
        error.__cause__ = cause
        self.session.fail(error)
        self.answered()
        if not connected.done():
            connected.set_exception(error)

    def attach(self, connection: _Connection) -> None:
        """The connection stands: greet the server."""
        self._connection = connection
        self.session.connected()
        self.flush()

    def detach(self, connection: _Connection) -> None:
        """The connection is gone."""
        if self._connection is connection:
            self._connection = None
            self.session.lost()
            self.answered()


class _Connection(asyncio.Protocol):
    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.paused = False
        self.transport: asyncio.Transport | None = None
        self.greeted: asyncio.Future[None] = client.loop.create_future()
        self.closed: asyncio.Future[None] = client.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods but not the base class.
        transport = cast(asyncio.Transport, transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=1 << 20)
        if self.client.session.state is State.CLOSED:
            transport.abort()
        else:
            self.client.attach(self)

    def data_received(self, data: bytes) -> None:
        client = self.client
        try:
            client.session.feed(data)
        except PenstockError as error:
            if not self.greeted.done():
                self.greeted.set_exception(error)
            assert self.transport
            self.transport.abort()
            return
        if not self.greeted.done() and client.session.state is State.ONLINE:
            self.greeted.set_result(None)
        client.answered()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self.client.flush()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(ConnectionLostError("the server hung up"))
            # Nobody awaits it when the client was closed meanwhile.
            self.greeted.exception()
        if not self.closed.done():
            self.closed.set_result(None)
        self.client.detach(self)
