"""What has to wait for a topic: kept in one queue of the topic, fanned out when it is due."""

import sys
import traceback
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from penstock.engine._core import (
    Batch,
    Consumer,
    Queue,
    await_ready,
    known_message,
    ready_groups,
    spread,
)
from penstock.engine.attributes import Attributes
from penstock.engine.errors import (
    ConflictError,
    EngineError,
    InvalidError,
    QueueNotFoundError,
)
from penstock.server.broker.broker import Broker, refusing
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.schedule import Schedule
from penstock.server.broker.topic import ATTEMPTS, Topics
from penstock.server.broker.topic_facts import Sent, Topic, later_queue, partition_queue
from penstock.server.broker.transaction import CheckBack, Transactions

if TYPE_CHECKING:
    from penstock.engine._core import Durability, SendReceipt

AT_ONCE = 256
LEASE_MS = 60_000
TROUBLE_MS = 1_000


class LaterTopics:
    """Sending to topics for later, and bringing that to its partitions and subscribed queues.

    Invariants:
      1. A message waits as a pending one of the topic's own queue #later, so that it is listed,
         cancelled, moved and counted as any other, and dropped with its topic.
      2. When it is due it is in that queue, until one commit confirms it there and places it in a
         partition and in every queue whose subscription wants it then: in all of them or in none.
      3. That commit is refused if any note changed since the subscriptions were read.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store = broker.store
        self.topics = Topics(broker)
        self.transactions = Transactions(broker)
        self.schedule: Schedule = self.transactions.schedule
        self.version = -1
        self.groups: dict[str, Consumer] = {}
        self.troubled: set[str] = set()

    @refusing
    def send(
        self, name: str, body: bytes, attributes: Attributes | None = None, *,
        partition: int | None = None, delay_ms: int | None = None, due_us: int | None = None,
        half: CheckBack | None = None, producer_group: str = "",
        durability: "Durability | None" = None, producer: int = 0, sequence: int = 0,
    ) -> Sent:
        """As Topics.send; the message is fanned out after delay_ms or at due_us (since 1970) by
        the subscriptions that there are then. With half when it is committed as well.

        The partition is the one named, else chosen when it is due. Raises as Schedule.due_us.
        """
        due = self.schedule.due_us(delay_ms, due_us)
        topic = self.topics.topic(name)
        if not due and half is None:
            return self.topics.send(
                name, body, attributes, partition=partition, durability=durability,
                producer=producer, sequence=sequence)
        if partition is not None:
            self.topics.partition(topic, attributes, partition)
            attributes = replace(attributes or Attributes(), partition=str(partition))
        queue = self.queue(topic)
        if (known := self.known(topic, attributes)) is not None:
            return known
        options: dict[str, Any] = {
            "durability": durability, "producer": producer, "sequence": sequence}
        receipt: SendReceipt
        if half is not None:
            receipt = self.transactions.prepare(
                queue, body, attributes, group=producer_group, check_back=half, due_us=due,
                **options)
        else:
            receipt = self.schedule.send(queue, body, attributes, due_us=due, **options)
        return Sent(receipt.id, None, None, 0, receipt.duplicate, receipt.durability,
                    receipt.pending is not None)

    def queue(self, topic: Topic) -> Queue:
        """The queue for which its messages wait; made with the first of them."""
        if not topic.later:
            self.topics.change_facts(topic.name, lambda facts: facts.update(later=True))
        return self.store.queue(later_queue(topic.name), create=False)

    def known(self, topic: Topic, attributes: Attributes | None) -> Sent | None:
        """The message of that id that its partition knows already, if the topic stores ids once."""
        if attributes is None or not attributes.id or not topic.settings.get("dedup_ms"):
            return None
        named = int(attributes.partition) if attributes.partition else None
        number = self.topics.partition(topic, attributes, named)
        home = self.store.queue(partition_queue(topic.name, number), create=False)
        found = known_message(home, attributes.id)
        if found is None:
            return None
        offset = None if found.pending is not None else found.offset
        return Sent(found.id, number, offset, 0, True, found.durability, offset is None)

    @refusing
    def turn(self) -> int:
        """Fan out what is due, bounded; how much of it there was."""
        version = self.store.notes_version()
        if version != self.version:
            self.groups = self.waiting()
            self.version = version
        self.troubled.clear()
        names = {consumer.id: name for name, consumer in self.groups.items()}
        moved = 0
        for consumer in ready_groups(self.store, list(self.groups.values())):
            try:
                moved += self.fan_out(names[consumer.id], consumer)
            except (EngineError, BrokerError):
                # One topic's trouble (deleted, say) must not hold up the others.
                traceback.print_exc(file=sys.stderr)
                self.troubled.add(names[consumer.id])
        return moved

    def rest(self, wait_ms: int) -> None:
        """Wait until something is due, or notes have changed, at most so long.

        A topic that was in trouble at the last turn is no reason to be back at once.
        """
        able = [one for name, one in self.groups.items() if name not in self.troubled]
        await_ready(self.store, able, self.version, wait_ms)

    def waiting(self) -> dict[str, Consumer]:
        """Who takes what is due, of each topic that anything ever waited for."""
        found = {}
        for name in self.topics.names():
            try:
                if self.topics.topic(name).later:
                    queue = self.store.queue(later_queue(name), create=False)
                    found[name] = queue.group()
            except (BrokerError, QueueNotFoundError):
                continue
        return found

    def fan_out(self, name: str, consumer: Consumer) -> int:
        """Fan out what is due for one topic, up to AT_ONCE messages."""
        batch = consumer.receive(AT_ONCE, max_bytes=4 << 20, lease_ms=LEASE_MS)
        left = list(range(len(batch)))
        for _ in range(ATTEMPTS):
            if not left:
                return len(batch)
            topic = self.topics.topic(name)
            targets = [self.targets(topic, batch, at) for at in left]
            receipts = b"".join(receipt_at(batch, at) for at in left)
            told = spread(consumer, receipts, targets, topic.version)
            again = [at for at, one in zip(left, told)
                     if isinstance(one, ConflictError | QueueNotFoundError)]
            for one in told:
                if isinstance(one, EngineError) and not isinstance(
                        one, ConflictError | QueueNotFoundError | InvalidError):
                    consumer.release(b"".join(receipt_at(batch, at) for at in left),
                                     delay_ms=TROUBLE_MS)
                    raise one
            left = again
        consumer.release(b"".join(receipt_at(batch, at) for at in left), delay_ms=TROUBLE_MS)
        raise BrokerError(Kind.BUSY, "the topics change all the time; it is tried again")

    def targets(self, topic: Topic, batch: Batch, at: int) -> list[Queue]:
        """The partition of a message, then the queues that want it."""
        attributes = batch.attributes(at)
        told = attributes.partition
        named = int(told) if told.isdecimal() and len(told) < 9 else None
        if named is not None and named >= topic.partitions:
            named = None
        number = self.topics.partition(topic, attributes, named)
        home = self.store.queue(partition_queue(topic.name, number), create=False)
        return [home, *self.topics.wanting(topic, batch.ext(at))]


def receipt_at(batch: Batch, at: int) -> bytes:
    return batch.receipts[24 * at:24 * (at + 1)]
