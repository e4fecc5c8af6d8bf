"""Awaitable appends and confirmations for a program whose event loop embeds a store.

The one room of the engine that knows asyncio, and nothing else imports it. Calls are staged on a
lane and come back through its file descriptor: one write, one fsync and one wake-up of the loop
for all that wait at the same time, and no thread for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

from penstock.engine._core import Batch, Consumer, Lane, Queue, SendReceipt, Store
from penstock.engine.errors import StoreClosedError

CONFIRMED_AT_ONCE = 4096


class Awaitable:
    """The awaitable forms of a store's calls: ``await Awaitable(store).append(queue, body)``.

    Belongs to the event loop it was made in. A call that is cancelled is not taken back: what was
    staged is stored.

    Invariants:
      1. waiting[cookie] is there from the staging of an operation until it was drained.
      2. While parked is not empty the lane watches for messages of other processes.
    """

    def __init__(self, store: Store) -> None:
        self.loop = asyncio.get_running_loop()
        self.lane = Lane(store)
        self.waiting: dict[int, asyncio.Future[SendReceipt | None]] = {}
        self.parked: set[asyncio.Future[None]] = set()
        self.cookie = 0
        self.kicking = False
        self.closed = False
        self.loop.add_reader(self.lane.fileno(), self._ready)

    async def append(self, queue: Queue, body: bytes, **options: Any) -> SendReceipt:
        """Append one message; see Queue.append."""
        receipt = await self._staged(
            lambda cookie: self.lane._append(cookie, queue, body, **options))
        assert receipt is not None
        return receipt

    async def append_many(
        self, queue: Queue, bodies: list[bytes], **options: Any
    ) -> SendReceipt:
        """Append messages as one operation; see Queue.append_many."""
        sizes = [len(body) for body in bodies]
        packed = b"".join(bodies)
        receipt = await self._staged(
            lambda cookie: self.lane._append_packed(cookie, queue, packed, sizes, **options))
        assert receipt is not None
        return receipt

    async def receive(
        self, group: Consumer, count: int = 1, *, wait_ms: int = 0, **options: Any
    ) -> Batch:
        """Lease messages, waiting as long as wait_ms says; see Consumer.receive."""
        until = self.loop.time() + wait_ms / 1000
        while True:
            self._live()
            arrival = self._park()
            try:
                batch = group.receive(count, once=True, **options)
                left = until - self.loop.time()
                if len(batch) or left <= 0:
                    return batch
                due = self.lane._due_in(group)
                await asyncio.wait([arrival], timeout=left if due is None else min(left, due))
            finally:
                self._unpark(arrival)

    async def confirm(self, group: Consumer, receipts: bytes, *, again: bool = False) -> bytes:
        """Confirm, durably; see Consumer.confirm."""
        verdicts = b""
        step = CONFIRMED_AT_ONCE * 24
        for at in range(0, len(receipts), step):
            verdicts += await self._confirmed(receipts[at:at + step], again)
        return verdicts

    async def _confirmed(self, receipts: bytes, again: bool) -> bytes:
        verdicts = bytearray(len(receipts) // 24)
        await self._staged(lambda cookie: self.lane._confirm(cookie, receipts, verdicts, again))
        return bytes(verdicts)

    async def release(self, group: Consumer, receipts: bytes, **options: Any) -> bytes:
        """Give messages back; see Consumer.release. On a thread: it may write to the log."""
        self._live()
        return await asyncio.to_thread(group.release, receipts, **options)

    async def extend(self, group: Consumer, receipts: bytes, *, lease_ms: int) -> bytes:
        """Keep messages for longer; see Consumer.extend. It never waits."""
        self._live()
        return group.extend(receipts, lease_ms=lease_ms)

    async def seek(self, group: Consumer, **to: int) -> tuple[int, int]:
        """Go to an offset or a time, durably; see Consumer.seek."""
        self._live()
        return await asyncio.to_thread(group.seek, **to)

    async def aclose(self) -> None:
        """Wait for the calls under way and end the lane."""
        while self.waiting and not self.closed:
            self.lane._kick()
            await asyncio.wait(list(self.waiting.values()))
        self.close()

    def close(self) -> None:
        """End the lane: what is staged is stored, who still waits gets StoreClosedError."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self.lane.fileno())
        self.lane.close()
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(StoreClosedError("closed while the call was under way"))
        self.waiting.clear()
        self._wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def _staged(self, stage: Callable[[int], int]) -> SendReceipt | None:
        """Stage an operation, as soon as there is room for it, and wait until it was committed."""
        while True:
            self._live()
            self.cookie += 1
            cookie = self.cookie
            staged = stage(cookie)
            if staged > 0:
                break
            if staged < 0:
                return None     # nothing of it needs the log
            room = self._park()
            try:
                await room
            finally:
                self._unpark(room)
        future: asyncio.Future[SendReceipt | None] = self.loop.create_future()
        self.waiting[cookie] = future
        if not self.kicking:
            self.kicking = True
            self.loop.call_soon(self._kick)
        return await future

    def _live(self) -> None:
        if self.closed:
            raise StoreClosedError("the lane was closed")

    def _kick(self) -> None:
        self.kicking = False
        if not self.closed:
            self.lane._kick()

    def _park(self) -> asyncio.Future[None]:
        """A future that is done when something was committed or arrived."""
        future: asyncio.Future[None] = self.loop.create_future()
        self.parked.add(future)
        self.lane._watch(True)
        return future

    def _unpark(self, future: asyncio.Future[None]) -> None:
        self.parked.discard(future)
        if not self.parked and not self.closed:
            self.lane._watch(False)

    def _ready(self) -> None:
        for cookie, result in self.lane._results():
            future = self.waiting.pop(cookie)
            if future.done():
                continue        # its task was cancelled
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)
        self._wake()

    def _wake(self) -> None:
        for parked in self.parked:
            if not parked.done():
                parked.set_result(None)
