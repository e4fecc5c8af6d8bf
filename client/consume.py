"""Consuming: confirm on return, release on raise, extend while running, drain on cancel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any

from penstock.errors import InvalidError, PenstockError
from penstock.wire import Verdict

if TYPE_CHECKING:
    from penstock.aio import AsyncMessage, AsyncQueue

LOG = logging.getLogger("penstock")
CLOSE_SECONDS = 5.0
Handler = Callable[["AsyncMessage"], Awaitable[object]]


class Consumption:
    """What ``consume`` gives: iterate over it, or await it if it has a handler.

    Invariants:
      1. leased holds the messages received and neither confirmed nor released yet; all of
         them have their lease extended three times per lease.
      2. done holds those whose confirmation was not asked for yet: they leave together, at
         the end of a loop turn, in one request.
      3. asked holds the confirmations and releases under way.
      4. From the first message on until it has drained, its client knows it, and drains it
         before it closes: a loop that was left is closed by the event loop, perhaps later.
    """

    def __init__(
        self,
        queue: AsyncQueue,
        handler: Handler | None,
        concurrency: int,
        lease: float,
        wait: float,
    ) -> None:
        if concurrency < 1 or lease <= 0:
            raise InvalidError("concurrency is at least 1 and a lease is positive")
        self._queue = queue
        self._handler = handler
        self._concurrency = concurrency
        self._lease = lease
        self._wait = wait
        self._leased: dict[int, AsyncMessage] = {}
        self._done: list[AsyncMessage] = []
        self._asked: set[asyncio.Task[None]] = set()
        self._scheduled = False

    def __aiter__(self) -> AsyncGenerator[AsyncMessage, None]:
        if self._handler:
            raise InvalidError("a consumption with a handler is awaited, not iterated over")
        return self._each()

    def __await__(self) -> Generator[Any, None, None]:
        if not self._handler:
            raise InvalidError("a consumption without a handler is iterated over, not awaited")
        return self._run(self._handler).__await__()

    async def close(self) -> None:
        """Confirm what is done, and give back what a loop still holds; the client closes.

        What a handler still works at keeps its lease: nobody else shall begin it meanwhile.
        """
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._drain(release=self._handler is None)

    def _begin(self) -> asyncio.Task[None]:
        self._queue.client.consumptions.add(self)
        return asyncio.create_task(self._extend())

    async def _each(self) -> AsyncGenerator[AsyncMessage, None]:
        extender = self._begin()
        ready: deque[AsyncMessage] = deque()
        try:
            while True:
                if not ready:
                    ready.extend(await self._receive(self._concurrency))
                    continue
                message = ready.popleft()
                # A body that raises or breaks closes this generator here: the message is
                # then still leased, and is released below with those not yet handed out.
                yield message
                self._confirm(message)
        finally:
            extender.cancel()
            await self._drain()

    async def _run(self, handler: Handler) -> None:
        extender = self._begin()
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                room = self._concurrency - len(running)
                if not room:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    continue
                for message in await self._receive(room):
                    task = asyncio.create_task(self._handle(handler, message))
                    running.add(task)
                    task.add_done_callback(running.discard)
        finally:
            if running:
                await asyncio.wait(running)
            extender.cancel()
            await self._drain()

    async def _handle(self, handler: Handler, message: AsyncMessage) -> None:
        try:
            await handler(message)
        except Exception as error:
            # The handler's failure is the message's, not the consumer's: it comes again, as the
            # group's retry policy says, or ends among the dead letters with what was raised.
            LOG.exception("message %d of %s failed", message.offset, self._queue.name)
            self._leased.pop(id(message), None)
            reason = f"{type(error).__name__}: {error}"
            await self._attempt(
                self._queue.client.release([message], reason=reason), "release"
            )
        else:
            self._confirm(message)

    async def _receive(self, count: int) -> list[AsyncMessage]:
        messages = await self._queue.receive(count, wait=self._wait, lease=self._lease)
        for message in messages:
            self._leased[id(message)] = message
        return messages

    def _confirm(self, message: AsyncMessage) -> None:
        self._leased.pop(id(message), None)
        self._done.append(message)
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._confirm_done)

    def _confirm_done(self) -> None:
        self._scheduled = False
        messages, self._done = self._done, []
        if messages:
            self._ask(self._queue.client.confirm(messages), "confirm")

    def _ask(self, request: Awaitable[list[Verdict]], what: str) -> None:
        task = asyncio.ensure_future(self._attempt(request, what))
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _attempt(self, request: Awaitable[list[Verdict]], what: str) -> None:
        try:
            verdicts = await request
        except PenstockError as error:
            # What was not confirmed comes again; the loop learns of a broken connection
            # from its next receive.
            LOG.warning("could not %s on %s: %s", what, self._queue.name, error)
            return
        late = len(verdicts) - verdicts.count(Verdict.DONE)
        if late:
            LOG.warning("%d leases on %s were lost before the %s", late, self._queue.name, what)

    async def _extend(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            messages = list(self._leased.values())
            if messages:
                await self._attempt(
                    self._queue.client.extend(messages, self._lease), "extension"
                )

    async def _drain(self, release: bool = True) -> None:
        self._confirm_done()
        if self._leased and release:
            messages = list(self._leased.values())
            self._leased.clear()
            self._ask(self._queue.client.release(messages, 0.0), "release")
        while self._asked:
            await asyncio.wait(self._asked)
        self._queue.client.consumptions.discard(self)
