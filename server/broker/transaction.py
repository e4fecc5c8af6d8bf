"""Halves: prepared, committed or rolled back, and asked about when nobody says what came of them.

The state machine is the engine's: PENDING_RULES in engine/_pending.pxi is all that is legal.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from penstock.engine._core import Queue, SendReceipt
from penstock.engine.attributes import Attributes
from penstock.engine.errors import EngineError
from penstock.engine.pending import Pending
from penstock.server.broker.broker import Broker, refusing
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.producers import Check, Producers
from penstock.server.broker.schedule import Schedule

if TYPE_CHECKING:
    from penstock.engine._core import Durability

ASKED_AT_ONCE = 100
ASKED_A_TURN = 1000
EXPIRED_AT_ONCE = 1000


class CheckBack(NamedTuple):
    """When producers are asked: first after first_ms, then each interval_ms, at most limit times.

    A half that was asked about so often, and interval_ms later has no verdict, is rolled back.
    """

    first_ms: int = 6_000
    interval_ms: int = 30_000
    limit: int = 15

    @property
    def text(self) -> str:
        """As the attribute check_back has it."""
        return f"{self.interval_ms} {self.limit}"

    @classmethod
    def read(cls, text: str) -> "CheckBack":
        """What a half says; what is missing or senseless is the default."""
        try:
            interval_ms, limit = map(int, text.split())
        except ValueError:
            return cls()
        return cls(interval_ms=interval_ms, limit=limit)


class Transactions:
    """The halves of one store, as every adapter sees them.

    Invariants:
      1. Whoever asks has claimed the check first, by a record in the log: of all workers one
         asks, and how often is known after a crash.
      2. A check is claimed by a worker that has a live producer of the group, so a half whose
         producers are all away is not asked about and its checks are not used up. It is rolled
         back when it is older than limits.half_ms.
    """

    def __init__(self, broker: Broker, producers: Producers | None = None) -> None:
        self.broker = broker
        self.limits = broker.limits
        self.producers = broker.producers if producers is None else producers
        self.schedule = Schedule(broker)
        self.pending = broker.store.pending

    @refusing
    def prepare(
        self, queue: Queue, body: bytes, attributes: Attributes | None = None, *, group: str = "",
        check_back: CheckBack = CheckBack(), delay_ms: int | None = None, due_us: int | None = None,
        durability: "Durability | None" = None, producer: int = 0, sequence: int = 0,
    ) -> SendReceipt:
        """Store a half: nobody sees it until commit(receipt.pending), rollback drops it.

        group: the producers that can be asked for its verdict. With a delay or a time it comes
        when it is committed and due. Raises INVALID, NOT_FOUND, TOO_LARGE.
        """
        due = self.schedule.due_us(delay_ms, due_us)
        self.schedule.fits([body])
        self.checked(check_back)
        carried = replace(
            attributes or Attributes(), producer_group=group_checked(group),
            check_back="" if check_back[1:] == CheckBack()[1:] else check_back.text)
        return queue.prepare(
            body, attributes=carried, due_us=due, check_ms=check_back.first_ms,
            durability=durability, producer=producer, sequence=sequence)

    @refusing
    def commit(self, id: int) -> SendReceipt:
        """Let a half into its queue. Repeated, it answers as the first, with duplicate true.

        The receipt's pending is the id if it still waits for its time. Raises NOT_FOUND, EXISTS
        if it was rolled back before, INVALID for what is no half.
        """
        return self.pending.commit(id)

    @refusing
    def rollback(self, id: int) -> bool:
        """Drop a half: True, or False if it was before. Raises as commit; EXISTS if committed."""
        return self.pending.rollback(id)

    def admit(self, messages: "Sequence[tuple[Queue, bytes, Attributes | None, int]]") -> None:
        """Charge what send_all gets to the quotas. Raises THROTTLED if one lets no send pass."""
        for number, waits in {(queue.id, due_us > 0) for queue, _, _, due_us in messages}:
            sizes = [len(body) for queue, body, _, due_us in messages
                     if queue.id == number and (due_us > 0) == waits]
            self.broker.admit(number, len(sizes), sum(sizes), waits=waits)

    @refusing
    def send_all(
        self, messages: "Sequence[tuple[Queue, bytes, Attributes | None, int]]",
        durability: "Durability | None" = None, *, producer: int = 0, sequence: int = 0,
    ) -> list[SendReceipt]:
        """Store messages, (queue, body, attributes, due_us or 0) each, all of them or none.

        producer and sequence: one number for all; repeated, it is answered as the first time.
        """
        if not messages:
            raise BrokerError(Kind.INVALID, "an atomic send has at least one message")
        limit = self.limits.atomic_messages
        if len(messages) > limit:
            text = f"an atomic send has up to {limit} messages"
            raise BrokerError(Kind.TOO_LARGE, text, limit=limit)
        self.schedule.fits([body for _, body, _, _ in messages])
        with self.broker.store.batch(durability, producer=producer, sequence=sequence) as batch:
            for queue, body, attributes, due_us in messages:
                batch.append(queue, body, attributes=attributes, due_us=due_us)
        return batch.receipts

    @refusing
    def check(self) -> int:
        """Ask live producers about the halves whose time has come; how many were asked about.

        One turn, bounded; called again and again by each worker.
        """
        asked = 0
        groups = self.producers.groups()
        while groups and asked < ASKED_A_TURN:
            now_us = self.schedule.now_us()
            due = self.pending.list(
                high_us=now_us + 1, limit=ASKED_AT_ONCE, state="half", producer_groups=groups)
            found = [check for one in due
                     if (check := self.read(one)) is not None and check.group in groups]
            told = [CheckBack.read(check.attributes.check_back) for check in found]
            again = [
                now_us + back.interval_ms * 1000 if check.checks < back.limit else None
                for check, back in zip(found, told)
            ]
            ours = self.pending.claim(
                [(check.id, check.checks, when) for check, when in zip(found, again)])
            for check, when, mine in zip(found, again, ours):
                if mine and when is not None:
                    self.producers.hand(check)
            asked += len(found)
            if len(due) < ASKED_AT_ONCE or not any(ours):
                break
        return asked

    @refusing
    def expire(self) -> int:
        """Roll back the halves that are older than limits.half_ms; how many."""
        now_us = self.schedule.now_us()
        after, dropped = None, 0
        while True:
            page = self.pending.list(
                high_us=now_us + 1, limit=EXPIRED_AT_ONCE, state="half", after=after)
            old = [one for one in page if one.stored_us + self.limits.half_ms * 1000 <= now_us]
            dropped += sum(self.pending.claim([(one.id, one.checks, None) for one in old]))
            if len(page) < EXPIRED_AT_ONCE:
                return dropped
            after = page[-1]

    def read(self, one: Pending) -> Check | None:
        """A half with its message; None if it was decided meanwhile or is damaged."""
        try:
            body, ext, attributed = self.pending.read(one.id)
            queue = self.broker.store.queue(one.queue, create=False)
        except EngineError:
            return None
        check = Check(
            one.id, one.queue, queue.id, "", body, ext, attributed, one.stored_us, one.checks)
        return check._replace(group=check.attributes.producer_group)

    def checked(self, back: CheckBack) -> None:
        """Raise INVALID for times and counts that cannot be."""
        longest, most = self.limits.check_ms, self.limits.checks
        if not 0 <= back.first_ms <= longest or not 100 <= back.interval_ms <= longest:
            text = f"producers are asked after 0 ms or more, each 100 to {longest} ms"
            raise BrokerError(Kind.INVALID, text, limit=longest)
        if not 1 <= back.limit <= most:
            raise BrokerError(Kind.INVALID, f"producers are asked 1 to {most} times", limit=most)


def group_checked(group: str) -> str:
    """The name of a group of producers itself. Raises INVALID."""
    if len(group.encode()) > 255:
        raise BrokerError(Kind.INVALID, "a producer group's name has up to 255 bytes", limit=255)
    return group
