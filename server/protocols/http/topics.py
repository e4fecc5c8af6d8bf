"""What HTTP asks about topics, said in the broker's words."""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
from msgspec import Meta, Struct

from penstock.server.bridge import Bridge
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker, throttled
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.groups import Groups
from penstock.server.broker.topic_facts import partition_queue
from penstock.server.broker.topic_later import LaterTopics
from penstock.server.broker.topic_settings import TopicSettings
from penstock.server.protocols.http import models
from penstock.server.protocols.http.batches import sending_of
from penstock.server.protocols.http.problem import Response, reply
from penstock.server.protocols.http.queues import (
    Call,
    joined,
    messages_reply,
    now_us,
    receipts_of,
    verdicts_reply,
)

if TYPE_CHECKING:
    from penstock.engine._core import Batch, Consumer, Durability, Queue
    from penstock.server.protocols.http.door import HttpDoor

# A receiver of several partitions waits at one of them, and looks at the others so often.
LOOK_MS = 50


class SubscribeRequest(Struct, forbid_unknown_fields=True):
    """What the queue wants, and from when on: latest, earliest or µs since 1970, or an offset."""

    kind: Literal["tag", "routing", "sql"] | None = None
    source: str = ""
    start: Literal["latest", "earliest"] | Annotated[int, Meta(ge=0)] = "latest"
    offset: Annotated[int, Meta(ge=0)] | None = None


class Subscription(Struct):
    queue: str
    kind: str | None
    source: str


class Partition(Struct):
    id: int
    first: int
    next: int


class TopicReply(Struct, omit_defaults=True):
    name: str
    partitions: int
    subscriptions: list[Subscription]
    messages: list[Partition] = msgspec.field(default_factory=list)
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    groups: dict[str, Any] = msgspec.field(default_factory=dict)


class TopicsReply(Struct):
    topics: list[str]
    next: str | None = None


class PublishReply(Struct):
    """queues: how many subscribed queues have the message besides the partition.

    waits: it is fanned out when it is due, and id is for /v1/pending.
    """

    id: str
    partition: int | None
    offset: int | None
    queues: int
    durability: Literal["disk", "kernel"]
    duplicate: bool = False
    waits: bool = False


class TopicMessages(Struct):
    """Messages of one partition."""

    partition: int
    messages: list[models.Message]


class TopicTargets:
    """The handlers by depth of the target and method."""

    def __init__(self, door: "HttpDoor", broker: Broker, bridge: Bridge, durability: str) -> None:
        self.door = door
        self.later = LaterTopics(broker)
        self.topics = self.later.topics
        self.settings = TopicSettings(self.topics)
        self.groups = Groups(broker, now_us)
        self.call = bridge.call
        self.durability = durability
        self.turn = 0
        self.verbs: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
            "list": {"GET": self.list},
            "topic": {"GET": self.show, "PUT": self.create, "DELETE": self.delete},
            "messages": {"POST": self.send},
            "receive": {"POST": self.receive},
            "confirm": {"POST": self.confirm},
            "release": {"POST": self.release},
            "subscriptions": {"PUT": self.subscribe, "DELETE": self.unsubscribe},
            "settings": {"GET": self.setting("topic.settings"), "PUT": self.setting("topic.set")},
            "groups": {"GET": self.setting("topic.group"), "PUT": self.setting("topic.group")},
        }

    def handlers(self, parts: list[str]) -> dict[str, Callable[[Call], Awaitable[Response]]]:
        """Those for /v1/topics[/topic[/verb[/queue]]], the target taken apart at the slashes."""
        verb = parts[4] if len(parts) > 4 else ""
        if len(parts) > 6 or (verb in ("subscriptions", "groups")) != (len(parts) == 6):
            return {}
        depth = "list" if len(parts) == 3 else "topic" if len(parts) == 4 else verb
        return self.verbs.get(depth, {})

    async def list(self, call: Call) -> Response:
        ask = asks.converted("topic.list", dict(call.query), asks.Listing)
        names, more = asks.page(await self.call(self.topics.names, ask.prefix), ask)
        return reply(TopicsReply(names, more))

    async def show(self, call: Call) -> Response:
        return reply(await self.call(self.topics.show, call.name))

    async def create(self, call: Call) -> Response:
        """A topic that is there gets as many partitions as are asked for."""
        partitions = call.number("partitions", 1, self.topics.limits.partitions)
        found, new = await self.call(self.topics.create, call.name, partitions)
        if "partitions" in call.query and found["partitions"] != partitions:
            found = await self.call(self.topics.grow, call.name, partitions)
        return reply(found, 201 if new else 200)

    async def delete(self, call: Call) -> Response:
        await self.call(self.topics.delete, call.name)
        return 204, b"", b""

    async def send(self, call: Call) -> Response:
        level = call.query.get("durability", self.durability)
        if level not in ("disk", "kernel"):
            raise BrokerError(Kind.INVALID, "durability is disk or kernel")
        limits = self.topics.limits
        _, bodies, attributes, later = sending_of(call.request, limits)
        if len(bodies) != 1:
            raise BrokerError(Kind.INVALID, "a topic takes one message at a time")
        if len(bodies[0]) > limits.message_bytes:
            limit = limits.message_bytes
            raise BrokerError(Kind.TOO_LARGE, "a message is over its limit", limit=limit)
        partition = call.number("partition", 0, limits.partitions)
        joined(call, await self.call(self.topics.home, call.name))
        await self.call(
            self.topics.admit, call.name, 1, len(bodies[0]), waits=later.waits)
        sent = await self.call(
            self.later.send, call.name, bodies[0], attributes[0] if attributes else None,
            partition=partition if "partition" in call.query else None,
            delay_ms=later.delay_ms, due_us=later.due_us,
            half=later.check_back if later.half else None, producer_group=later.producer_group,
            durability=cast("Durability", level), producer=call.request.producer,
            sequence=call.request.sequence,
        )  # fmt: skip
        return reply(sent._asdict(), 201)

    def setting(self, do: str) -> Callable[[Call], Awaitable[Response]]:
        """What is set for the topic, or for a group of it, that stands in the target."""

        async def ask(call: Call) -> Response:
            fields: dict[str, Any] = {}
            if call.request.method == b"PUT":
                fields = msgspec.json.decode(call.request.body or b"{}")
            if not isinstance(fields, dict) or fields.keys() & {"name", "queue", "group"}:
                text = "the body is a JSON object; names stand in the target"
                raise BrokerError(Kind.INVALID, text)
            named = {"name": call.name} | ({"group": call.more} if do == "topic.group" else {})
            return reply(await self.call(self.settings, do, {**fields, **named}))

        return ask

    async def receive(self, call: Call) -> Response:
        asked = call.read(models.ReceiveRequest)
        deadline = time.monotonic() + asked.wait_ms / 1000
        queues = await self.call(self.topics.partitions, call.name)
        joined(call, queues[0])
        await self.call(self.groups.expect, asks.Group(
            partition_queue(call.name, 0), asked.group, asked.filter, asked.kind))
        hub = self.door.hub
        assert hub is not None
        while True:
            self.turn += 1
            rooms: list[tuple[int, int]] = []

            def room(queue: int, group: int) -> int:
                rooms.append(hub.gates.may_receive(
                    self.topics.store, queue, group, asked.max_messages))
                return rooms[-1][0]

            found = await self.call(
                self.topics.receive, call.name, asked.group, asked.max_messages,
                first=self.turn % len(queues), lease_ms=asked.lease_ms, room=room,
            )  # fmt: skip
            left_ms = int((deadline - time.monotonic()) * 1000)
            if found is not None:
                return await self.given(call, queues, asked.group, *found)
            # Over a quota at each partition: then what arrives changes nothing.
            closed_ms = min((ms for _, ms in rooms), default=0)
            if closed_ms and (left_ms <= closed_ms or hub.stopping):
                raise throttled(closed_ms)
            if left_ms <= 0 or hub.stopping or call.request.gone:
                return reply(TopicMessages(0, []))
            home = queues[0]
            group = await self.call(self.topics.broker.group, home, asked.group)
            wait_ms = left_ms if len(queues) == 1 else min(left_ms, LOOK_MS)
            await hub.wait(home.id, group.id, min(wait_ms, closed_ms or wait_ms),
                           request=call.request)
            queues = await self.call(self.topics.partitions, call.name)

    async def given(
        self, call: Call, queues: "Sequence[Queue]", group: str, number: int, batch: "Batch"
    ) -> Response:
        """What was taken of a partition, or given back if nobody reads the answer."""
        hub = self.door.hub
        assert hub is not None
        taker = await self.call(self.topics.broker.group, queues[number], group)
        if call.request.gone:
            await self.call(taker.release, batch.receipts, delay_ms=0)
        else:
            hub.gates.received(queues[number].id, len(batch))
        hub.took(queues[number].id, taker.id)
        return reply(TopicMessages(number, messages_reply(queues[number], batch, True).messages))

    async def confirm(self, call: Call) -> Response:
        asked = call.read(models.ConfirmRequest)
        group = await self.group(call, asked.group)
        receipts = receipts_of(asked.receipts)
        return verdicts_reply(await self.call(group.confirm, receipts, again=asked.again))

    async def release(self, call: Call) -> Response:
        asked: Any = call.read(models.ReleaseRequest)
        group = await self.group(call, asked.group)
        receipts = receipts_of(asked.receipts)
        verdicts = await self.call(
            group.release, receipts, delay_ms=asked.delay_ms, reason=asked.reason)
        assert self.door.hub is not None
        self.door.hub.released()
        return verdicts_reply(verdicts)

    async def group(self, call: Call, name: str) -> "Consumer":
        """The group at the first partition: a receipt says itself to which it belongs."""
        queues = await self.call(self.topics.partitions, call.name)
        return await self.call(self.topics.broker.group, queues[0], name)

    async def subscribe(self, call: Call) -> Response:
        asked = call.read(SubscribeRequest)
        return reply(
            await self.call(
                self.topics.subscribe, call.name, call.more, kind=asked.kind,
                source=asked.source, start=asked.start, offset=asked.offset,
            ),
            201,
        )  # fmt: skip

    async def unsubscribe(self, call: Call) -> Response:
        await self.call(self.topics.unsubscribe, call.name, call.more)
        return 204, b"", b""
