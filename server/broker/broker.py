"""Names to queues, and what may be done to a queue as a whole. No wire, no clock, no loop."""

import re
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar, cast

from penstock.engine._core import Consumer, Queue, Store
from penstock.engine.errors import EngineError
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.limits import Limits
from penstock.server.broker.producers import Producers

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

NAME = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)?(?!\.+\Z)[A-Za-z0-9._-]+", re.ASCII)
NAME_CHARACTERS = 128
OFFSET, TIME, EARLIEST, LATEST = range(4)


def refusing(function: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """The same method, whose engine errors come out as the broker's."""

    @wraps(function)
    def wrapper(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(self, *args, **kwargs)
        except EngineError as error:
            raise refusal(error) from error

    return cast("Callable[Concatenate[S, P], R]", wrapper)


class Broker:
    """The queues of one store, by name and by number.

    Invariants:
      1. A queue in queues was open in this process when it was put there; another
         process may have deleted it since, and the engine then says NOT_FOUND.
      2. queues holds at most limits.route_names entries; it is a cache.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self.store = store
        self.limits = limits
        # Who can be asked for the verdicts on halves; every adapter's producers.
        self.producers = Producers()
        self.queues: dict[int, Queue] = {}
        self.lock = Lock()
        # Asked before a queue is made, with its name and those there are; may refuse.
        self.guards: list[Callable[[str, list[str]], None]] = []
        # What the quotas say to a send: Gates.admit of the server's hub; without a server nothing.
        self.gate: Callable[..., int] = lambda *_, **__: 0
        # Where clients find doors of this server that another door tells them about: HOST:PORT by
        # name; without a host it is the one that they reached us by.
        self.doors: dict[str, str] = {}
        # The access key that the operator gave in the environment: its id and its secret.
        self.root: tuple[str, str] | None = None

    @refusing
    def open(self, name: str, *, create: bool) -> Queue:
        """The queue of that name. Creates it if asked and absent; else raises NOT_FOUND."""
        if create and self.guards:
            self._guard(checked(name))
        # Partitions of topics are read like queues; they are made and removed with their topic.
        topic, parted, partition = name.rpartition("#")
        known = not create and parted and partition.isdecimal() and checked(topic)
        queue = self.store.queue(name if known else checked(name), create=create)
        self._remember(queue)
        return queue

    def create(self, name: str) -> tuple[Queue, bool]:
        """The queue and whether it is new."""
        try:
            return self.open(name, create=False), False
        except BrokerError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
        return self.open(name, create=True), True

    @refusing
    def by_id(self, number: int) -> Queue:
        """The queue with that number. Raises NOT_FOUND."""
        found = self.queues.get(number)
        if found is not None:
            return found
        # A client may hold the number from another worker or from before a restart.
        for name in self.store.queues():
            queue = self.store.queue(name, create=False)
            if queue.id == number:
                self._remember(queue)
                return queue
        raise BrokerError(Kind.NOT_FOUND, f"there is no queue number {number}")

    @refusing
    def names(self, prefix: str = "") -> list[str]:
        """The names of all queues, sorted; not those of topics' partitions."""
        return sorted(
            name for name in self.store.queues() if name.startswith(prefix) and "#" not in name)

    @refusing
    def show(self, name: str) -> dict[str, int | str]:
        """The numbers of one queue."""
        queue = self.open(name, create=False)
        return {"name": name, "id": queue.id, **queue.stat()}

    @refusing
    def delete(self, name: str) -> None:
        """Remove the queue and what is in it."""
        queue = self.open(checked(name), create=False)
        self.store.delete(name)
        with self.lock:
            self.queues.pop(queue.id, None)

    @refusing
    def purge(self, name: str, keep_ms: int = 0) -> int:
        """Remove what is in the queue; returns how many messages that were.

        keep_ms: for so long unpurge takes it back.
        """
        if not isinstance(keep_ms, int) or not 0 <= keep_ms < 1 << 63:
            raise BrokerError(Kind.INVALID, "keep_ms is a number of milliseconds")
        return self.open(checked(name), create=False).purge(keep_ms=keep_ms)

    @refusing
    def unpurge(self, name: str) -> dict[str, int]:
        """Take purges back that are still kept: the first offset, how many messages come again."""
        first, count = self.open(checked(name), create=False).unpurge()
        return {"offset": first, "count": count}

    @refusing
    def group(self, queue: Queue, name: str) -> Consumer:
        """The consumer group of that name, made if absent; the empty name is the queue's own."""
        # Members of a group (GROUP@MEMBER) are made by joining.
        if "@" in name:
            return self.existing(queue, name)
        return queue.group(checked(name) if name else "")

    @refusing
    def existing(self, queue: Queue, name: str) -> Consumer:
        """The consumer group of that name. Raises NOT_FOUND; looking makes none."""
        if name not in queue.groups():
            raise BrokerError(Kind.NOT_FOUND, f"queue {queue.name} has no group {name!r}")
        return queue.group(name)

    @refusing
    def groups(self, queue: Queue) -> dict[str, int]:
        """The numbers of the queue's groups by name."""
        return queue.groups()

    def consumer(self, queue: Queue, group: int) -> Consumer:
        """The group with that number, 0 being the queue's own. Raises NOT_FOUND."""
        own = self.group(queue, "")
        if group in (0, own.id):
            return own
        for name, number in self.groups(queue).items():
            if number == group:
                return self.group(queue, name)
        raise BrokerError(Kind.NOT_FOUND, f"queue {queue.name} has no group number {group}")

    @refusing
    def seek(self, consumer: Consumer, kind: int, value: int) -> tuple[int, int]:
        """Move the group; returns where it is now and how many messages will come again."""
        if kind == TIME:
            return consumer.seek(time_us=value)
        return consumer.seek(offset=self.position(consumer.queue, kind, value))

    @refusing
    def position(self, queue: Queue, kind: int, value: int) -> int:
        """The offset that (kind, value) means. Raises INVALID for another kind."""
        if kind == OFFSET:
            return value
        if kind == TIME:
            return queue.offset_at(value)
        if kind == EARLIEST:
            return 0
        if kind == LATEST:
            return next_offset(queue)
        raise BrokerError(Kind.INVALID, f"kind is 0 to 3, not {kind}")

    def admit(
        self, queue: int, messages: int, size: int, *, waits: bool = False, key: int = 0
    ) -> None:
        """Charge a send to the quotas that bind it. Raises THROTTLED if one lets none pass now.

        waits: for its time or its verdict; key: the number of the access key it is signed with.
        """
        closed_ms = self.gate(queue, messages, size, waits=waits, key=key)
        if closed_ms:
            raise throttled(closed_ms)

    def _guard(self, name: str) -> None:
        # Only one with a namespace can be refused, and only if it is not there yet.
        if "/" in name:
            names = self.store.queues()
            if name not in names:
                for guard in self.guards:
                    guard(name, names)

    def _remember(self, queue: Queue) -> None:
        with self.lock:
            if len(self.queues) >= self.limits.route_names:
                self.queues.clear()
            self.queues[queue.id] = queue


def throttled(retry_after_ms: int) -> BrokerError:
    """The refusal of what is over a quota."""
    text = "over a quota of the queue, its namespace or the access key"
    return BrokerError(Kind.THROTTLED, text, retry_after_ms=retry_after_ms)


def crowded(retry_after_ms: int) -> BrokerError:
    """The refusal of one connection more than a namespace may have."""
    text = "the namespace has as many connections as its quota lets it have"
    return BrokerError(Kind.THROTTLED, text, retry_after_ms=retry_after_ms)


def checked(name: str) -> str:
    """The name itself: queue, or namespace/queue. Raises INVALID for another."""
    if len(name) > NAME_CHARACTERS or NAME.fullmatch(name) is None:
        raise BrokerError(
            Kind.INVALID,
            "a name is 1 to 128 of the characters A-Z a-z 0-9 . _ - with one / behind a namespace, "
            "and not of dots alone",
        )
    return name


def checked_namespace(name: str) -> str:
    """The name of a namespace. Raises INVALID for another."""
    if "/" in name:
        raise BrokerError(Kind.INVALID, "a namespace's name has no /")
    checked(f"{name}/q")
    return name


def next_offset(queue: Queue) -> int:
    """The offset that the next message of the queue will have."""
    return queue.stat()["next"]
