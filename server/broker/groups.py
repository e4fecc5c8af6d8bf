"""What is set for a group: asked and changed through every door."""

from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engine._core import Consumer, Queue
from penstock.engine.errors import EngineError
from penstock.engine.filters import Filter, compile_filter, stored_filter
from penstock.engine.retries import FILTER, Retry, field, packed
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.modes import Members, Offsets, members_of
from penstock.server.broker.retry import DeadLetters

Answer = dict[str, Any]


class FilterMismatchError(BrokerError):
    """A member asks for another filter or order than its group has."""


class Groups:
    """What can be asked about groups, and what is set for queues, by name."""

    def __init__(self, broker: Broker, now_us: Callable[[], int]) -> None:
        self.broker = broker
        dead, offsets, members = DeadLetters(broker), Offsets(broker), Members(broker)
        self.members = members
        self.asks: dict[str, tuple[type[Any], Callable[[Any], Answer]]] = {
            "group.show": (asks.Group, self.show),
            "group.set": (asks.Group, self.set),
            "group.join": (asks.Group, self.join),
            "group.delete": (asks.OffsetShow, self.delete),
            "redrive": (asks.Redrive, dead.redrive),
            "offset.show": (asks.OffsetShow, offsets.show),
            "offset.commit": (asks.OffsetCommit, offsets.commit),
            "member.join": (asks.MemberJoin, lambda ask: members.join(ask, now_us())),
            "member.leave": (asks.Member, members.leave),
            "member.list": (asks.OffsetShow, members.list),
            "queue.set": (asks.QueueSettings, self.configure),
            "queue.settings": (asks.QueueSettings, self.configure),
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer. Raises BrokerError; INVALID says which field is wrong, or which column."""
        model, run = self.asks[do]
        try:
            return run(msgspec.convert(fields, model))
        except msgspec.ValidationError as error:
            raise BrokerError(Kind.INVALID, f"{do}: {error}") from error
        except EngineError as error:
            raise refusal(error) from error

    def show(self, ask: asks.Group) -> Answer:
        """The settings of a group that there is."""
        queue = self.broker.open(ask.queue, create=False)
        if ask.group not in self.broker.groups(queue):
            raise BrokerError(
                Kind.NOT_FOUND, f"queue {ask.queue} has no group {ask.group!r}")
        return self.shown(ask)

    def set(self, ask: asks.Group) -> Answer:
        """Make the group if it is absent, and change what the ask names: all of it, or nothing."""
        queue = self.broker.open(ask.queue, create=False)
        fields = self.fields(queue, ask)
        group = self.broker.group(queue, ask.group)
        if fields:
            group._settings(fields)
            for name in members_of(self.broker.groups(queue), ask.group):
                queue.group(name)._settings(fields)
        return self.shown(ask)

    def delete(self, ask: asks.OffsetShow) -> Answer:
        """Remove a named group and what it knows; the messages stay."""
        queue = self.broker.open(ask.queue, create=False)
        self.broker.existing(queue, ask.group)
        queue.delete_group(ask.group)
        return {}

    def configure(self, ask: asks.QueueSettings) -> Answer:
        """Set what is given; what is set for the queue then."""
        queue = self.broker.open(ask.queue, create=False)
        given = {name: value for name in ask.__struct_fields__ if name != "queue"
                 and (value := getattr(ask, name)) is not None}
        if given:
            queue.configure(**given)
        return {"queue": ask.queue, **queue.settings()}

    def fields(self, queue: Queue, ask: asks.Group) -> bytes:
        """The settings that the ask names, as they are stored; makes the dead-letter queue."""
        fields = b""
        if ask.filter is not msgspec.UNSET:
            kind = ask.kind if ask.filter else None
            fields += field(FILTER, compile_filter(kind, ask.filter or ""))
        order = ask.order if isinstance(ask.order, str) else None
        if ask.retry is msgspec.UNSET:
            return fields + packed(queue, order, None)
        return fields + packed(queue, order, self.retry(queue, ask.retry) if ask.retry else "none")

    def retry(self, queue: Queue, asked: asks.Retry) -> Retry:
        """The policy that is asked for; its dead-letter queue is there then."""
        usual = Retry()
        attempts = usual.max_attempts if asked.dead_letter else 0
        if isinstance(asked.max_attempts, int):
            attempts = asked.max_attempts
        backoff_ms = usual.backoff_ms
        if isinstance(asked.backoff_ms, list):
            backoff_ms = tuple(asked.backoff_ms)
        if attempts and not asked.dead_letter:
            raise BrokerError(
                Kind.INVALID,
                "max_attempts needs dead_letter, the queue for what was tried so often")
        if asked.dead_letter == queue.name:
            raise BrokerError(
                Kind.INVALID, f"queue {queue.name} cannot be its own dead-letter queue")
        if asked.dead_letter:
            self.broker.open(asked.dead_letter, create=True)
        return Retry(attempts, asked.dead_letter, backoff_ms)

    def join(self, ask: asks.Group) -> Answer:
        """Be a member: a group that is made gets what is asked, another one must have it."""
        queue = self.broker.open(ask.queue, create=False)
        if ask.group not in self.broker.groups(queue):
            return self.set(ask)
        self.expect(ask)
        return self.shown(ask)

    def expect(self, ask: asks.Group) -> None:
        """Raise FilterMismatchError if the ask names a filter or order that its group has not."""
        if ask.filter is msgspec.UNSET and ask.order is msgspec.UNSET:
            return
        group = self.broker.group(self.broker.open(ask.queue, create=False), ask.group)
        settings = group.settings()
        has: Filter = settings["filter"]
        if ask.filter is not msgspec.UNSET:
            wants = stored_filter(compile_filter(ask.kind, ask.filter or ""))
            if (has.kind, has.source) != (wants.kind, wants.source):
                raise mismatch(ask, told(has), told(wants))
        if isinstance(ask.order, str) and ask.order != settings["order"]:
            raise mismatch(ask, f"the order {settings['order']}", f"the order {ask.order}")

    def shown(self, ask: asks.Group) -> Answer:
        group = self.broker.group(self.broker.open(ask.queue, create=False), ask.group)
        settings = group.settings()
        has: Filter = settings["filter"]
        return {
            "queue": ask.queue, "group": ask.group, "id": group.id, "kind": has.kind,
            "filter": has.source, "generation": has.generation, "order": settings["order"],
            "retry": self.policy(group, settings["retry"]), **group.stat(),
        }

    def policy(self, group: Consumer, stored: tuple[int, int, tuple[int, ...]] | None) -> Any:
        """A retry policy in words; dead_letter is null if that queue was deleted."""
        if stored is None:
            return None
        attempts, number, backoff_ms = stored
        name: str | None = ""
        if number:
            try:
                name = self.broker.by_id(number).name
                self.broker.show(name)
            except BrokerError:
                name = None
        return {"max_attempts": attempts, "dead_letter": name, "backoff_ms": list(backoff_ms)}


def mismatch(ask: asks.Group, has: str, wants: str) -> FilterMismatchError:
    return FilterMismatchError(
        Kind.EXISTS,
        f"group {ask.group!r} of queue {ask.queue} has {has}, not {wants}: "
        "its members share one; change it for all of them, or take another group")


def told(has: Filter) -> str:
    """A filter in words."""
    return f"the {has.kind} filter {has.source!r}" if has.kind else "no filter"
