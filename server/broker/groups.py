"""What is set for a group: asked and changed through every door."""

from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engine.errors import EngineError
from penstock.engine.filters import Filter, compile_filter, stored_filter
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind, refusal

Answer = dict[str, Any]


class FilterMismatchError(BrokerError):
    """A member asks for another filter than its group has."""


class Groups:
    """The asks: group.show, group.set, group.join."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.asks: dict[str, Callable[[asks.Group], Answer]] = {
            "group.show": self.show, "group.set": self.set, "group.join": self.join,
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer. Raises BrokerError; INVALID says which field is wrong, or which column."""
        try:
            return self.asks[do](msgspec.convert(fields, asks.Group))
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
        """Make the group if it is absent, and change what the ask names."""
        group = self.broker.group(self.broker.open(ask.queue, create=False), ask.group)
        if ask.filter is not msgspec.UNSET:
            group.filter(ask.kind if ask.filter else None, ask.filter or "")
        return self.shown(ask)

    def join(self, ask: asks.Group) -> Answer:
        """Be a member: a group that is made gets the filter, another one must have it."""
        queue = self.broker.open(ask.queue, create=False)
        if ask.group not in self.broker.groups(queue):
            compile_filter(ask.kind, ask.filter or "")  # before the group is made
            return self.set(ask)
        self.expect(ask)
        return self.shown(ask)

    def expect(self, ask: asks.Group) -> None:
        """Raise FilterMismatchError if the ask names a filter that its group does not have."""
        if ask.filter is msgspec.UNSET:
            return
        group = self.broker.group(self.broker.open(ask.queue, create=False), ask.group)
        has: Filter = group.settings()["filter"]
        wants = stored_filter(compile_filter(ask.kind, ask.filter or ""))
        if (has.kind, has.source) != (wants.kind, wants.source):
            raise FilterMismatchError(
                Kind.EXISTS,
                f"group {ask.group!r} of queue {ask.queue} has {told(has)}, not {told(wants)}: "
                "its members share one; change it for all of them, or take another group")

    def shown(self, ask: asks.Group) -> Answer:
        group = self.broker.group(self.broker.open(ask.queue, create=False), ask.group)
        has: Filter = group.settings()["filter"]
        return {
            "queue": ask.queue, "group": ask.group, "id": group.id, "kind": has.kind,
            "filter": has.source, "generation": has.generation, **group.stat(),
        }


def told(has: Filter) -> str:
    """A filter in words."""
    return f"the {has.kind} filter {has.source!r}" if has.kind else "no filter"
