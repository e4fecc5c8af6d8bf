"""A queue and its messages, as the blocking client sees them."""

from __future__ import annotations

import time as clock
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, Unpack

from penstock import model
from penstock.attributes import Carried
from penstock.halves import Half, Prepared
from penstock.holding import consume
from penstock.later import Moment, later_of
from penstock.membership import Membership
from penstock.model import Bytes, Level, Sought, as_bytes
from penstock.request import Handle, Reply
from penstock.session import Session
from penstock.wire import ATTRIBUTED, Delivered, Receipt

if TYPE_CHECKING:
    from penstock.sync import Client


class Message(model.MessageFields):
    """A message and what can be done with it."""

    __slots__ = ("_client",)

    def __init__(self, client: Client, delivered: Delivered) -> None:
        super().__init__(delivered)
        self._client = client

    def confirm(self) -> None:
        """The message is done and will not come again; raises StaleError if the lease is lost."""
        model.raise_for(self._client.confirm([self]))

    def release(self, delay: float | None = None, reason: str = "") -> None:
        """The message is given back; see the client's release."""
        model.raise_for(self._client.release([self], delay, reason))

    def reply(
        self, body: Bytes, durability: Level = "disk", **carried: Unpack[Carried]
    ) -> Receipt:
        """Answer a message that was sent with client.request; confirming it is another thing.

        Raises QueueNotFoundError when nobody waits for a reply any more.
        """
        return self._client.replies.reply(self, body, durability, carried)

    def extend(self, lease: float) -> None:
        """The lease ends lease seconds from now."""
        model.raise_for(self._client.extend([self], lease))


class Queue:
    """A queue of the server, or one group of it."""

    def __init__(self, client: Client, handle: Handle) -> None:
        self.client = client
        self.name = handle.name
        self.group_name = handle.group_name
        self.handle = handle
        self.membership: Membership | None = None

    def send(
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
        before, flags = as_bytes(ext), 0
        if carried:
            before, flags = model.carried_bytes(before, carried), ATTRIBUTED
        if delay is not None or at is not None:
            more, when = later_of(delay, at)
            before, flags = when + before, flags | more
        return self.send_as(as_bytes(body), durability, flags, before)

    def send_as(self, body: bytes, durability: Level, flags: int, before: bytes) -> Receipt:
        """The receipt of one message, its flags and what stands before its body as on the wire."""
        reply, level = Reply(), model.level_of(durability)
        handle, client = self.handle, self.client
        client.issue(lambda session: session.send(reply, handle, level, before, body, flags))
        receipt: Receipt = client.wait(reply, client.timeout, "SEND")
        return receipt

    def transaction(
        self, body: Bytes, durability: Level = "disk", *, producer_group: str = "",
        first_check: float = 6.0, check_every: float = 30.0, checks: int = 15,
        delay: float | None = None, at: Moment | None = None, **carried: Unpack[Carried],
    ) -> Half:
        """A message that nobody sees unless the block succeeds: with queue.transaction(b"x"): …

        A producer that dies in the block is asked for, or any other of producer_group is: see
        Client.on_check. Nobody answers checks times: it is rolled back.
        """
        prepared = Prepared.of(
            body, durability, producer_group, first_check, check_every, checks, delay, at, carried)
        return Half(self.client, self.name, lambda: self.send_as(*prepared))

    def send_each(
        self, bodies: Iterable[Bytes], durability: Level = "disk", window: int = model.EACH_WINDOW
    ) -> list[Receipt]:
        """A receipt per message: each is stored by itself, window of them are on their way."""
        level, handle, client = model.level_of(durability), self.handle, self.client
        receipts: list[Receipt] = []
        waiting: list[Reply] = []

        def ask(session: Session) -> None:
            for body in parts:
                reply = Reply()
                session.send(reply, handle, level, b"", body)
                waiting.append(reply)

        for parts in model.chunks(map(as_bytes, bodies), max(1, window)):
            client.issue(ask)
            receipts += [client.wait(reply, client.timeout, "SEND") for reply in waiting]
            waiting.clear()
        return receipts

    def send_many(
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
        parts = list(map(as_bytes, bodies))
        packed = model.packed_each(attributes)
        receipt: Receipt = self.client.ask(
            lambda session, reply: model.batch_call(
                reply,
                self.handle,
                durability,
                session.next_sequence(),
                parts,
                session.frame_bytes,
                packed,
                when,
            )
        )
        return receipt

    def receive(
        self,
        max_messages: int = 1,
        wait: float = 0.0,
        lease: float = 30.0,
        max_bytes: int = model.RECEIVE_BYTES,
    ) -> list[Message]:
        """Up to max_messages under a lease; empty when none came within wait seconds."""
        end = clock.monotonic() + wait
        while True:
            part = self._kept(wait)
            found = self._receive(max_messages, part, lease, max_bytes)
            wait = end - clock.monotonic()
            if found or part <= 0 or wait <= 0:
                return found

    def _kept(self, wait: float) -> float:
        """How long to wait at once; a member that goes when it is idle says that it is not."""
        if self.membership is None:
            return wait
        if self.membership.due(clock.monotonic()):
            self.client.join_member(*self.membership.names, idle=self.membership.idle)
        return self.membership.longest(wait)

    def _receive(
        self, max_messages: int, wait: float, lease: float, max_bytes: int
    ) -> list[Message]:
        lease_ms, wait_ms = model.milliseconds(lease), model.milliseconds(wait)
        client = self.client
        found = client.ask(
            lambda _, reply: model.receive_call(
                reply, self.handle, max_messages, lease_ms, wait_ms, max_bytes
            ),
            wait,
        )
        return [Message(client, delivered) for delivered in found]

    def peek(
        self,
        at: model.Place | None = None,
        *,
        offset: int | None = None,
        time: float | None = None,
        max_messages: int = 1,
        wait: float = 0.0,
    ) -> list[Message]:
        """Messages from a place on, without a lease: they cannot be confirmed."""
        if at is None and offset is None and time is None:
            at = "earliest"
        kind, value = model.place_of(at, offset, None if time is None else model.micros(time))
        wait_ms = model.milliseconds(wait)
        found = self.client.ask(
            lambda _, reply: model.read_call(
                reply, self.handle, kind, value, max_messages, wait_ms
            ),
            wait,
        )
        return [Message(self.client, delivered) for delivered in found]

    def seek(
        self,
        to: model.Place | None = None,
        *,
        offset: int | None = None,
        time: float | None = None,
    ) -> Sought:
        """Where the group stands now: at a place, an offset, or a time in seconds since 1970."""
        kind, value = model.place_of(to, offset, None if time is None else model.micros(time))
        sought: Sought = self.client.ask(
            lambda _, reply: model.seek_call(reply, self.handle, kind, value)
        )
        return sought

    def group(self, name: str) -> Queue:
        """The queue as a group of that name sees it: with a position and leases of its own."""
        return self.client.queue(self.name, group=name)

    def member(
        self,
        name: str,
        group: str = "all",
        *,
        start: int | model.Place = "latest",
        idle: float = 0.0,
    ) -> Queue:
        """The queue as one member of a group that broadcasts: each member gets everything.

        A new member begins at start. idle: it is gone when nobody received as it for so long; 0: it
        lasts, and goes on where it was whenever somebody is it again.
        """
        membership = Membership(self.name, group, name, idle)
        self.client.join_member(self.name, group, name, start=start, idle=idle)
        found = self.client.queue(self.name, group=membership.group, create=False)
        found.membership = membership
        return found

    def consume(
        self, *, concurrency: int = 64, lease: float = 30.0, wait: float = 20.0
    ) -> Generator[Message, None, None]:
        """Messages for a loop without an end: each is confirmed when the loop asks for the next.

        One whose body raises or breaks is given back, with those received and not begun: at most
        concurrency are held at a time. A thread extends their leases meanwhile. Several threads
        may each have a loop of their own.
        """
        return consume(self, concurrency, lease, wait)
