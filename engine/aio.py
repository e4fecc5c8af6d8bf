"""Awaitable appends and confirmations for a program whose event loop embeds a store.

The one room of the engine that knows asyncio, and nothing else imports it. The calls run on
threads, where group commit makes one write and one fsync of all that wait at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from penstock.engine._core import Batch, Consumer, Queue, SendReceipt

T = TypeVar("T")


class Awaitable:
    """The awaitable forms of a store's calls: ``await Awaitable().append(queue, body)``.

    workers: how many calls may wait for the disk at a time; they share each fsync.
    """

    def __init__(self, workers: int = 32) -> None:
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="penstock-await")

    async def append(self, queue: Queue, body: bytes, **options: Any) -> SendReceipt:
        """Append one message; see Queue.append."""
        return await self._run(lambda: queue.append(body, **options))

    async def append_many(self, queue: Queue, bodies: list[bytes], **options: Any) -> SendReceipt:
        """Append messages as one operation; see Queue.append_many."""
        return await self._run(lambda: queue.append_many(bodies, **options))

    async def receive(self, group: Consumer, count: int = 1, **options: Any) -> Batch:
        """Lease messages, waiting as long as wait_ms says; see Consumer.receive."""
        return await self._run(lambda: group.receive(count, **options))

    async def confirm(self, group: Consumer, receipts: bytes) -> bytes:
        """Confirm, durably; see Consumer.confirm."""
        return await self._run(lambda: group.confirm(receipts))

    def close(self) -> None:
        """Wait for the calls under way and end the threads."""
        self.pool.shutdown()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.pool, call)
