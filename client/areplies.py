"""Request and reply for the asyncio client: what was asked, and the queue of the replies."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from penstock import model
from penstock.errors import InvalidError, PenstockError
from penstock.replies import (
    CLOSE_SECONDS,
    TAKEN,
    Addresses,
    ReplyQueue,
    address_of,
    late,
    touch_call,
)
from penstock.wire import Receipt

if TYPE_CHECKING:
    from penstock.aio import AsyncClient
    from penstock.aqueue import AsyncMessage, AsyncQueue
    from penstock.attributes import Carried
    from penstock.model import Bytes, Level

WAIT_SECONDS = 20.0


class AsyncReplies:
    """The replies to one client's requests.

    Invariants:
      1. waiting has a future for each request under way.
      2. One task receives as long as there is one, and no longer.
    """

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.own = ReplyQueue()
        self.queue: AsyncQueue | None = None
        self.opening = asyncio.Lock()
        self.waiting: dict[str, asyncio.Future[AsyncMessage]] = {}
        self.receiver: asyncio.Task[None] | None = None
        self.addresses = Addresses(self._forget)

    async def request(
        self, queue: AsyncQueue, body: Bytes, timeout: float, durability: Level, carried: Carried
    ) -> AsyncMessage:
        """The reply to a message that is sent to queue, confirmed already."""
        loop = self.client.loop
        deadline = loop.time() + timeout
        await self._open(timeout)
        correlation = carried.setdefault("correlation", secrets.token_hex(8))
        carried["reply_to"] = self.own.name
        if correlation in self.waiting:
            raise InvalidError(f"a request with correlation {correlation!r} is under way")
        future = self.waiting[correlation] = loop.create_future()
        try:
            receipt = await queue.send(body, durability, **carried)
            self._receive_on()
            await asyncio.wait([future], timeout=max(0.0, deadline - loop.time()))
            if not future.done():
                await self._fail(receipt, timeout)
            answer: AsyncMessage = future.result()
            return answer
        finally:
            del self.waiting[correlation]

    async def _open(self, timeout: float) -> None:
        async with self.opening:
            touch = self.own.touch(timeout, self.client.loop.time())
            if self.queue is None:
                self.queue = await self.client.queue(self.own.name, idle=self.own.idle)
            elif touch:
                future = self.client.loop.create_future()
                idle_ms = model.milliseconds(self.own.idle)
                call = touch_call(future, self.queue.handle, idle_ms)
                await self.client.ask(call, self.client.timeout)

    def _receive_on(self) -> None:
        if self.receiver is None or self.receiver.done():
            self.receiver = self.client.loop.create_task(self._receive())

    async def _receive(self) -> None:
        assert self.queue is not None
        try:
            while self.waiting:
                messages = await self.queue.receive(TAKEN, wait=WAIT_SECONDS)
                for message in messages:
                    # A late one is nobody's any more: it is confirmed and dropped.
                    future = self.waiting.get(message.attributes.correlation)
                    if future is not None and not future.done():
                        future.set_result(message)
                if messages:
                    await self.client.confirm(messages)
        except PenstockError as error:
            for future in self.waiting.values():
                if not future.done():
                    future.set_exception(error)

    async def _fail(self, receipt: Receipt, timeout: float) -> None:
        shown = None
        with contextlib.suppress(PenstockError):
            shown = await self.client.show(receipt.queue)
        raise late(receipt, timeout, shown)

    async def reply(
        self, message: AsyncMessage, body: Bytes, durability: Level, carried: Carried
    ) -> Receipt:
        """Send to the reply address of a message."""
        name = address_of(message)
        carried.setdefault("correlation", message.attributes.correlation)
        queue = self.addresses.get(name)
        try:
            if queue is None:
                queue = await self.client.queue(name, create=False)
                self.addresses.put(name, queue)
            receipt: Receipt = await queue.send(body, durability, **carried)
            return receipt
        except PenstockError:
            self.addresses.drop(name)
            raise

    def _forget(self, queue: AsyncQueue) -> None:
        self.client.session.drop(queue.handle)

    async def close(self) -> None:
        """Have the queue removed, unless the server is out of reach: then its idle time does it."""
        if self.receiver is not None:
            self.receiver.cancel()
        if self.queue is not None:
            # Whoever still receives asks for the queue once more: it must not be made anew then.
            self.queue.handle.create, self.queue.handle.idle_ms = False, 0
            self.queue = None
            future = self.client.loop.create_future()
            call = model.admin_call(future, "queue.delete", {"name": self.own.name})
            with contextlib.suppress(PenstockError):
                await self.client.ask(call, CLOSE_SECONDS)
