"""A queue and its messages, as the asyncio client sees them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Unpack

from penstock import model
from penstock.attributes import Carried
from penstock.consume import Consumption
from penstock.errors import PenstockError
from penstock.halves import AsyncHalf, Prepared
from penstock.later import Moment, later_of
from penstock.membership import Membership
from penstock.model import Bytes, Level, Sought, as_bytes
from penstock.request import Handle, Nobody
from penstock.wire import ATTRIBUTED, Delivered, Receipt

if TYPE_CHECKING:
    from penstock.aio import AsyncClient


class AsyncMessage(model.MessageFields):
    """A message and what can be done with it."""

    __slots__ = ("_client",)

    def __init__(self, client: AsyncClient, delivered: Delivered) -> None:
        super().__init__(delivered)
        self._client = client

    async def confirm(self) -> None:
        """The message is done and will not come again; raises StaleError if the lease is lost."""
        model.raise_for(await self._client.confirm([self]))

    async def release(self, delay: float | None = None, reason: str = "") -> None:
        """The message is given back; see the client's release."""
        model.raise_for(await self._client.release([self], delay, reason))

    async def reply(
        self, body: Bytes, durability: Level = "disk", **carried: Unpack[Carried]
    ) -> Receipt:
        """Answer a message that was sent with client.request; confirming it is another thing.

        Raises QueueNotFoundError when nobody waits for a reply any more.
        """
        return await self._client.replies.reply(self, body, durability, carried)

    async def extend(self, lease: float) -> None:
        """The lease ends lease seconds from now."""
        model.raise_for(await self._client.extend([self], lease))


class AsyncQueue:
    """A queue of the server, or one group of it."""

    def __init__(self, client: AsyncClient, handle: Handle) -> None:
        self.client = client
        self.name = handle.name
        self.group_name = handle.group_name
        self.handle = handle
        # Bound once: a send passes here at a rate at which attribute look-ups count.
        self._future = client.loop.create_future
        self._session = client.session
        self.membership: Membership | None = None

    def send_nowait(
        self,
        body: Bytes,
        durability: Level = "disk",
        ext: Bytes = b"",
        *,
        delay: float | None = None,
        at: Moment | None = None,
        **carried: Unpack[Carried],
    ) -> asyncio.Future[Receipt]:
        """A future of the receipt; the message leaves with all others of this loop turn.

        Raises BusyError when too much is in flight, TooLargeError, ClosedError.
        """
        body = body if type(body) is bytes else as_bytes(body)
        before, flags = as_bytes(ext), 0
        if carried:
            before, flags = model.carried_bytes(before, carried), ATTRIBUTED
        if delay is not None or at is not None:
            more, when = later_of(delay, at)
            before, flags = when + before, flags | more
        return self.send_as(body, durability, flags, before)

    def send_as(
        self, body: bytes, durability: Level, flags: int, before: bytes
    ) -> asyncio.Future[Receipt]:
        """As send_nowait, flags and what stands before the body as on the wire."""
        future = self._future()
        level = 1 if durability == "disk" else model.level_of(durability)
        self._session.send(future, self.handle, level, before, body, flags)
        if not self.client.flushing:
            self.client.flush_soon()
        return future

    async def send(
        self,
        body: Bytes,
        durability: Level = "disk",
        ext: Bytes = b"",
        *,
        delay: float | None = None,
        at: Moment | None = None,
        **carried: Unpack[Carried],
    ) -> Receipt:
        """The receipt of one message, stored at the level it states.

        Beside its body it carries a tag, a key, properties, …: see Carried. It gets into the queue
        after delay seconds, or at a time (seconds since 1970, or a datetime); until then the
        receipt's pending is its id, for client.cancel and client.move.
        """
        client = self.client
        if len(self._session.pending) >= client.in_flight:
            await client.room()
        return await self.send_nowait(body, durability, ext, delay=delay, at=at, **carried)

    def transaction(
        self, body: Bytes, durability: Level = "disk", *, producer_group: str = "",
        first_check: float = 6.0, check_every: float = 30.0, checks: int = 15,
        delay: float | None = None, at: Moment | None = None, **carried: Unpack[Carried],
    ) -> AsyncHalf:
        """A message that nobody sees unless the block succeeds, an async with block.

        See Queue.transaction of the blocking client.
        """
        prepared = Prepared.of(
            body, durability, producer_group, first_check, check_every, checks, delay, at, carried)
        return AsyncHalf(self.client, self.name, lambda: self.send_as(*prepared))

    async def send_many(
        self,
        bodies: Iterable[Bytes],
        durability: Level = "disk",
        attributes: Iterable[Carried | None] | None = None,
        *,
        delay: float | None = None,
        at: Moment | None = None,
    ) -> Receipt:
        """The receipt of a batch, stored as one: all of it or nothing.

        attributes: what each message carries, as {"tag": "a"}, or None for nothing. delay, at: as
        send; the receipt's pending is the id of the first.
        """
        when = later_of(delay, at)
        client, session = self.client, self._session
        if len(session.pending) >= client.in_flight:
            await client.room()
        future = client.loop.create_future()
        parts = [body if type(body) is bytes else as_bytes(body) for body in bodies]
        call = model.batch_call(
            future,
            self.handle,
            durability,
            session.next_sequence(),
            parts,
            session.frame_bytes,
            model.packed_each(attributes),
            when,
        )
        receipt: Receipt = await client.ask(call, client.timeout)
        return receipt

    async def send_each(
        self, bodies: Iterable[Bytes], durability: Level = "disk", window: int = model.EACH_WINDOW
    ) -> list[Receipt]:
        """A receipt per message: each is stored by itself, window of them are on their way."""
        receipts: list[Receipt] = []
        for parts in model.chunks(map(as_bytes, bodies), max(1, window)):
            waiting: list[asyncio.Future[Receipt]] = []
            for body in parts:
                if len(self._session.pending) >= self.client.in_flight:
                    await self.client.room()
                waiting.append(self.send_nowait(body, durability))
            receipts += await asyncio.gather(*waiting)
        return receipts

    async def receive(
        self,
        max_messages: int = 1,
        wait: float = 0.0,
        lease: float = 30.0,
        max_bytes: int = model.RECEIVE_BYTES,
    ) -> list[AsyncMessage]:
        """Up to max_messages under a lease; empty when none came within wait seconds."""
        end = self.client.loop.time() + wait
        while True:
            part = await self._kept(wait)
            found = await self._receive(max_messages, part, lease, max_bytes)
            wait = end - self.client.loop.time()
            if found or part <= 0 or wait <= 0:
                return found

    async def _kept(self, wait: float) -> float:
        """How long to wait at once; a member that goes when it is idle says that it is not."""
        if self.membership is None:
            return wait
        if self.membership.due(self.client.loop.time()):
            await self.client.join_member(*self.membership.names, idle=self.membership.idle)
        return self.membership.longest(wait)

    async def _receive(
        self, max_messages: int, wait: float, lease: float, max_bytes: int
    ) -> list[AsyncMessage]:
        future = self.client.loop.create_future()
        call = model.receive_call(
            future,
            self.handle,
            max_messages,
            model.milliseconds(lease),
            model.milliseconds(wait),
            max_bytes,
        )
        client = self.client
        try:
            found = await client.ask(call, client.timeout + wait)
        except (asyncio.CancelledError, TimeoutError):
            self._give_back(future)
            raise
        return [AsyncMessage(client, m) for m in found]

    def _give_back(self, future: asyncio.Future[list[Delivered]]) -> None:
        """Release what came in the same loop turn in which its receiver was cancelled."""
        if not future.done() or future.cancelled() or future.exception() or not future.result():
            return
        receipts = [delivered.receipt for delivered in future.result()]
        with contextlib.suppress(PenstockError):
            self._session.call(model.release_call(Nobody(), receipts, 0.0))
            self.client.flush_soon()

    async def peek(
        self,
        at: model.Place | None = None,
        *,
        offset: int | None = None,
        time: float | None = None,
        max_messages: int = 1,
        wait: float = 0.0,
    ) -> list[AsyncMessage]:
        """Messages from a place on, without a lease: they cannot be confirmed."""
        if at is None and offset is None and time is None:
            at = "earliest"
        kind, value = model.place_of(at, offset, None if time is None else model.micros(time))
        call = model.read_call(
            self.client.loop.create_future(),
            self.handle,
            kind,
            value,
            max_messages,
            model.milliseconds(wait),
        )
        client = self.client
        return [AsyncMessage(client, m) for m in await client.ask(call, client.timeout + wait)]

    async def seek(
        self,
        to: model.Place | None = None,
        *,
        offset: int | None = None,
        time: float | None = None,
    ) -> Sought:
        """Where the group stands now: at a place, an offset, or a time in seconds since 1970."""
        kind, value = model.place_of(to, offset, None if time is None else model.micros(time))
        client = self.client
        call = model.seek_call(client.loop.create_future(), self.handle, kind, value)
        sought: Sought = await client.ask(call, client.timeout)
        return sought

    async def group(self, name: str) -> AsyncQueue:
        """The queue as a group of that name sees it: with a position and leases of its own."""
        return await self.client.queue(self.name, group=name)

    async def member(
        self,
        name: str,
        group: str = "all",
        *,
        start: int | model.Place = "latest",
        idle: float = 0.0,
    ) -> AsyncQueue:
        """The queue as one member of a group that broadcasts: each member gets everything.

        A new member begins at start. idle: it is gone when nobody received as it for so long; 0: it
        lasts, and goes on where it was whenever somebody is it again.
        """
        membership = Membership(self.name, group, name, idle)
        await self.client.join_member(self.name, group, name, start=start, idle=idle)
        found = await self.client.queue(self.name, group=membership.group, create=False)
        found.membership = membership
        return found

    def consume(
        self,
        handler: Callable[[AsyncMessage], Awaitable[object]] | None = None,
        *,
        concurrency: int = 64,
        lease: float = 30.0,
        wait: float = 20.0,
    ) -> Consumption:
        """Messages for ``async for``, or, with a handler, a coroutine that runs it on them."""
        return Consumption(self, handler, concurrency, lease, wait)
