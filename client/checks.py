"""Answering the checks that a client is sent: who prepared a half is asked what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from penstock import later
from penstock.errors import ClosedError, PenstockError
from penstock.later import Check

if TYPE_CHECKING:
    from penstock.aio import AsyncClient
    from penstock.sync import Client

LOG = logging.getLogger("penstock")
LISTEN_SECONDS = 1.0
Answer: TypeAlias = bool | None
Handler = Callable[[Check], Answer]
AsyncHandler = Callable[[Check], Awaitable[Answer]]


class Checks:
    """The blocking client's: a thread that listens while there are handlers, and runs them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.handlers: dict[str, Handler] = {}
        self.thread: threading.Thread | None = None

    def join(self, group: str, handler: Handler) -> None:
        """Be asked for a group from now on, after a reconnect too."""
        self.handlers[group] = handler
        self.client.issue(lambda session: session.groups.add(group))
        self.client.ask(lambda _, reply: later.producer_call(reply, group, later.JOIN))
        if self.thread is None:
            self.thread = threading.Thread(target=self._run, name="penstock-checks", daemon=True)
            self.thread.start()

    def leave(self, group: str) -> None:
        """Be asked no more."""
        self.handlers.pop(group, None)
        self.client.issue(lambda session: session.groups.discard(group))
        self.client.ask(lambda _, reply: later.producer_call(reply, group, 0))

    def _run(self) -> None:
        pause = threading.Event()
        while True:
            try:
                check = self.client.next_check(LISTEN_SECONDS)
                if check is not None:
                    self._answer(check)
            except ClosedError:
                return
            except PenstockError as error:
                # The half waits, and is asked about again when we are there again.
                LOG.warning("checks are not heard: %s", error)
                pause.wait(LISTEN_SECONDS)

    def _answer(self, check: Check) -> None:
        handler = self.handlers.get(check.group)
        if handler is None:
            return
        try:
            verdict = handler(check)
        except Exception:
            LOG.exception("the check of %s failed; it is asked again", check.queue)
            return
        if verdict is not None:
            call = verdict_call(check, verdict)
            self.client.ask(lambda _, reply: call(reply))


class AsyncChecks:
    """The asyncio client's: a task for each check."""

    def __init__(self, client: AsyncClient) -> None:
        self.client = client
        self.handlers: dict[str, AsyncHandler] = {}
        self.tasks: set[Any] = set()

    async def join(self, group: str, handler: AsyncHandler) -> None:
        """Be asked for a group from now on, after a reconnect too."""
        self.handlers[group] = handler
        self.client.session.groups.add(group)
        await self._say(group, later.JOIN)

    async def leave(self, group: str) -> None:
        """Be asked no more."""
        self.handlers.pop(group, None)
        self.client.session.groups.discard(group)
        await self._say(group, 0)

    async def _say(self, group: str, flags: int) -> None:
        call = later.producer_call(self.client.loop.create_future(), group, flags)
        await self.client.ask(call, self.client.timeout)

    def heard(self) -> None:
        """Answer what was asked since."""
        checks = self.client.session.checks
        while checks:
            task = self.client.loop.create_task(self._answer(checks.popleft()))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _answer(self, check: Check) -> None:
        handler = self.handlers.get(check.group)
        if handler is None:
            return
        try:
            verdict = await handler(check)
            if verdict is not None:
                call = verdict_call(check, verdict)(self.client.loop.create_future())
                await self.client.ask(call, self.client.timeout)
        except PenstockError as error:
            LOG.warning("the verdict on a half of %s was not told: %s", check.queue, error)
        except Exception:
            LOG.exception("the check of %s failed; it is asked again", check.queue)


def verdict_call(check: Check, verdict: bool) -> Callable[[Any], Any]:
    """The request that says what became of a half."""
    if verdict:
        return lambda waiter: later.commit_call(waiter, check.id, check.queue)
    return lambda waiter: later.rollback_call(waiter, check.id)
