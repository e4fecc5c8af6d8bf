"""CMQ's queues in the broker's words: made, listed, described, changed, rewound, deleted."""

import re
from typing import Any, NamedTuple

from penstock.engine._core import Consumer, Queue
from penstock.engine.errors import EngineError
from penstock.engine.retries import Retry
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import BY_COUNT, Given, Rules
from penstock.server.broker.cmq.faults import FAULTS, CmqError, Fault
from penstock.server.broker.defaults import Defaults, QueueDefaults
from penstock.server.broker.errors import BrokerError, Kind, refusal

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
SECOND_US = 1_000_000
PENDING_COUNTED = 10_000
LATEST_REWIND_S = 60


class Found(NamedTuple):
    """A queue, its own group, and what it says for requests that do not say it."""

    queue: Queue
    group: Consumer
    defaults: Defaults


class CmqQueues:
    """What is done to CMQ's queues. Every refusal is a CmqError."""

    def __init__(self, broker: Broker, rules: Rules) -> None:
        self.broker = broker
        self.store = broker.store
        self.rules = rules
        self.defaults = QueueDefaults(broker)

    def find(self, name: str) -> Found:
        """The queue of that name, whichever door made it."""
        checked_queue(name)
        try:
            queue = self.broker.open(name, create=False)
            return Found(queue, self.broker.group(queue, ""), self.defaults.of(name))
        except BrokerError as error:
            raise queue_fault(error) from error

    def names(self) -> list[str]:
        """The queues that a CMQ client can name, sorted."""
        return [name for name in self.broker.names() if NAME.fullmatch(name)]

    def create(self, name: str, given: Given, now_us: int) -> str:
        """Make a queue; its id. Names are unique ignoring case."""
        checked_queue(name)
        given.check(self.rules)
        names = self.names()
        if name.casefold() in {one.casefold() for one in names}:
            raise CmqError(Fault.QUEUE_EXISTS)
        if len(names) >= self.rules.queues:
            raise CmqError(Fault.QUEUES)
        self.bound(name, given)
        version = self.defaults.noted(name)[1]
        try:
            # The note comes first: of two who make it at once, one is told that it is there.
            self.defaults.set(name, given.defaults(Defaults(), now_us), expect=version)
            queue = self.broker.open(name, create=True)
            queue.configure(keep="unconfirmed")
            self.configure(queue, given)
        except BrokerError as error:
            if error.kind is Kind.EXISTS:
                raise CmqError(Fault.QUEUE_EXISTS) from error
            if error.kind in (Kind.STORE_FULL, Kind.THROTTLED):
                raise CmqError(Fault.QUEUES, error.text) from error
            raise queue_fault(error) from error
        return queue_id(queue)

    def page(self, search: str, offset: int, limit: int) -> tuple[int, list[tuple[str, str]]]:
        """How many names have search in them, and (id, name) of those from offset on."""
        names = [name for name in self.names() if search in name]
        rows = []
        for name in names[offset:offset + limit]:
            try:
                rows.append((queue_id(self.broker.open(name, create=False)), name))
            except BrokerError as error:
                if error.kind is not Kind.NOT_FOUND:
                    raise queue_fault(error) from error
        return len(names), rows

    def describe(self, name: str) -> dict[str, Any]:
        """The attributes of a queue and its counters, times in µs."""
        queue, group, defaults = self.find(name)
        try:
            # Who takes nothing still notices which leases are over.
            group.receive(0)
            stat, kept = queue.stat(), queue.settings()
            retry = group.settings()["retry"]
            pending = self.pending(queue)
        except EngineError as error:
            raise queue_fault(refusal(error)) from error
        live = stat["ready"] + stat["in_flight"]
        held = stat["visible"] - stat["first"]
        low = max(stat["floor"], stat["first"])
        oldest = [] if low >= stat["visible"] else queue.index(low, low + 1)["stored_us"].tolist()
        return {
            "id": queue_id(queue), "name": name, "defaults": defaults,
            "retention_s": kept["retain_ms"] // 1000, "rewind_s": kept["rewind_ms"] // 1000,
            "created_us": stat["created_us"],
            "changed_us": max(defaults.changed_us, stat["created_us"]),
            "active": stat["ready"], "inactive": stat["in_flight"], "delayed": pending,
            "rewindable": max(0, held - live) if kept["rewind_ms"] else 0,
            "oldest_us": oldest[0] if oldest else 0,
            "max_receive": retry[0] if retry else 0,
        }

    def pending(self, queue: Queue) -> int:
        """How many messages wait for their time, or for a verdict."""
        count, after = 0, None
        while len(self.store.pending):
            found = self.store.pending.list(queue, limit=PENDING_COUNTED, after=after)
            count += len(found)
            if len(found) < PENDING_COUNTED:
                break
            after = found[-1]
        return count

    def set(self, name: str, given: Given, now_us: int) -> None:
        """Change what is given; the rest stays as it is."""
        queue, _, _ = self.find(name)
        given.check(self.rules)
        self.bound(name, given)
        while True:
            before, version = self.defaults.noted(name)
            try:
                self.defaults.set(name, given.defaults(before, now_us), expect=version)
                break
            except BrokerError as error:
                if error.kind is not Kind.EXISTS:
                    raise queue_fault(error) from error
        self.configure(queue, given)

    def configure(self, queue: Queue, given: Given) -> None:
        """What of the attributes the engine keeps."""
        retention, rewind = given.retention_s, given.rewind_s
        try:
            queue.configure(
                retain_ms=None if retention is None else retention * 1000,
                rewind_ms=None if rewind is None else rewind * 1000,
                # What was confirmed is not replayable any more, or for so long.
                keep=None if rewind is None else "unconfirmed",
            )
            if given.dead_letter is not None:
                by_count = given.dead_letter and given.policy == BY_COUNT
                retry = Retry(given.max_receive or 1, given.dead_letter, ()) if by_count else (
                    Retry(0, "", ()))
                queue.group().configure(retry=retry)
        except EngineError as error:
            raise queue_fault(refusal(error)) from error

    def bound(self, name: str, given: Given) -> None:
        """Raises DEAD_LETTER if the queue that is named cannot be the one for the dead of name."""
        if not given.dead_letter:
            return
        dead = self.find(given.dead_letter)
        others = self.sources(given.dead_letter)
        if given.dead_letter == name:
            raise CmqError(Fault.DEAD_LETTER, "a queue is not its own dead letter queue")
        if dead.defaults.transactions:
            raise CmqError(Fault.DEAD_LETTER, "a transaction queue cannot be one")
        if dead.defaults.dead_letter or self.sources(name):
            raise CmqError(Fault.DEAD_LETTER, "a dead letter queue has none itself")
        if name not in others and len(others) >= self.rules.sources:
            raise CmqError(Fault.DEAD_LETTER, f"it has {len(others)} source queues already")

    def sources(self, dead: str) -> list[str]:
        """The queues whose dead letters go to that one."""
        return sorted(n for n, one in self.defaults.all().items() if one.dead_letter == dead)

    def unbind(self, name: str, now_us: int) -> None:
        """The queue has no dead letters any more; those there are stay where they are."""
        if not self.find(name).defaults.dead_letter:
            raise CmqError(Fault.DEAD_LETTER, "no dead letter queue is bound")
        self.set(name, Given(dead_letter=""), now_us)

    def delete(self, name: str) -> None:
        """Remove the queue and what is in it; one that gets dead letters is kept."""
        self.find(name)
        if self.sources(name):
            raise CmqError(Fault.DEAD_LETTER, "unbind it from its source queues first")
        try:
            self.broker.delete(name)
            self.defaults.remove(name)
        except BrokerError as error:
            raise queue_fault(error) from error

    def clear(self, name: str) -> None:
        """Remove what is in the queue."""
        self.find(name)
        self.broker.purge(name)

    def rewind(self, name: str, time_s: int, now_us: int) -> None:
        """Every message produced at or after the time can be received again."""
        queue, group, _ = self.find(name)
        span_ms = queue.settings()["rewind_ms"]
        if not span_ms:
            raise CmqError(Fault.NOT_REWINDABLE)
        now_s = now_us // SECOND_US
        earliest = now_s - span_ms // 1000 - LATEST_REWIND_S if self.rules.strict else 0
        if not max(1, earliest) <= time_s <= now_s + LATEST_REWIND_S:
            raise CmqError(Fault.REWIND_TIME)
        try:
            group.rewind(time_us=time_s * SECOND_US)
        except EngineError as error:
            raise queue_fault(refusal(error)) from error


def checked_queue(name: str) -> str:
    """The name itself; QUEUE_NAME for another."""
    if not NAME.fullmatch(name):
        raise CmqError(Fault.QUEUE_NAME)
    return name


def queue_id(queue: Queue) -> str:
    """As CMQ writes it; another queue of the same name gets another one."""
    return f"queue-{queue.id:08x}"


def queue_fault(error: BrokerError) -> CmqError:
    """The refusal of something asked of a queue."""
    return CmqError(FAULTS[error.kind], "" if error.kind is Kind.NOT_FOUND else error.text)
