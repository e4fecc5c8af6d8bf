"""What HTTP asks about messages that wait, said in the broker's words; and atomic sends."""

import time
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from penstock.engine._core import Queue
from penstock.engine.attributes import Attributes
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.cron import Crons
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.producers import Check
from penstock.server.broker.schedule import message_of, number_of
from penstock.server.broker.transaction import Transactions, group_checked
from penstock.server.protocols.http import later, models
from penstock.server.protocols.http.batches import body_of
from penstock.server.protocols.http.carried import from_json
from penstock.server.protocols.http.later import receipt_reply
from penstock.server.protocols.http.problem import Response, reply
from penstock.server.protocols.http.queues import Call, joined

if TYPE_CHECKING:
    from penstock.engine._core import Durability
    from penstock.server.protocols.http.door import HttpDoor

GATHER_S = 0.02         # a turn of the broker asks one after the other
LOOK_S = 0.25           # so often a poll looks whether the server stops
Part = tuple[Queue, bytes, Attributes | None, int]
Handler = Callable[[Call, str], Awaitable[Response]]


class MoveRequest(Struct, forbid_unknown_fields=True):
    """Exactly one of delay_ms, from now, and due_us, µs since 1970."""

    delay_ms: Annotated[int, Meta(ge=0)] | None = None
    due_us: Annotated[int, Meta(ge=0)] | None = None


class RollbackReply(Struct):
    """rolled_back is false if it was before."""

    id: str
    rolled_back: bool


class ChecksRequest(Struct, forbid_unknown_fields=True):
    """Be a producer of a group for wait_ms, or until something is asked."""

    group: Annotated[str, Meta(max_length=255)] = ""
    max_messages: Annotated[int, Meta(ge=1, le=1000)] = 100
    wait_ms: Annotated[int, Meta(ge=0, le=600_000)] = 20_000


class AtomicMessage(models.SendRequest, forbid_unknown_fields=True, kw_only=True):
    """One message, and the queue it is for."""

    queue: Annotated[str, Meta(max_length=128)]


class AtomicRequest(Struct, forbid_unknown_fields=True):
    """Messages that are stored all or none."""

    messages: list[AtomicMessage]
    durability: Literal["disk", "kernel"] | None = None


class AtomicReply(Struct):
    """A receipt for each message, in order."""

    receipts: list[models.SendReply]


class Poll:
    """A producer that asks by long poll: it takes checks while it waits.

    Invariant: found grows only while open, so nothing is taken that is not answered.
    """

    def __init__(self, loop: Any, most: int) -> None:
        self.loop = loop
        self.most = most
        self.found: list[Check] = []
        self.open = True
        self.lock = Lock()
        self.asked = loop.create_future()

    def ask(self, check: Check) -> bool:
        """Called by the broker, on a thread of its own."""
        with self.lock:
            if not self.open or len(self.found) >= self.most:
                return False
            self.found.append(check)
            if len(self.found) == 1:
                self.loop.call_soon_threadsafe(self.asked.set_result, None)
            return True

    def close(self) -> list[Check]:
        """Take no more; what was asked."""
        with self.lock:
            self.open = False
            return self.found

    async def pause(self, seconds: float) -> None:
        """Come back after some time, or when the first was asked."""
        future = self.loop.create_future()

        def end(_: Any = None) -> None:
            if not future.done():
                future.set_result(None)

        self.loop.call_later(seconds, end)
        if not self.found:
            self.asked.add_done_callback(end)
        await future


class WaitingTargets:
    """The answers to /v1/pending[/ID[/commit or /rollback]], /v1/checks, /v1/atomic, and
    /v1/schedules[/NAME[/pause or /resume]]."""

    def __init__(self, door: "HttpDoor", broker: Broker, bridge: Bridge, durability: str) -> None:
        self.door = door
        self.broker = broker
        self.transactions = Transactions(broker)
        self.schedule = self.transactions.schedule
        self.crons = Crons(broker)
        self.call = bridge.call
        self.durability = durability
        # By the target without the id, then by method.
        self.verbs: dict[str, dict[str, Handler]] = {
            "pending": {"GET": self.listed},
            "pending/ID": {"GET": self.get, "PATCH": self.move, "DELETE": self.cancel},
            "pending/ID/commit": {"POST": self.commit},
            "pending/ID/rollback": {"POST": self.rollback},
            "checks": {"POST": self.checks},
            "atomic": {"POST": self.atomic},
            "schedules": {"GET": lambda _, name: self.cron("list", name)},
            "schedules/ID": {
                "GET": lambda _, name: self.cron("show", name), "PUT": self.plan,
                "DELETE": lambda _, name: self.cron("remove", name)},
            "schedules/ID/pause": {"POST": lambda _, name: self.cron("pause", name)},
            "schedules/ID/resume": {"POST": lambda _, name: self.cron("resume", name)},
        }

    def handlers(self, parts: list[str]) -> dict[str, Handler]:
        """Those for a target taken apart at the slashes, none if it is not ours."""
        if parts[:2] != ["", "v1"]:
            return {}
        return self.verbs.get("/".join([*parts[2:3], *(["ID"] if len(parts) > 3 else []),
                                        *parts[4:]]), {})

    async def listed(self, call: Call, _: str) -> Response:
        return reply(await self.call(self.schedule, "pending.list", dict(call.query)))

    async def get(self, call: Call, id: str) -> Response:
        return reply(await self.call(self.schedule, "pending.get", {"id": id, **call.query}))

    async def cancel(self, _: Call, id: str) -> Response:
        return reply(await self.call(self.schedule, "pending.cancel", {"id": id}))

    async def move(self, call: Call, id: str) -> Response:
        asked = call.read(MoveRequest)
        fields = {"id": id, "delay_ms": asked.delay_ms, "due_us": asked.due_us}
        return reply(await self.call(self.schedule, "pending.move", fields))

    async def commit(self, _: Call, id: str) -> Response:
        return reply(receipt_reply(await self.call(self.transactions.commit, number_of(id))))

    async def rollback(self, _: Call, id: str) -> Response:
        new = await self.call(self.transactions.rollback, number_of(id))
        return reply(RollbackReply(id, new))

    async def cron(self, do: str, name: str) -> Response:
        fields = {"name": name} if name else {}
        told = await self.call(self.crons, f"schedule.{do}", fields)
        return (204, b"", b"") if do == "remove" else reply(told)

    async def plan(self, call: Call, name: str) -> Response:
        fields = msgspec.json.decode(call.request.body or b"{}")
        if not isinstance(fields, dict) or "name" in fields:
            raise BrokerError(Kind.INVALID, "a JSON object, the schedule's name in the target")
        return reply(await self.call(self.crons, "schedule.set", {**fields, "name": name}))

    async def checks(self, call: Call, _: str) -> Response:
        """What a producer of the group is asked, as soon as there is something."""
        asked = call.read(ChecksRequest)
        hub = self.door.hub
        assert hub is not None
        deadline = time.monotonic() + asked.wait_ms / 1000
        poll = Poll(hub.loop, asked.max_messages)
        place = self.broker.producers.join(group_checked(asked.group), poll.ask)
        try:
            while not poll.found and not hub.stopping:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                await poll.pause(min(LOOK_S, left_s))
            if poll.found:
                await poll.pause(GATHER_S)
        finally:
            place.leave()
            found = poll.close()
        return reply({"checks": [check_shown(check) for check in found]})

    async def atomic(self, call: Call, _: str) -> Response:
        asked = call.read(AtomicRequest)
        level = asked.durability or self.durability
        messages = await self.call(self.parts, asked.messages)
        for queue in {queue.id: queue for queue, *_ in messages}.values():
            joined(call, queue)
        self.transactions.admit(messages)
        receipts = await self.call(
            self.transactions.send_all, messages, cast("Durability", level),
            producer=call.request.producer, sequence=call.request.sequence)
        return reply(AtomicReply([receipt_reply(one) for one in receipts]), 201)

    def parts(self, messages: list[AtomicMessage]) -> list[Part]:
        parts = []
        for one in messages:
            when = later.from_json(one)
            if when.half:
                raise BrokerError(Kind.INVALID, "no half is in an atomic send")
            queue = self.broker.open(one.queue, create=False)
            due_us = self.schedule.due_us(when.delay_ms, when.due_us)
            parts.append((queue, body_of(one), from_json(one), due_us))
        return parts


def check_shown(check: Check) -> dict[str, Any]:
    """A half that is asked about, as JSON."""
    told = message_of(check.body, check.ext, check.attributed, len(check.body))
    return {
        "id": check.text_id, "queue": check.target, "group": check.group, "checks": check.checks,
        "stored_us": check.stored_us, **told,
    }
