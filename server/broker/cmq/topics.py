"""CMQ's topics and subscriptions in the broker's words: partitions, filters, queues, pushing."""

import re
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from penstock.engine.attributes import Attributes
from penstock.engine.errors import EngineError
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import DAY_S, Rules
from penstock.server.broker.cmq.faults import FAULTS, CmqError, Fault
from penstock.server.broker.cmq.ids import Names
from penstock.server.broker.cmq.queues import NAME
from penstock.server.broker.cmq.subscribing import (
    BY_KEY,
    BY_TAG,
    Asked,
    Subscription,
    filter_of,
    subscription_name,
)
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.push import Pushes
from penstock.server.broker.push import Subscription as Push
from penstock.server.broker.topic import Topics
from penstock.server.broker.topic_facts import partition_queue

TOPIC_NOTE, SUBSCRIPTION_NOTE = "cmq-topic/", "cmq-subscription/"
PUSHED = "cmq-push/"
MANY_TAGS = "cmq.tags"


class TopicFacts(msgspec.Struct, omit_defaults=True, frozen=True):
    """What CMQ's clients say of a topic. max_size 0: the server's limit."""

    max_size: int = 0
    filter_type: int = BY_TAG
    retention_s: int = DAY_S
    changed_us: int = 0


class CmqTopics:
    """What is done to CMQ's topics. Every refusal is a CmqError."""

    def __init__(self, broker: Broker, rules: Rules, ids: Names) -> None:
        self.broker = broker
        self.store = broker.store
        self.rules = rules
        self.topics = Topics(broker)
        self.pushes = Pushes(broker)
        self.ids = ids

    # Topics.

    def facts(self, name: str) -> TopicFacts:
        """Those of a topic that there is, whichever door made it."""
        try:
            self.topics.topic(checked_topic(name))
        except BrokerError as error:
            raise topic_fault(error) from error
        noted = self.store.noted(TOPIC_NOTE + name)
        return TopicFacts() if noted is None else msgspec.json.decode(noted[0], type=TopicFacts)

    def names(self) -> list[str]:
        """The topics that a CMQ client can name, sorted."""
        return sorted(name for name in self.topics.names() if NAME.fullmatch(name))

    def create(self, name: str, facts: TopicFacts) -> str:
        """Make a topic; its id. Its filter type is for life."""
        checked_topic(name)
        self.check(facts)
        names = self.names()
        if name.casefold() in {one.casefold() for one in names}:
            raise CmqError(Fault.TOPIC_EXISTS)
        if len(names) >= self.rules.topics:
            raise CmqError(Fault.TOPICS)
        try:
            self.note(name, facts)
            _, new = self.topics.create(name)
            if not new:
                raise CmqError(Fault.TOPIC_EXISTS)
            self.keep(name, facts.retention_s)
        except BrokerError as error:
            raise topic_fault(error) from error
        return topic_id(self.home(name))

    def check(self, facts: TopicFacts) -> None:
        least, most = self.rules.max_size
        if facts.max_size and not least <= facts.max_size <= most:
            raise CmqError(Fault.OUT_OF_RANGE, f"maxMsgSize is {least} to {most}")
        if facts.filter_type not in (BY_TAG, BY_KEY):
            raise CmqError(Fault.OUT_OF_RANGE, "filterType is 1 or 2")
        if not 60 <= facts.retention_s <= (DAY_S if self.rules.strict else 3650 * DAY_S):
            raise CmqError(Fault.OUT_OF_RANGE, "msgRetentionSeconds")

    def keep(self, name: str, retention_s: int) -> None:
        """How long the topic's own copy of a message is kept."""
        self.store.queue(partition_queue(name, 0), create=False).configure(
            retain_ms=retention_s * 1000)

    def set(self, name: str, max_size: int | None, retention_s: int | None, now_us: int) -> None:
        """Change what is given."""
        changes: dict[str, int] = {"changed_us": now_us}
        changes |= {} if max_size is None else {"max_size": max_size}
        changes |= {} if retention_s is None else {"retention_s": retention_s}
        facts = msgspec.structs.replace(self.facts(name), **changes)
        self.check(facts)
        self.note(name, facts)
        if retention_s is not None:
            self.keep(name, retention_s)

    def note(self, name: str, facts: TopicFacts | None) -> None:
        try:
            value = None if facts is None else msgspec.json.encode(facts)
            self.store.note(TOPIC_NOTE + name, value)
        except EngineError as error:
            raise topic_fault(refusal(error)) from error

    def page(self, search: str, offset: int, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """How many names have search in them, and (id, name) of those from offset on."""
        names = [name for name in self.names() if search in name]
        page = names[offset:offset + limit]
        return len(names), [(topic_id(self.home(name)), name) for name in page]

    def describe(self, name: str) -> dict[str, Any]:
        """The attributes of a topic, times in µs."""
        facts = self.facts(name)
        stat = self.store.queue(partition_queue(name, 0), create=False).stat()
        return {
            "id": topic_id(self.home(name)), "name": name, "facts": facts,
            "messages": stat["visible"] - stat["first"], "created_us": stat["created_us"],
            "changed_us": max(facts.changed_us, stat["created_us"]),
            "subscriptions": len(self.subscriptions(name)),
        }

    def delete(self, name: str) -> None:
        """Remove a topic that has no subscription."""
        self.facts(name)
        if self.subscriptions(name):
            raise CmqError(Fault.HAS_SUBSCRIPTIONS)
        try:
            self.topics.delete(name)
        except BrokerError as error:
            raise topic_fault(error) from error
        self.note(name, None)

    def home(self, name: str) -> int:
        return self.store.queue(partition_queue(name, 0), create=False).id

    # Messages.

    def publish(
        self, name: str, bodies: list[bytes], tags: list[str], routing_key: str, now_us: int
    ) -> list[int]:
        """Store messages in every queue whose subscription wants them; their ids."""
        self.fit(bodies)
        facts = self.facts(name)
        if max(map(len, bodies)) > self.largest(facts):
            raise CmqError(Fault.MESSAGE_SIZE)
        self.routed(facts, tags, routing_key)
        given = self.ids.give(now_us, len(bodies))
        try:
            reached = self.topics.send_many(name, [
                (body, carried(tags, routing_key, str(one)))
                for body, one in zip(bodies, given, strict=True)])
        except BrokerError as error:
            raise topic_fault(error) from error
        self.reached(name, reached)
        return given

    def way(
        self, name: str, tags: list[str], routing_key: str
    ) -> tuple[int, list[int], bytes, int, int] | None:
        """Where messages with these tags or this key go: (version of the notes that say so, numbers
        of the queues, packed attributes but the id, the most bytes of a body, the topic's own
        queue). None: it differs."""
        facts = self.facts(name)
        self.routed(facts, tags, routing_key)
        attributes = carried(tags, routing_key)
        try:
            found = self.topics.recipients(name, attributes)
        except BrokerError as error:
            raise topic_fault(error) from error
        if found is None:
            return None
        version, queues, reached = found
        self.reached(name, reached)
        return version, queues, attributes.pack(), self.largest(facts), self.home(name)

    def fit(self, bodies: list[bytes]) -> None:
        """Raises if they are not what can be published at once."""
        if not bodies or not all(bodies):
            raise CmqError(Fault.EMPTY_BODY)
        if len(bodies) > self.rules.batch:
            raise CmqError(Fault.BATCH_SIZE)
        if len(bodies) > 1 and sum(map(len, bodies)) > self.rules.batch_bytes:
            raise CmqError(Fault.BATCH_BYTES)

    def admit(self, name: str, bodies: list[bytes], key: int) -> None:
        """Charge what is published to the quotas. Raises that one lets nothing pass now."""
        self.fit(bodies)
        self.facts(name)
        try:
            self.topics.admit(name, len(bodies), sum(map(len, bodies)), key=key)
        except BrokerError as error:
            raise topic_fault(error) from error

    def largest(self, facts: TopicFacts) -> int:
        return min(facts.max_size or self.rules.max_size[1], self.broker.limits.message_bytes)

    def reached(self, name: str, queues: int) -> None:
        """Raises, if the original would, that nobody gets a message."""
        if self.rules.strict and not queues:
            some = self.subscriptions(name)
            raise CmqError(Fault.NO_MATCH if some else Fault.NO_SUBSCRIPTION)

    def routed(self, facts: TopicFacts, tags: list[str], routing_key: str) -> None:
        """Raises what is wrong with the tags or the routing key of a message."""
        if len(tags) > self.rules.tags:
            raise CmqError(Fault.TAGS)
        if any(not 1 <= len(tag) <= self.rules.tag_characters or "," in tag for tag in tags):
            raise CmqError(Fault.OUT_OF_RANGE, "msgTag")
        if facts.filter_type == BY_KEY and not routing_key:
            raise CmqError(Fault.ROUTING_KEY)
        if len(routing_key.encode()) > self.rules.key_bytes:
            raise CmqError(Fault.OUT_OF_RANGE, "routingKey")
        if routing_key.count(".") > self.rules.dots:
            raise CmqError(Fault.DOTS)

    # Subscriptions.

    def subscriptions(self, topic: str) -> dict[str, Subscription]:
        """Those of a topic by name; none of one that is not there."""
        before = f"{SUBSCRIPTION_NOTE}{topic}:"
        return {
            name.removeprefix(before): msgspec.json.decode(value, type=Subscription)
            for name, value in sorted(self.store.notes(before).items())
        }

    def subscription(self, topic: str, name: str) -> Subscription:
        """One that there is."""
        self.facts(topic)
        found = self.store.noted(f"{SUBSCRIPTION_NOTE}{topic}:{subscription_name(name)}")
        if found is None:
            raise CmqError(Fault.NO_SUBSCRIPTION_OF_NAME)
        return msgspec.json.decode(found[0], type=Subscription)

    def subscribe(self, topic: str, name: str, asked: Asked, now_us: int) -> str:
        """Let the endpoint get what the filter wants from now on; the subscription's id."""
        facts = self.facts(topic)
        known = self.subscriptions(topic)
        if subscription_name(name) in known:
            raise CmqError(Fault.SUBSCRIPTION_EXISTS)
        if len(known) >= self.rules.subscriptions:
            raise CmqError(Fault.SUBSCRIPTIONS)
        asked.check(self.rules, facts.filter_type)
        number = f"subsc-{secrets.token_hex(4)}"
        queue = asked.endpoint if asked.protocol == "queue" else PUSHED + number
        self.endpoint(asked, queue)
        made = Subscription(number, queue, asked.protocol, asked.endpoint, asked.strategy,
                            asked.format, asked.tags, asked.keys, now_us, now_us)
        try:
            if asked.protocol == "http":
                self.pushes.set(number, push_of(topic, name, made))
            beside = [one for one in known.values() if one.queue == queue]
            kind, source = filter_of(facts.filter_type, [*beside, made])
            put = self.topics.change if beside else self.topics.subscribe
            put(topic, queue, kind=kind, source=source)
        except BrokerError as error:
            if error.kind is Kind.EXISTS:
                raise CmqError(
                    Fault.SUBSCRIPTION_EXISTS, "the queue is subscribed to this topic") from error
            raise topic_fault(error) from error
        self.note_subscription(topic, name, made)
        return number

    def endpoint(self, asked: Asked, queue: str) -> None:
        """The queue that gets the messages: the one that is named, or one of our own."""
        try:
            if asked.protocol == "http":
                self.broker.open(queue, create=True).configure(
                    retain_ms=DAY_S * 1000, keep="unconfirmed")
            else:
                self.broker.open(queue, create=False)
        except BrokerError as error:
            if error.kind is Kind.NOT_FOUND:
                raise CmqError(Fault.ENDPOINT, f"there is no queue {queue}") from error
            raise topic_fault(error) from error

    def resubscribe(self, topic: str, name: str, changes: dict[str, Any], now_us: int) -> None:
        """Change a subscription; what it wants is judged anew from now on."""
        facts, before = self.facts(topic), self.subscription(topic, name)
        after = msgspec.structs.replace(before, **changes, changed_us=now_us)
        Asked(after.protocol, after.endpoint, after.strategy, after.format, after.tags,
              after.keys).check(self.rules, facts.filter_type)
        try:
            if after.protocol == "http":
                self.pushes.set(after.id, push_of(topic, name, after))
            if (after.tags, after.keys) != (before.tags, before.keys):
                kind, source = filter_of(
                    facts.filter_type, [*self.beside(topic, name, before), after])
                self.topics.change(topic, after.queue, kind=kind, source=source)
        except BrokerError as error:
            raise topic_fault(error) from error
        self.note_subscription(topic, name, after)

    def unsubscribe(self, topic: str, name: str) -> None:
        """No more messages; those that an endpoint was not sent yet are dropped."""
        facts, found = self.facts(topic), self.subscription(topic, name)
        if others := self.beside(topic, name, found):
            kind, source = filter_of(facts.filter_type, others)
            self.forgiving(partial(self.topics.change, kind=kind, source=source), topic,
                           found.queue)
        else:
            self.forgiving(self.topics.unsubscribe, topic, found.queue)
        if found.protocol == "http":
            self.forgiving(self.pushes.remove, found.id)
            self.forgiving(self.broker.delete, found.queue)
        self.note_subscription(topic, name, None)

    def beside(self, topic: str, name: str, of: Subscription) -> list[Subscription]:
        """The topic's other subscriptions that lead to the same queue: it gets what any wants."""
        return [one for other, one in self.subscriptions(topic).items()
                if other != name and one.queue == of.queue]

    def forgiving(self, undo: Callable[..., object], *names: str) -> None:
        """What is gone already need not be removed."""
        try:
            undo(*names)
        except BrokerError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise topic_fault(error) from error

    def waiting(self, found: Subscription) -> int:
        """How many messages the endpoint was not sent yet."""
        if found.protocol != "http":
            return 0
        try:
            stat = self.broker.open(found.queue, create=False).stat()
        except BrokerError:
            return 0
        return stat["ready"] + stat["in_flight"]

    def note_subscription(self, topic: str, name: str, made: Subscription | None) -> None:
        try:
            value = None if made is None else msgspec.json.encode(made)
            self.store.note(f"{SUBSCRIPTION_NOTE}{topic}:{name}", value)
        except EngineError as error:
            raise topic_fault(refusal(error)) from error


def carried(tags: list[str], routing_key: str, id: str = "") -> Attributes:
    """What a published message has beside its body."""
    properties = {MANY_TAGS: f",{','.join(tags)},"} if len(tags) > 1 else {}
    return Attributes(
        tag=tags[0] if tags else "", routing_key=routing_key, id=id, properties=properties)


def push_of(topic: str, name: str, made: Subscription) -> Push:
    """How an HTTP endpoint is pushed to."""
    simple = made.format == "SIMPLIFIED"
    return Push(
        made.queue, made.endpoint, "", timeout_s=15.0,
        format="cmq-simplified" if simple else "cmq-json",
        strategy="cmq-decay" if made.strategy == "EXPONENTIAL_DECAY_RETRY" else "cmq-backoff",
        labels={"topicName": topic, "subscriptionName": name, "TopicOwner": "0"},
    )


def checked_topic(name: str) -> str:
    """The name itself; TOPIC_NAME for another."""
    if not re.fullmatch(NAME, name):
        raise CmqError(Fault.TOPIC_NAME)
    return name


def topic_id(home: int) -> str:
    return f"topic-{home:08x}"


def topic_fault(error: BrokerError) -> CmqError:
    """The refusal of something asked of a topic."""
    if error.kind is Kind.NOT_FOUND:
        return CmqError(Fault.NO_TOPIC)
    if error.kind is Kind.EXISTS:
        return CmqError(Fault.TOPIC_EXISTS, error.text)
    return CmqError(FAULTS[error.kind], error.text)
