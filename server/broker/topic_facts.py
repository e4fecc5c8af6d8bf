"""What a topic is: its partitions, subscriptions and settings as they are noted, and its names."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count
from typing import Any, NamedTuple

from penstock.engine._core import matches

TOPIC, SUBSCRIPTION = "topic/", "subscription/"
LATER = "#later"


@dataclass(frozen=True)
class Subscription:
    """A queue that gets each message of a topic which the filter wants."""

    queue: str
    kind: str | None
    source: str
    program: bytes = field(default=b"", repr=False)

    def wants(self, packed: bytes) -> bool:
        return not self.program or matches(self.program, packed)


@dataclass(frozen=True)
class Topic:
    """A topic as its notes had it at a version of all notes."""

    name: str
    partitions: int
    subscriptions: tuple[Subscription, ...]
    version: int
    # What is set for the topic's queues and groups, and whether something ever had to wait for it.
    settings: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    later: bool = False
    turn: Iterator[int] = field(default_factory=count, repr=False, compare=False)

    def facts(self) -> dict[str, Any]:
        """What a show says."""
        found = [asdict(one) for one in self.subscriptions]
        for one in found:
            del one["program"]
        return {"name": self.name, "partitions": self.partitions, "subscriptions": found,
                "settings": self.settings, "groups": self.groups}


class Sent(NamedTuple):
    """Where a message went. queues: how many subscribed ones have it; offset: in the partition.

    waits: it is fanned out when it is due; until then it has no partition and no offset, and id is
    for cancelling and moving it.
    """

    id: str
    partition: int | None
    offset: int | None
    queues: int
    duplicate: bool
    durability: str
    waits: bool = False


def partition_queue(topic: str, number: int) -> str:
    """The engine queue of a partition; no user's queue has a # in its name."""
    return f"{topic}#{number}"


def later_queue(topic: str) -> str:
    """The engine queue for which messages wait that are to be fanned out later."""
    return topic + LATER


def subscription_note(topic: str, queue: str) -> str:
    """The name of a subscription's note; no topic has a colon in its name."""
    return f"{SUBSCRIPTION}{topic}:{queue}"
