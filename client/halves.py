"""Halves and atomic sends as context managers, for both clients."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

from penstock import later, model
from penstock.attributes import Carried
from penstock.errors import InvalidError, PenstockError
from penstock.later import Moment, Part
from penstock.model import Bytes, Level
from penstock.wire import ATTRIBUTED, Receipt

if TYPE_CHECKING:
    from penstock.aio import AsyncClient
    from penstock.aqueue import AsyncQueue
    from penstock.session import Session
    from penstock.squeue import Queue
    from penstock.sync import Client


class Prepared(NamedTuple):
    """What a half is sent with."""

    body: bytes
    durability: Level
    flags: int
    ext: bytes

    @classmethod
    def of(
        cls, body: Bytes, durability: Level, group: str, first_check: float, check_every: float,
        checks: int, delay: float | None, at: Moment | None, carried: Carried,
    ) -> Prepared:
        flags, before = later.later_of(delay, at, first_check)
        ext = before + later.half_ext(carried, group, check_every, checks)
        return cls(model.as_bytes(body), durability, flags | ATTRIBUTED, ext)


class Half:
    """A message that nobody sees until it is committed.

    As a context manager it is sent when the block begins, committed when it ends, rolled back when
    it raises. id is there while it waits; receipt is that of the commit.
    """

    def __init__(
        self, client: Client, name: str = "", send: Callable[[], Any] | None = None, id: int = 0
    ) -> None:
        """name: the queue's or the topic's; send: what sends it as a half."""
        self.client = client
        self.name = name
        self.send = send
        self.id = id
        self.receipt: Receipt | None = None
        self.decided = False

    def prepare(self) -> Self:
        """Send it; what the block's beginning does."""
        assert self.send is not None
        self.id = waiting_id(self.send())
        return self

    def commit(self) -> Receipt:
        """Let it into its queue, where the receipt says. Raises ExistsError if rolled back."""
        receipt: Receipt = self.client.ask(
            lambda _, reply: later.commit_call(reply, self.id, self.name))
        self.receipt, self.decided = receipt, True
        return receipt

    def rollback(self) -> bool:
        """Drop it; False if it was before. Raises ExistsError if it was committed."""
        new: bool = self.client.ask(lambda _, reply: later.rollback_call(reply, self.id))
        self.decided = True
        return new

    def __enter__(self) -> Self:
        return self.prepare()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.decided:
            return
        if kind is None:
            self.commit()
            return
        # The error of the block is the one to tell; a half that is left is asked about.
        with contextlib.suppress(PenstockError):
            self.rollback()


class AsyncHalf:
    """The same for the asyncio client: an asynchronous context manager."""

    def __init__(
        self, client: AsyncClient, name: str = "",
        send: Callable[[], Awaitable[Any]] | None = None, id: int = 0,
    ) -> None:
        self.client = client
        self.name = name
        self.send = send
        self.id = id
        self.receipt: Receipt | None = None
        self.decided = False

    async def prepare(self) -> Self:
        """Send it; what the block's beginning does."""
        assert self.send is not None
        self.id = waiting_id(await self.send())
        return self

    async def commit(self) -> Receipt:
        """Let it into its queue, where the receipt says. Raises ExistsError if rolled back."""
        client = self.client
        call = later.commit_call(client.loop.create_future(), self.id, self.name)
        receipt: Receipt = await client.ask(call, client.timeout)
        self.receipt, self.decided = receipt, True
        return receipt

    async def rollback(self) -> bool:
        """Drop it; False if it was before. Raises ExistsError if it was committed."""
        client = self.client
        call = later.rollback_call(client.loop.create_future(), self.id)
        new: bool = await client.ask(call, client.timeout)
        self.decided = True
        return new

    async def __aenter__(self) -> Self:
        return await self.prepare()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.decided:
            return
        if kind is None:
            await self.commit()
            return
        with contextlib.suppress(PenstockError):
            await self.rollback()


class Parts:
    """The messages of an atomic send while it is put together."""

    def __init__(self, durability: Level) -> None:
        self.level = model.level_of(durability)
        self.parts: list[Part] = []
        self.receipts: list[Receipt] = []

    def send(
        self, queue: Queue | AsyncQueue, body: Bytes, *, delay: float | None = None,
        at: Moment | None = None, **carried: Unpack[Carried],
    ) -> None:
        """Add a message; it is stored when the block ends, with all others or not at all."""
        self.parts.append(later.part_of(queue.handle, model.as_bytes(body), carried, delay, at))

    def call(self, waiter: Any, session: Session) -> Any:
        return later.all_call(waiter, self.level, self.parts, session.next_sequence())


class Atomic(Parts):
    """Messages to any queues that are stored all or none when the block ends without an error."""

    def __init__(self, client: Client, durability: Level) -> None:
        super().__init__(durability)
        self.client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self.parts:
            self.receipts = self.client.ask(lambda session, reply: self.call(reply, session))


class AsyncAtomic(Parts):
    """The same for the asyncio client."""

    def __init__(self, client: AsyncClient, durability: Level) -> None:
        super().__init__(durability)
        self.client = client

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self.parts:
            call = self.call(self.client.loop.create_future(), self.client.session)
            self.receipts = await self.client.ask(call, self.client.timeout)


def waiting_id(told: Receipt | dict[str, Any]) -> int:
    """The id of a half that was stored, in a queue or for a topic."""
    if isinstance(told, dict):
        return later.id_number(str(told["id"]))
    receipt = told
    if receipt.pending is None:
        raise InvalidError("the server did not store this as a half")
    return receipt.pending
