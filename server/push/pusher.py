"""Delivers what is to be pushed: one task for each subscription, its posts on threads."""

import asyncio
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from penstock.engine._core import Batch, Consumer, Queue
from penstock.engine.attributes import Attributes
from penstock.engine.errors import EngineError
from penstock.server._wire import Hub
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.posting import post_of
from penstock.server.broker.errors import BrokerError
from penstock.server.broker.push import (
    Decision,
    Network,
    Pushes,
    Subscription,
    Verdict,
    dead_attributes,
    decide,
    headers_of,
    target_of,
)
from penstock.server.protocols.http.carried import fields_of
from penstock.server.push.post import Answer, Pinned, post

LOOK_S = 0.5
WAIT_MS = 20_000
TROUBLE_S = 2.0
LEASE_MARGIN_MS = 15_000
POSTS = 64


class Pusher:
    """Every subscription of the store. One worker of a server runs it.

    Invariants:
      1. tasks has one task for each subscription as it stands in the store; one that was changed
         is cancelled, and begun anew with what it says now.
      2. A message is confirmed after it was answered with 2xx, or is durable as a dead letter; in
         any other case its lease ends and it comes again.
    """

    def __init__(
        self, hub: Hub, broker: Broker, bridge: Bridge, allowed: Sequence[Network]
    ) -> None:
        self.hub = hub
        self.broker = broker
        self.allowed = allowed
        self.pushes = Pushes(broker)
        self.call = bridge.call
        self.pool = ThreadPoolExecutor(POSTS, thread_name_prefix="penstock-push")
        self.slots = asyncio.Semaphore(POSTS)
        self.under_way: set[Pinned] = set()
        self.tasks: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        version = -1
        try:
            while True:
                noted = self.broker.store.notes_version()
                if noted != version:
                    self.follow(await self.call(self.pushes.all))
                    version = noted
                await asyncio.sleep(LOOK_S)
        finally:
            self.follow({})
            for connection in list(self.under_way):
                connection.cut()
            self.pool.shutdown(wait=False, cancel_futures=True)

    def follow(self, wanted: dict[str, Subscription]) -> None:
        """Begin what is new, end what is gone or was changed."""
        for name, (subscription, task) in list(self.tasks.items()):
            if wanted.get(name) != subscription:
                task.cancel()
                del self.tasks[name]
        for name, subscription in wanted.items():
            if name not in self.tasks:
                self.tasks[name] = subscription, asyncio.create_task(self.keep(subscription))

    async def keep(self, subscription: Subscription) -> None:
        while True:
            try:
                await self.serve(subscription)
            except (BrokerError, EngineError):
                # The queue was deleted, or the disk is full: it may be there again.
                await asyncio.sleep(TROUBLE_S)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                await asyncio.sleep(TROUBLE_S)

    async def serve(self, subscription: Subscription) -> None:
        queue = await self.call(self.broker.open, subscription.queue, create=False)
        group = await self.call(self.broker.group, queue, subscription.group)
        lease_ms = int(subscription.timeout_s * 1000) + LEASE_MARGIN_MS
        running: set[asyncio.Task[None]] = set()
        try:
            while True:
                if len(running) >= subscription.concurrency:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    continue
                # A message is leased only when there is a thread for it: its lease must suffice.
                await self.slots.acquire()
                batch = None
                try:
                    batch = await self.call(group.receive, 1, lease_ms=lease_ms)
                finally:
                    if not batch:
                        self.slots.release()
                if batch:
                    task = asyncio.create_task(self.deliver(subscription, queue, group, batch))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(lambda _: self.slots.release())
                else:
                    await self.hub.wait(queue.id, group.id, WAIT_MS)
        finally:
            for task in running:
                task.cancel()

    async def deliver(
        self, subscription: Subscription, queue: Queue, group: Consumer, batch: Batch
    ) -> None:
        offset, attempts = int(batch.offsets[0]), int(batch.attempts[0])
        body, attributes, receipt = bytes(batch[0]), batch.attributes(0), batch.receipts
        stored_us = int(batch.timestamps[0])
        if subscription.format == "penstock":
            identity, posted = f"{queue.id:08x}-{offset:016x}", body
            headers = headers_of(subscription, identity, attempts, int(time.time()), body)
            headers |= fields_of(attributes)
        else:
            headers, posted = post_of(
                subscription, queue.id, offset, stored_us, body, attributes)
        answer: Answer = await self.hub.loop.run_in_executor(
            self.pool, post, target_of(subscription.url), headers, posted, subscription.timeout_s,
            self.allowed, self.under_way,
        )  # fmt: skip
        age_s = time.time() - stored_us / 1_000_000
        decision = decide(
            subscription, answer.status, answer.why, attempts, answer.retry_s, age_s)
        try:
            await self.settle(subscription, group, receipt, decision, body, offset, attributes)
        except (BrokerError, EngineError):
            # Not settled: the lease ends, and it comes again.
            traceback.print_exc(file=sys.stderr)

    async def settle(
        self, subscription: Subscription, group: Consumer, receipt: bytes, decision: Decision,
        body: bytes, offset: int, attributes: Attributes,
    ) -> None:
        if decision.verdict is Verdict.AGAIN:
            await self.call(group.release, receipt, delay_ms=decision.delay_ms)
            return
        if decision.verdict is Verdict.DEAD:
            dead = await self.call(self.broker.open, subscription.dead_letter, create=True)
            told = dead_attributes(attributes, subscription.queue, offset, decision)
            await self.call(dead.append, body, attributes=told)
        await self.call(group.confirm, receipt)
