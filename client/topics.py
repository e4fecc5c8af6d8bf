"""A topic of the server, as both clients see it. The async client's answers are awaited."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, Unpack

from penstock.attributes import Carried, pack
from penstock.later import DUE, LATER, Moment, later_of, micros
from penstock.model import Bytes, Level, as_bytes

if TYPE_CHECKING:
    from penstock.seeing import Seeing


class Topic:
    """A topic: what is sent to it is there for any number of groups and subscribed queues.

    Groups read its partitions, which are queues named TOPIC#0, TOPIC#1, …: see partition.
    """

    def __init__(self, client: Seeing, name: str) -> None:
        self.client = client
        self.name = name

    def create(self, partitions: int = 1) -> Any:
        """The topic as it is then; one that was there keeps its partitions."""
        return self.client.admin("topic.create", name=self.name, partitions=partitions)

    def grow(self, partitions: int) -> Any:
        """The topic with so many partitions; a key may have another one from now on."""
        return self.client.admin("topic.grow", name=self.name, partitions=partitions)

    def show(self) -> Any:
        """Its partitions and subscriptions."""
        return self.client.admin("topic.show", name=self.name)

    def delete(self) -> Any:
        """The topic and its messages are gone; subscribed queues keep what they have."""
        return self.client.admin("topic.delete", name=self.name)

    def send(
        self, body: Bytes, partition: int | None = None, durability: Level = "disk", *,
        delay: float | None = None, at: Moment | None = None, **carried: Unpack[Carried],
    ) -> Any:
        """Where the message is: id, partition, offset, and how many subscribed queues have it.

        It goes to the partition named, else by its key, else in turn. After delay seconds, or at a
        time (seconds since 1970, or a datetime): then the answer says that it waits, and id is for
        client.cancel and client.move. After a broken connection it is sent again, and stored once.
        """
        return self._send(body, partition, durability, delay, at, carried)

    def transaction(
        self, body: Bytes, partition: int | None = None, durability: Level = "disk", *,
        producer_group: str = "", first_check: float = 6.0, check_every: float = 30.0,
        checks: int = 15, delay: float | None = None, at: Moment | None = None,
        **carried: Unpack[Carried],
    ) -> Any:
        """A message that nobody sees unless the block succeeds: with topic.transaction(b"x"): …

        As Queue.transaction; it is fanned out when it is committed (and due).
        """
        half = {
            "half": True, "producer_group": producer_group, "checks": checks,
            "first_check_ms": micros(first_check) // 1000,
            "check_interval_ms": micros(check_every) // 1000,
        }
        made = self.client.half(0)
        made.name = self.name
        made.send = lambda: self._send(body, partition, durability, delay, at, carried, half)
        return made

    def _send(
        self, body: Bytes, partition: int | None, durability: Level, delay: float | None,
        at: Moment | None, carried: Carried, half: dict[str, Any] | None = None,
    ) -> Any:
        fields: dict[str, Any] = {"body": text(as_bytes(body)), "durability": durability}
        if carried:
            fields["attributes"] = text(pack(carried))
        if partition is not None:
            fields["partition"] = partition
        if delay is not None or at is not None:
            flags, packed = later_of(delay, at)
            time_us = LATER.unpack(packed)[0]
            fields |= {"due_us": time_us} if flags & DUE else {"delay_ms": -(-time_us // 1000)}
        return self.client.admin("topic.send", name=self.name, **fields, **(half or {}))

    def subscribe(
        self, queue: str, *, kind: str | None = None, source: str = "",
        start: str | int = "latest", offset: int | None = None,
    ) -> Any:
        """Let a queue get the messages that a filter wants ("tag", "routing" or "sql").

        start: latest, earliest, or a time in µs since 1970; or an offset, that of each partition.
        """
        return self.client.admin(
            "topic.subscribe", name=self.name, queue=queue, kind=kind, source=source, start=start,
            offset=offset)

    def unsubscribe(self, queue: str) -> Any:
        """Let the queue get no more."""
        return self.client.admin("topic.unsubscribe", name=self.name, queue=queue)

    def configure(self, **settings: Any) -> Any:
        """Set what all partitions keep and store once, also those to come: as client.configure.

        Without settings, what is set.
        """
        return self.client.admin("topic.set", name=self.name, **settings)

    def group(self, group: str = "", **given: Any) -> Any:
        """What is set for a group at all partitions, also those to come.

        order ("none", "key", "strict"), filter and kind, retry ({"max_attempts": 5, "dead_letter":
        "D", "backoff_ms": [1000]}, or None for none) are changed if they are given.
        """
        return self.client.admin("topic.group", name=self.name, group=group, **given)

    def partition(self, number: int) -> str:
        """The name of a partition: client.queue(it, group=…, create=False) receives from it."""
        return f"{self.name}#{number}"


def text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
