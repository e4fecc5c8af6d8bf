"""Messages that wait for their time: sent with a delay, listed, read, cancelled, moved."""

import base64
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.engine._core import Inspector, Queue, SendReceipt
from penstock.engine.attributes import Attributes, unpack
from penstock.engine.errors import EngineError, PendingNotFoundError, QueueNotFoundError
from penstock.engine.pending import Pending
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker, checked, refusing
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.topic_facts import LATER, later_queue

if TYPE_CHECKING:
    from penstock.engine._core import Durability

Answer = dict[str, Any]
FOREVER = 1 << 57
CURSOR = re.compile(r"([0-9a-f]{1,15})\.([0-9a-f]{1,15})", re.ASCII)


class Schedule:
    """What is delayed, and what of halves can be asked of any message that waits.

    send and send_many are for adapters; called as schedule(do, fields) it answers the asks
    pending.list, pending.get, pending.cancel and pending.move, which every door has.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.limits = broker.limits
        self.pending = broker.store.pending
        self.clock = Inspector(broker.store)
        self.asks: dict[str, tuple[type[Any], Callable[[Any], Answer]]] = {
            "pending.list": (asks.Waiting, self.list),
            "pending.get": (asks.WaitingMessage, self.get),
            "pending.cancel": (asks.WaitingMessage, self.cancel),
            "pending.move": (asks.WaitingMove, self.move),
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer. Raises BrokerError; INVALID says which field is wrong."""
        model, run = self.asks[do]
        try:
            return run(msgspec.convert(fields, model, strict=False))
        except msgspec.ValidationError as error:
            raise BrokerError(Kind.INVALID, f"{do}: {error}") from error
        except EngineError as error:
            raise refusal(error) from error

    def now_us(self) -> int:
        """The store's clock, µs since 1970."""
        return self.clock.now_us()

    def due_us(self, delay_ms: int | None, due_us: int | None) -> int:
        """When a message falls due that is sent now; 0: it does not wait. A time that is over is
        no delay. Raises INVALID for both, for a delay under 0, for more than limits.delay_ms."""
        if delay_ms is not None and due_us is not None:
            raise BrokerError(Kind.INVALID, "a delay or a time, not both")
        now_us = self.now_us()
        if delay_ms is not None:
            if delay_ms < 0:
                raise BrokerError(Kind.INVALID, f"a delay is 0 ms or more, not {delay_ms}")
            due_us = now_us + delay_ms * 1000 if delay_ms else 0
        if due_us is None or due_us == 0:
            return 0
        limit = self.limits.delay_ms
        if not 0 <= due_us <= now_us + limit * 1000:
            raise BrokerError(
                Kind.INVALID, f"a message waits up to {limit} ms, about ten years", limit=limit)
        return due_us

    @refusing
    def send(
        self, queue: Queue, body: bytes, attributes: Attributes | None = None, *,
        delay_ms: int | None = None, due_us: int | None = None,
        durability: "Durability | None" = None, producer: int = 0, sequence: int = 0,
    ) -> SendReceipt:
        """Store one message that gets into its queue after delay_ms, or at due_us (since 1970).

        The receipt's pending is its id until then, None if it did not have to wait; its offset
        is known when it is in the queue. Retention, order by key and stored_us count from then.
        Raises as due_us(), NOT_FOUND, TOO_LARGE.
        """
        due = self.due_us(delay_ms, due_us)
        self.fits([body])
        return queue.append(
            body, attributes=attributes, durability=durability, producer=producer,
            sequence=sequence, due_us=due)

    @refusing
    def send_many(
        self, queue: Queue, bodies: Sequence[bytes],
        attributes: Sequence[Attributes | None] | None = None, *,
        delay_ms: int | None = None, due_us: int | None = None,
        durability: "Durability | None" = None, producer: int = 0, sequence: int = 0,
    ) -> SendReceipt:
        """The same for a batch, stored as one; the receipt's pending is the id of its first."""
        due = self.due_us(delay_ms, due_us)
        self.fits(bodies)
        return queue.append_many(
            bodies, attributes=attributes, durability=durability, producer=producer,
            sequence=sequence, due_us=due)

    def fits(self, bodies: Sequence[bytes]) -> None:
        """Raise TOO_LARGE for a body over its limit."""
        limit = self.limits.message_bytes
        if any(len(body) > limit for body in bodies):
            raise BrokerError(Kind.TOO_LARGE, "a message is over its limit", limit=limit)

    def list(self, ask: asks.Waiting) -> Answer:
        """What waits, in the order in which it falls due; next is the cursor to go on with.

        due_us of a half is when its producers are asked next. What comes, moves or is cancelled
        while a list is read may be missing or come twice; everything else is there once.
        """
        queue = self.broker.open(ask.queue, create=False) if ask.queue else None
        if ask.topic:
            if ask.queue:
                raise BrokerError(Kind.INVALID, "a queue or a topic, not both")
            try:
                queue = self.broker.store.queue(later_queue(checked(ask.topic)), create=False)
            except QueueNotFoundError:
                return {"messages": [], "next": None}      # nothing ever waited for it
        found = self.pending.list(
            queue, low_us=min(ask.since_us, FOREVER),
            high_us=FOREVER if ask.until_us is None else min(ask.until_us, FOREVER),
            limit=ask.limit, state=ask.state, after=after_of(ask.cursor) if ask.cursor else None)
        rows = []
        for one in found:
            try:
                rows.append(row_of(one, self.id_of(one)))
            except QueueNotFoundError:
                continue  # deleted meanwhile, and its messages with it
        last = found[-1] if len(found) >= ask.limit else None
        return {
            "messages": rows, "next": f"{last.due_us:x}.{last.position:x}" if last else None}

    def get(self, ask: asks.WaitingMessage) -> Answer:
        """One message that waits, body and all. Raises NOT_FOUND if it waits no more."""
        one = self.one(ask.id)
        body, ext, attributed = self.pending.read(one.id)
        return row_of(one, ask.id) | message_of(body, ext, attributed, ask.body_bytes)

    def cancel(self, ask: asks.WaitingMessage) -> Answer:
        """Drop a delayed message; cancelled is false if it was before.

        Raises NOT_FOUND, EXISTS if it is in its queue already, INVALID for a half.
        """
        return {"id": ask.id, "cancelled": self.pending.cancel(number_of(ask.id))}

    def move(self, ask: asks.WaitingMove) -> Answer:
        """Give a delayed message another time; its id stays. Raises as cancel and due_us do."""
        if (ask.delay_ms is None) == (ask.due_us is None):
            raise BrokerError(Kind.INVALID, "exactly one of delay_ms and due_us is needed")
        due = self.due_us(ask.delay_ms, ask.due_us) or self.now_us()
        self.pending.move(number_of(ask.id), due)
        return {"id": ask.id, "due_us": due}

    def one(self, id: str) -> Pending:
        """A message that waits, by its id. Raises NOT_FOUND."""
        found = self.pending.get(number_of(id))
        if found is None:
            raise refusal(PendingNotFoundError(f"no message {id} waits: it never did, or came"))
        return found

    def id_of(self, one: Pending) -> str:
        """The id that the door shows: as SendReceipt.id has it."""
        return f"{self.broker.store.queue(one.queue, create=False).id:08x}-p{one.id:015x}"


def number_of(id: str) -> int:
    """The store's number of a waiting message's id. Raises INVALID for another text."""
    found = asks.WAITING_ID.fullmatch(id)
    if found is None:
        raise BrokerError(
            Kind.INVALID,
            f"{id!r} is no id of a message that waits, as in 00000001-p000000100001000")
    return int(found[2], 16)


def after_of(cursor: str) -> Pending:
    """Where a list goes on. Raises INVALID."""
    found = CURSOR.fullmatch(cursor)
    if found is None:
        raise BrokerError(Kind.INVALID, "the cursor is none that a list gave")
    return Pending(0, "", int(found[1], 16), "delayed", 0, 0, int(found[2], 16))


def row_of(one: Pending, id: str) -> Answer:
    """What a list says of one message."""
    row: Answer = {
        "id": id, "queue": one.queue, "state": one.state, "due_us": one.due_us,
        "stored_us": one.stored_us,
    }
    topic, later, _ = one.queue.partition(LATER)
    if later:
        row |= {"queue": "", "topic": topic}
    if one.state == "half":
        row["checks"] = one.checks
    return row


def message_of(body: bytes, ext: bytes, attributed: bool, most: int) -> Answer:
    """A message's body, up to most bytes of it, and what it carries."""
    told: Answer = {"size": len(body)}
    carried = unpack(ext) if attributed else Attributes()
    names = {name: name for name in (
        "tag", "key", "routing_key", "reply_to", "correlation", "producer_group")}
    for name, field in (names | {"message_id": "id"}).items():
        if value := getattr(carried, field):
            told[name] = value
    if carried.properties:
        told["properties"] = dict(carried.properties)
    if len(body) > most:
        body, told["cut"] = body[:most], True
    try:
        told["body"] = body.decode()
    except UnicodeDecodeError:
        told["body_base64"] = base64.b64encode(body).decode()
    return told
