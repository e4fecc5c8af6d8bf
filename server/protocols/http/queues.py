"""What HTTP asks about queues and messages, said in the broker's words."""

import base64
import binascii
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import msgspec

from penstock.engine._core import Batch, Consumer, Queue, SendReceipt
from penstock.engine.attributes import Attributes
from penstock.server._wire import HttpRequest
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker, crowded, throttled
from penstock.server.broker import asks
from penstock.server.broker.asks import Group
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.groups import Groups
from penstock.server.broker.later import Later
from penstock.server.broker.retry import told
from penstock.server.broker.temporary import Temporary
from penstock.server.broker.transaction import Transactions
from penstock.server.protocols.http import models
from penstock.server.protocols.http.batches import sending_of
from penstock.server.protocols.http.carried import header_text, into_fields, into_json
from penstock.server.protocols.http.later import receipt_reply
from penstock.server.protocols.http.problem import Response, reply

if TYPE_CHECKING:
    from penstock.engine._core import Durability
    from penstock.server.protocols.http.door import HttpDoor

T = TypeVar("T")
RECEIPT = 24
VERDICTS = ("done", "stale", "forged")
TAKE_BYTES = 4 << 20
WAIT_MS = 600_000
LOOKS = 4


class Call(NamedTuple):
    """One request with its target taken apart. more: a name behind the verb."""

    name: str
    query: dict[str, str]
    request: HttpRequest
    more: str = ""

    def read(self, model: type[T]) -> T:
        return msgspec.json.decode(self.request.body or b"{}", type=model)

    def number(self, name: str, default: int, limit: int) -> int:
        text = self.query.get(name, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > 19 or int(text) > limit:
            raise BrokerError(Kind.INVALID, f"{name} is a number up to {limit}", limit=limit)
        return int(text)


class Queues:
    """The handlers by target and method."""

    def __init__(self, door: "HttpDoor", broker: Broker, bridge: Bridge, durability: str) -> None:
        self.door = door
        self.broker = broker
        self.temporary = Temporary(broker)
        self.groups = Groups(broker, now_us)
        self.transactions = Transactions(broker)
        self.call = bridge.call
        self.durability = durability
        self.reached: dict[tuple[str, str], Consumer] = {}
        self.verbs: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
            "list": {"GET": self.list},
            "queue": {"GET": self.show, "PUT": self.create, "DELETE": self.delete},
            "messages": {"POST": self.send, "DELETE": self.purge},
            "unpurge": {"POST": self.unpurge},
            "receive": {"POST": self.receive},
            "confirm": {"POST": self.confirm},
            "release": {"POST": self.release},
            "extend": {"POST": self.extend},
            "peek": {"GET": self.peek},
            "groups": {
                "GET": self.named("group.show"), "PUT": self.named("group.set"),
                "DELETE": self.named("group.delete"),
            },
            "offsets": {"GET": self.named("offset.show"), "PUT": self.named("offset.commit")},
            "members": {
                "GET": self.named("member.list"), "PUT": self.named("member.join"),
                "DELETE": self.named("member.leave"),
            },
            "settings": {"GET": self.unnamed("queue.settings"), "PUT": self.unnamed("queue.set")},
            "redrive": {"POST": self.unnamed("redrive")},
        }

    async def list(self, call: Call) -> Response:
        ask = asks.converted("queue.list", dict(call.query), asks.Listing)
        names, more = asks.page(await self.call(self.broker.names, ask.prefix), ask)
        return reply(models.QueuesReply(names, more))

    async def show(self, call: Call) -> Response:
        return reply(await self.call(self.broker.show, call.name))

    async def create(self, call: Call) -> Response:
        if "idle_ms" in call.query:
            idle_ms = call.number("idle_ms", 0, self.broker.limits.temporary_ms)
            now_us = time.time_ns() // 1000
            await self.call(self.temporary.open, call.name, idle_ms, now_us)
            return reply(await self.call(self.broker.show, call.name))
        _, new = await self.call(self.broker.create, call.name)
        return reply(await self.call(self.broker.show, call.name), 201 if new else 200)

    async def delete(self, call: Call) -> Response:
        await self.call(self.broker.delete, call.name)
        assert self.door.hub is not None
        self.door.hub.routes.clear()
        return 204, b"", b""

    async def purge(self, call: Call) -> Response:
        keep_ms = call.number("keep_ms", 0, 1 << 53)
        return reply({"purged": await self.call(self.broker.purge, call.name, keep_ms)})

    async def unpurge(self, call: Call) -> Response:
        return reply(await self.call(self.broker.unpurge, call.name))

    async def send(self, call: Call) -> Response:
        queue = await self.queue(call)
        level = call.query.get("durability", self.durability)
        if level not in ("disk", "kernel"):
            raise BrokerError(Kind.INVALID, "durability is disk or kernel")
        request = call.request
        single, bodies, attributes, later = sending_of(request, self.broker.limits)
        if any(len(body) > self.broker.limits.message_bytes for body in bodies):
            limit = self.broker.limits.message_bytes
            raise BrokerError(Kind.TOO_LARGE, "a message is over its limit", limit=limit)
        joined(call, queue)
        self.broker.admit(queue.id, len(bodies), sum(map(len, bodies)), waits=later.waits)
        receipt = await self.call(
            self.store, queue, bodies, attributes, later, durability=cast("Durability", level),
            producer=request.producer, sequence=request.sequence,
        )  # fmt: skip
        routes = self.door.hub.routes if self.door.hub is not None else {}
        if single and (call.query.keys() <= {"durability"}):
            if len(routes) >= self.broker.limits.route_names:
                routes.clear()
            routes[request.url] = queue.id | (level == "disk") << 32
        count = 1 if single else len(bodies)
        return reply(receipt_reply(receipt, count), 201)

    def store(
        self, queue: Queue, bodies: Sequence[bytes], attributes: Sequence[Attributes | None] | None,
        later: Later, **options: Any,
    ) -> SendReceipt:
        """Store what a send holds, at once or to come."""
        when: dict[str, Any] = {"delay_ms": later.delay_ms, "due_us": later.due_us}
        if not later.half:
            return self.transactions.schedule.send_many(
                queue, bodies, attributes, **when, **options)
        if len(bodies) > 1:
            raise BrokerError(Kind.INVALID, "a half is sent by itself")
        return self.transactions.prepare(
            queue, bodies[0], attributes[0] if attributes else None, group=later.producer_group,
            check_back=later.check_back, **when, **options)

    async def receive(self, call: Call) -> Response:
        asked = call.read(models.ReceiveRequest)
        octets = call.request.accept == b"application/octet-stream"
        if octets and asked.max_messages != 1:
            raise BrokerError(Kind.INVALID, "octets are for one message at a time")
        group = await self.group(call, asked.group)
        queue = group.queue
        joined(call, queue)
        if asked.filter is not msgspec.UNSET:
            await self.call(
                self.groups.expect, Group(call.name, asked.group, asked.filter, asked.kind))
        deadline = time.monotonic() + asked.wait_ms / 1000
        looks = 0
        while True:
            looks += 1
            hub = self.door.hub
            assert hub is not None
            seen = hub.arrivals
            most, closed_ms = hub.gates.may_receive(
                self.broker.store, queue.id, group.id, asked.max_messages
            )
            batch = None
            if most:
                take: dict[str, Any] = {"max_bytes": TAKE_BYTES, "lease_ms": asked.lease_ms}
                # On the loop what is in memory; what may have to come from the disk, on a thread.
                if group.warm:
                    batch = group.receive(most, once=True, **take)
                if not batch:
                    batch = await self.call(group.receive, most, **take)
            left_ms = int((deadline - time.monotonic()) * 1000)
            if batch is not None and (
                len(batch) or left_ms <= 0 or hub.stopping or call.request.gone
            ):
                break
            if batch is None and (left_ms <= closed_ms or hub.stopping):
                raise throttled(closed_ms)
            # What is over a quota waits for time to pass, not for what arrives. seen tells of the
            # whole store: where others are busy it may never stand still, so looking has an end.
            await hub.wait(queue.id, group.id, min(left_ms, closed_ms or left_ms),
                           None if closed_ms or looks % LOOKS == 0 else seen, call.request)
        if len(batch):
            if call.request.gone:
                # Nobody reads the answer: the messages would be withheld until their lease ends.
                await self.call(group.release, batch.receipts, delay_ms=0)
            else:
                hub.gates.received(queue.id, len(batch))
            hub.took(queue.id, group.id)
        return octet_reply(queue, batch) if octets else reply(messages_reply(queue, batch, True))

    def named(self, do: str) -> Callable[[Call], Awaitable[Response]]:
        """Asks about the group that stands in the target."""

        async def ask(call: Call) -> Response:
            fields = fields_of(call, "queue", "group")
            fields |= {"queue": call.name, "group": group_of(call)}
            return reply(await self.call(self.groups, do, fields))

        return ask

    def unnamed(self, do: str) -> Callable[[Call], Awaitable[Response]]:
        """Asks about the queue that stands in the target."""

        async def ask(call: Call) -> Response:
            fields = fields_of(call, "queue") | {"queue": call.name}
            return reply(await self.call(self.groups, do, fields))

        return ask

    async def confirm(self, call: Call) -> Response:
        asked = call.read(models.ConfirmRequest)
        group = await self.group(call, asked.group)
        assert self.door.hub is not None
        return verdicts_reply(await self.door.hub.awaitable().confirm(
            group, receipts_of(asked.receipts), again=asked.again))

    async def release(self, call: Call) -> Response:
        asked = call.read(models.ReleaseRequest)
        group = await self.group(call, asked.group)
        receipts = receipts_of(asked.receipts)
        verdicts = await self.call(
            group.release, receipts, delay_ms=asked.delay_ms, reason=asked.reason)
        assert self.door.hub is not None
        self.door.hub.released()
        return verdicts_reply(verdicts)

    async def extend(self, call: Call) -> Response:
        asked = call.read(models.ExtendRequest)
        group = await self.group(call, asked.group)
        receipts = receipts_of(asked.receipts)
        return verdicts_reply(await self.call(group.extend, receipts, lease_ms=asked.lease_ms))

    async def peek(self, call: Call) -> Response:
        queue = await self.queue(call)
        joined(call, queue)
        offset = call.number("offset", 0, (1 << 63) - 1)
        count = call.number("max", 10, 1000)
        deadline = time.monotonic() + call.number("wait_ms", 0, WAIT_MS) / 1000
        hub = self.door.hub
        assert hub is not None
        while True:
            seen = hub.arrivals
            batch = await self.call(
                queue.read, offset=offset, max_messages=count, max_bytes=TAKE_BYTES
            )
            left_ms = int((deadline - time.monotonic()) * 1000)
            if len(batch) or left_ms <= 0 or hub.stopping:
                return reply(messages_reply(queue, batch, False))
            await hub.wait(queue.id, 0, left_ms, seen)

    async def queue(self, call: Call) -> Queue:
        return await self.call(self.broker.open, call.name, create=False)

    async def group(self, call: Call, name: str) -> Consumer:
        """The group of that name; one that was reached before is not looked up again."""
        group = self.reached.get((call.name, name))
        if group is None or not group.exists:
            group = await self.call(self.broker.group, await self.queue(call), name)
            if len(self.reached) >= self.broker.limits.route_names:
                self.reached.clear()
            self.reached[call.name, name] = group
        return group


def joined(call: Call, queue: Queue) -> None:
    """Raise THROTTLED if the connection is one too many for the queue's namespace."""
    closed_ms = call.request.join(queue.id)
    if closed_ms:
        raise crowded(closed_ms)


def now_us() -> int:
    return time.time_ns() // 1000


def messages_reply(queue: Queue, batch: Batch, leased: bool) -> models.MessagesReply:
    receipts = batch.receipts if leased else b""
    messages = []
    for at, body in enumerate(batch.tolist()):
        offset = int(batch.offsets[at])
        message = models.Message(
            f"{queue.id:08x}-{offset:016x}",
            offset,
            int(batch.timestamps[at]),
            int(batch.attempts[at]),
            receipt_text(receipts, at) if leased else None,
        )
        try:
            message.body = body.decode()
        except UnicodeDecodeError:
            message.body_base64 = body
        into_json(batch.attributes(at), message)
        origin = batch.origin(at)
        if origin is not None:
            message.origin = models.Origin(**told(origin))
        messages.append(message)
    return models.MessagesReply(messages)


def fields_of(call: Call, *named: str) -> dict[str, Any]:
    """The fields of the body, which names nothing that stands in the target."""
    fields = msgspec.json.decode(call.request.body or b"{}")
    if not isinstance(fields, dict) or fields.keys() & {*named}:
        raise BrokerError(
            Kind.INVALID, f"the body is a JSON object; {' and '.join(named)} stand in the target")
    return fields


def group_of(call: Call) -> str:
    """The name behind /groups/; "" if nothing stands there: the queue's own group."""
    if call.request.url.partition(b"?")[0].count(b"/") < 5:
        raise BrokerError(Kind.NOT_FOUND, "a group is named behind the verb")
    return call.more


def octet_reply(queue: Queue, batch: Batch) -> Response:
    """One message as it was sent, its numbers in the head; 204 if there is none."""
    if not len(batch):
        return 204, b"", b""
    head = (
        "Content-Type: application/octet-stream\r\n"
        f"Penstock-Offset: {int(batch.offsets[0])}\r\n"
        f"Penstock-Stored-Us: {int(batch.timestamps[0])}\r\n"
        f"Penstock-Attempts: {int(batch.attempts[0])}\r\n"
        f"Penstock-Receipt: {receipt_text(batch.receipts, 0)}\r\n"
    )
    origin = batch.origin(0)
    if origin is not None:
        head += "".join(
            f"Penstock-Origin-{name.title().replace('_', '-')}: {header_text(str(value))}\r\n"
            for name, value in told(origin).items())
    return 200, head.encode() + into_fields(batch.attributes(0)), bytes(batch[0])


def receipt_text(receipts: bytes, at: int) -> str:
    return base64.urlsafe_b64encode(receipts[at * RECEIPT : (at + 1) * RECEIPT]).decode()


def receipts_of(texts: "list[str]") -> bytes:
    try:
        decoded = [base64.b64decode(text, altchars=b"-_", validate=True) for text in texts]
    except (binascii.Error, ValueError) as error:
        raise BrokerError(Kind.INVALID, "a receipt is base64url") from error
    if not decoded or any(len(one) != RECEIPT for one in decoded):
        raise BrokerError(Kind.INVALID, f"a receipt has {RECEIPT} bytes, and one is needed")
    return b"".join(decoded)


def verdicts_reply(verdicts: Any) -> Response:
    return reply({"verdicts": [VERDICTS[verdict] for verdict in bytes(verdicts)]})
