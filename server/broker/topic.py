"""Topics: partitions that any number of groups read, and queues that get what they asked for."""

import json
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.engine._core import Batch, Queue, Store, fanout_many, known_message, place_many
from penstock.engine.attributes import Attributes, hash32
from penstock.engine.errors import ConflictError, InvalidError, QueueNotFoundError
from penstock.engine.filters import compile_filter
from penstock.server.broker.broker import Broker, checked, refusing
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.topic_facts import (
    SUBSCRIPTION,
    TOPIC,
    Sent,
    Subscription,
    Topic,
    later_queue,
    partition_queue,
    subscription_note,
)
from penstock.server.broker.topic_settings import set_up

if TYPE_CHECKING:
    from penstock.engine._core import Durability, FanoutReceipt

ATTEMPTS = 16
READ_AT_ONCE = 1000


class Topics:
    """The topics of one store.

    Invariants:
      1. A topic is there exactly while its note is; its partitions' queues are there before it.
      2. A message is sent by the subscriptions that stood in the notes when it was stored: the
         store refuses it if any note changed since they were read, and it is tried again.
      3. So a subscription that begins in the past takes over what stands before its note in the
         log, and what stands behind it came to it by itself: nothing twice, nothing left out.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store
        self.limits = broker.limits
        self.known: dict[str, Topic] = {}

    @refusing
    def create(self, name: str, partitions: int = 1) -> tuple[dict[str, Any], bool]:
        """The topic and whether it is new; one that is there keeps its partitions."""
        self._numbered(checked(name), partitions)
        new = self.store.noted(TOPIC + name) is None
        if new:
            try:
                self._write(name, {"partitions": partitions}, 0)
            except ConflictError:
                new = False
        return self.topic(name).facts(), new

    @refusing
    def grow(self, name: str, partitions: int) -> dict[str, Any]:
        """Give the topic more partitions, while it runs; keys may move to another one."""
        self._numbered(name, partitions)
        noted = self._noted(name)
        facts = json.loads(noted[0])
        if partitions < facts["partitions"]:
            raise BrokerError(Kind.INVALID, "a topic's partitions never get fewer")
        self._write(name, {**facts, "partitions": partitions}, noted[1])
        return self.topic(name).facts()

    @refusing
    def names(self, prefix: str = "") -> list[str]:
        """The names of the topics, sorted."""
        return [name[len(TOPIC):] for name in self.store.notes(TOPIC + prefix)]

    @refusing
    def show(self, name: str) -> dict[str, Any]:
        """The topic, its subscriptions, and how far each partition is."""
        facts = self.topic(name).facts()
        facts["messages"] = [
            {"id": queue.id, "first": stat["first"], "next": stat["next"]}
            for queue in self.partitions(name) for stat in (queue.stat(),)
        ]
        return facts

    @refusing
    def delete(self, name: str) -> None:
        """Remove the topic with what its partitions hold; subscribed queues keep what they have."""
        topic = self.topic(name)
        self.store.note(TOPIC + name, None)
        for one in topic.subscriptions:
            self.store.note(subscription_note(name, one.queue), None)
        numbered = (partition_queue(name, number) for number in range(topic.partitions))
        for queue in (later_queue(name), *numbered):
            try:
                self.store.delete(queue)
            except QueueNotFoundError:
                continue

    @refusing
    def subscribe(
        self, name: str, queue: str, *, kind: str | None = None, source: str = "",
        start: str | int = "latest", offset: int | None = None,
    ) -> dict[str, Any]:
        """Let a queue, made if absent, get the messages that a filter wants.

        start: latest, earliest, or a time in µs since 1970; or an offset, the same in each
        partition. Raises EXISTS if it is subscribed.
        """
        compile_filter(kind, source)
        topic = self.topic(name)
        if len(topic.subscriptions) >= self.limits.subscriptions:
            limit = self.limits.subscriptions
            text = f"a topic has up to {limit} subscriptions"
            raise BrokerError(Kind.TOO_LARGE, text, limit=limit)
        timed = isinstance(start, int) and 0 <= start < 1 << 63
        if start not in ("latest", "earliest") and not timed:
            raise BrokerError(Kind.INVALID, "start is latest, earliest or a time in µs since 1970")
        if offset is not None and (start != "latest" or not 0 <= offset < 1 << 63):
            raise BrokerError(Kind.INVALID, "an offset is a number, given without a start")
        self.store.queue(checked(queue))
        facts = {"kind": kind, "source": source}
        try:
            mark = self.store.note(
                subscription_note(name, queue), json.dumps(facts).encode(), expect=0)
        except ConflictError as error:
            raise BrokerError(Kind.EXISTS, f"{queue} is subscribed to {name}") from error
        if start != "latest" or offset is not None:
            self._take_over(name, queue, start, offset, mark)
        return {"queue": queue, **facts}

    @refusing
    def unsubscribe(self, name: str, queue: str) -> None:
        """Let the queue get no more; what it has, it keeps. Raises NOT_FOUND."""
        note = subscription_note(name, checked(queue))
        if self.store.noted(note) is None:
            raise BrokerError(Kind.NOT_FOUND, f"{queue} is not subscribed to {name}")
        self.store.note(note, None)

    @refusing
    def change(
        self, name: str, queue: str, *, kind: str | None = None, source: str = ""
    ) -> dict[str, Any]:
        """Give a subscription another filter, for what is sent from now on. Raises NOT_FOUND."""
        compile_filter(kind, source)
        note = subscription_note(name, checked(queue))
        if self.store.noted(note) is None:
            raise BrokerError(Kind.NOT_FOUND, f"{queue} is not subscribed to {name}")
        facts = {"kind": kind, "source": source}
        self.store.note(note, json.dumps(facts).encode())
        return {"queue": queue, **facts}

    @refusing
    def send(
        self, name: str, body: bytes, attributes: Attributes | None = None, *,
        partition: int | None = None, durability: "Durability | None" = None, producer: int = 0,
        sequence: int = 0,
    ) -> Sent:
        """Store one message in a partition and in each queue whose subscription wants it.

        The partition is the one named, else by the key, else in turn. Raises NOT_FOUND.
        """
        packed = attributes.pack() if attributes is not None else b""
        for _ in range(ATTEMPTS):
            topic = self.topic(name)
            number = self.partition(topic, attributes, partition)
            home = self.store.queue(partition_queue(name, number), create=False)
            queues = self.wanting(topic, packed)
            if (waiting := self._waits(topic, attributes, home)) is not None:
                return waiting
            try:
                receipt = self.store.fanout(
                    [home, *queues], body, attributes=attributes, durability=durability,
                    producer=producer, sequence=sequence, notes_version=topic.version, home=home)
            except ConflictError:
                continue
            if receipt.duplicate:
                return self._stored(topic, receipt)
            rows = receipt.recipients()
            offset = int(rows["offset"][rows["queue"] == home.id][0])
            return Sent(receipt.id, number, offset, len(rows) - 1, False, receipt.durability)
        raise BrokerError(Kind.BUSY, "the topics change all the time; try again")

    @refusing
    def send_many(self, name: str, messages: Sequence[tuple[bytes, Attributes]]) -> int:
        """Store messages, each as send does, in one frame of the log and in one partition; how many
        copies the subscribed queues have. Raises NOT_FOUND."""
        for _ in range(ATTEMPTS):
            topic = self.topic(name)
            number = self.partition(topic, None, None)
            home = self.store.queue(partition_queue(name, number), create=False)
            fans = [([home, *self.wanting(topic, attributes.pack())], body, attributes)
                    for body, attributes in messages]
            try:
                receipts = fanout_many(self.store, fans, notes_version=topic.version)
            except ConflictError:
                continue
            return sum(one.count - 1 for one in receipts)
        raise BrokerError(Kind.BUSY, "the topics change all the time; try again")

    @refusing
    def admit(
        self, name: str, messages: int, size: int, *, waits: bool = False, key: int = 0
    ) -> None:
        """Charge what is sent to the topic to its quotas; those of subscribed queues do not count.

        Raises THROTTLED, NOT_FOUND.
        """
        self.broker.admit(self.home(name).id, messages, size, waits=waits, key=key)

    @refusing
    def home(self, name: str) -> Queue:
        """The first partition: a quota binds all together, so it stands for each; or NOT_FOUND."""
        self.topic(name)
        return self.store.queue(partition_queue(name, 0), create=False)

    @refusing
    def recipients(
        self, name: str, attributes: Attributes | None = None
    ) -> tuple[int, list[int], int] | None:
        """Where a message that carries this goes: (version of the notes that say so, the numbers of
        the queues in ascending order, how many of them are subscribed).

        None if that is not the same for each such message: the topic has several partitions, a
        filter looks at the message's id, or a queue that wants it is not there.
        """
        topic = self.topic(name)
        packed = attributes.pack() if attributes is not None else b""
        wanting = [one for one in topic.subscriptions if one.wants(packed)]
        queues = self.wanting(topic, packed)
        if topic.partitions != 1 or len(queues) != len(wanting):
            return None
        if any("$id" in one.source for one in topic.subscriptions if one.kind == "sql"):
            return None
        home = self.store.queue(partition_queue(name, 0), create=False)
        numbers = {home.id, *(queue.id for queue in queues)}
        return topic.version, sorted(numbers), len(numbers) - 1

    @refusing
    def partitions(self, name: str) -> list[Queue]:
        """The queues of the partitions, in order: to read, or to receive from as a group."""
        topic = self.topic(name)
        return [self.store.queue(partition_queue(name, number), create=False)
                for number in range(topic.partitions)]

    @refusing
    def receive(
        self, name: str, group: str, count: int, *, first: int = 0, max_bytes: int = 1 << 20,
        lease_ms: int = 30000, room: Callable[[int, int], int] | None = None,
    ) -> tuple[int, Batch] | None:
        """Messages of one partition for a group, looking from partition first on; None if all are
        empty. (The partition, the messages.) room: how many a queue and group may have now."""
        if group:
            checked(group)
        queues = self.partitions(name)
        for at in range(len(queues)):
            number = (first + at) % len(queues)
            taker = queues[number].group(group)
            most = count if room is None else room(queues[number].id, taker.id)
            if not most:
                continue
            batch = taker.receive(most, max_bytes=max_bytes, lease_ms=lease_ms)
            if len(batch):
                return number, batch
        return None

    def topic(self, name: str) -> Topic:
        """The topic as it is now. Raises NOT_FOUND."""
        version = self.store.notes_version()
        known = self.known.get(name)
        if known is not None and known.version == version:
            return known
        facts = json.loads(self._noted(name)[0])
        before = subscription_note(name, "")
        subscriptions = []
        for note, raw in self.store.notes(before).items():
            one = json.loads(raw)
            program = compile_filter(one["kind"], one["source"])
            subscriptions.append(
                Subscription(note[len(before):], one["kind"], one["source"], program))
        turn = known.turn if known is not None else count()
        topic = Topic(
            name, facts["partitions"], tuple(subscriptions), version, facts.get("settings", {}),
            facts.get("groups", {}), facts.get("later", False), turn)
        if len(self.known) >= self.limits.route_names:
            self.known.clear()
        self.known[name] = topic
        return topic

    def _noted(self, name: str) -> tuple[bytes, int]:
        noted = self.store.noted(TOPIC + checked(name))
        if noted is None:
            raise BrokerError(Kind.NOT_FOUND, f"there is no topic {name}")
        return noted

    def _numbered(self, name: str, partitions: int) -> None:
        limit = self.limits.partitions
        if not 1 <= partitions <= limit:
            raise BrokerError(Kind.INVALID, f"a topic has 1 to {limit} partitions", limit=limit)
        if len(name) > 120:
            raise BrokerError(Kind.INVALID, "a topic's name has up to 120 characters", limit=120)

    def _write(self, name: str, facts: dict[str, Any], expect: int) -> None:
        for number in range(facts["partitions"]):
            set_up(self.broker, self.store.queue(partition_queue(name, number)), facts)
        if facts.get("later"):
            set_up(self.broker, self.store.queue(later_queue(name)), facts, later=True)
        self.store.note(TOPIC + name, json.dumps(facts).encode(), expect=expect)

    def change_facts(self, name: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change what is noted of the topic, and see that its queues are as it says."""
        for _ in range(ATTEMPTS):
            noted = self._noted(name)
            facts = json.loads(noted[0])
            change(facts)
            try:
                self._write(name, facts, noted[1])
                return
            except ConflictError:
                continue
        raise BrokerError(Kind.BUSY, "the topic changes all the time; try again")

    def _stored(self, topic: Topic, receipt: "FanoutReceipt") -> Sent:
        """Where the first of a repeated message is: perhaps not in the partition of its turn."""
        try:
            rows = {int(row["queue"]): int(row["offset"]) for row in receipt.recipients()}
        except InvalidError:
            rows = {}       # it was purged since, or this number was that of another send
        for number, home in enumerate(self.partitions(topic.name)):
            if home.id in rows:
                return Sent(receipt.id, number, rows[home.id], len(rows) - 1, True,
                            receipt.durability)
        return Sent(receipt.id, None, None, len(rows), True, receipt.durability)

    def _waits(self, topic: Topic, attributes: Attributes | None, home: Queue) -> Sent | None:
        """The message of the same id that is on its way, if the topic stores an id once."""
        if not topic.later or attributes is None or not attributes.id \
                or not topic.settings.get("dedup_ms"):
            return None
        known = known_message(
            self.store.queue(later_queue(topic.name), create=False), attributes.id)
        if known is None or (known.pending is None and known_message(home, attributes.id)):
            return None     # there is none, or it has come: the partition tells where it is
        return Sent(known.id, None, None, 0, True, known.durability, known.pending is not None)

    def partition(self, topic: Topic, attributes: Attributes | None, named: int | None) -> int:
        """The partition of a message: the one named, else by its key, else in turn."""
        if named is not None:
            if not 0 <= named < topic.partitions:
                raise BrokerError(
                    Kind.INVALID, f"{topic.name} has the partitions 0 to {topic.partitions - 1}")
            return named
        if attributes is not None and attributes.key:
            return hash32(attributes.key) % topic.partitions
        if attributes is not None and attributes.id and topic.settings.get("dedup_ms"):
            # A repetition must meet the first one.
            return hash32(attributes.id) % topic.partitions
        return next(topic.turn) % topic.partitions

    def wanting(self, topic: Topic, packed: bytes) -> list[Queue]:
        found = []
        for one in topic.subscriptions:
            if one.wants(packed):
                try:
                    found.append(self.store.queue(one.queue, create=False))
                except QueueNotFoundError:
                    # Deleted: the subscription stays, for when it is made again.
                    continue
        return found

    def _take_over(
        self, name: str, queue: str, start: str | int, offset: int | None, mark: int
    ) -> None:
        """Place what the topic got before the subscription's note at position mark."""
        topic = self.topic(name)
        one = next(one for one in topic.subscriptions if one.queue == queue)
        to = self.store.queue(queue)
        for home in self.partitions(name):
            at = home.offset_at(start) if isinstance(start, int) else offset or 0
            while len(batch := home.read(offset=at, max_messages=READ_AT_ONCE)):
                low, at = int(batch.offsets[0]), int(batch.offsets[-1]) + 1
                positions = home.index(low, at)["position"]
                chosen = [
                    int(positions[number - low])
                    for index, number in enumerate(batch.offsets.tolist())
                    if one.wants(batch.ext(index)) and positions[number - low] < mark
                ]
                if chosen:
                    place_many(self.store, to, np.array(chosen, np.uint64))
                if positions[-1] >= mark:
                    break
