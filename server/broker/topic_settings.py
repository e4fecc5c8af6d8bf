"""What is set for a topic: handed to the queues of its partitions, present and to come."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from penstock.engine._core import Queue
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker, checked, refusing
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.groups import Groups
from penstock.server.broker.topic_facts import partition_queue

if TYPE_CHECKING:
    from penstock.server.broker.topic import Topics

Answer = dict[str, Any]
ONCE = ("dedup_ms", "dedup_count")


class TopicSettings:
    """The asks topic.set, topic.settings and topic.group, by a topic's name.

    Invariant: what the topic's note says was set for each of its queues before; a queue that a
    crash left different is set right by asking again, and by growing.
    """

    def __init__(self, topics: "Topics") -> None:
        self.topics = topics
        self.groups = Groups(topics.broker, lambda: 0)
        self.asks: dict[str, tuple[type[Any], Callable[[Any], Answer]]] = {
            "topic.set": (asks.QueueSettings, self.set),
            "topic.settings": (asks.QueueSettings, self.set),
            "topic.group": (asks.Group, self.group),
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer; fields has the topic's name. Raises BrokerError."""
        model, run = self.asks[do]
        if "queue" in fields:
            raise BrokerError(Kind.INVALID, f"{do}: a topic has a name, not a queue")
        renamed = {"queue" if name == "name" else name: value for name, value in fields.items()}
        return run(asks.converted(do, renamed, model))

    @refusing
    def set(self, ask: asks.QueueSettings) -> Answer:
        """Set what is given for all partitions; what is set for the topic then."""
        given = {name: value for name in ask.__struct_fields__ if name != "queue"
                 and (value := getattr(ask, name)) is not None}
        if given:
            self.topics.change_facts(
                ask.queue, lambda facts: facts.setdefault("settings", {}).update(given))
        topic = self.topics.topic(ask.queue)
        first = self.topics.store.queue(partition_queue(topic.name, 0), create=False)
        return {"name": topic.name, **first.settings()}

    @refusing
    def group(self, ask: asks.Group) -> Answer:
        """Make a group at each partition, and change what the ask names; what is set then."""
        if ask.group:
            checked(ask.group)
        given = msgspec.to_builtins(ask)
        del given["queue"], given["group"]
        if ask.filter is msgspec.UNSET:
            given.pop("kind", None)
        if given:
            self.topics.change_facts(ask.queue, lambda facts: facts.setdefault(
                "groups", {}).setdefault(ask.group, {}).update(given))
        home = partition_queue(self.topics.topic(ask.queue).name, 0)
        shown = self.groups.show(asks.Group(queue=home, group=ask.group))
        return {"name": ask.queue, "group": ask.group} | {
            name: shown[name] for name in ("kind", "filter", "order", "retry")}


def set_up(broker: Broker, queue: Queue, facts: Answer, *, later: bool = False) -> None:
    """Give a queue of a topic what is noted of it. later: it is the one for what waits."""
    settings = facts.get("settings", {})
    if later:
        # What was fanned out is needed no more; an id is known here while its message waits.
        once = {name: settings[name] for name in ONCE if name in settings}
        queue.configure(keep="unconfirmed", **once)
        return
    if settings:
        queue.configure(**settings)
    groups = Groups(broker, lambda: 0)
    for name, given in facts.get("groups", {}).items():
        fields = {"queue": queue.name, "group": name, **given}
        groups.set(asks.converted("topic.group", fields, asks.Group))
