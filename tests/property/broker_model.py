"""What a queue's groups may and must do, in plain Python: the model of test_broker_model.py.

Times are seconds that the test says have passed; nothing here looks at a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ATTEMPTS = 3
WINDOW_S = 36_000.0


@dataclass(frozen=True)
class Message:
    body: bytes
    key: str
    tag: str


@dataclass
class Log:
    """What was sent, in order, and for each key the offsets that have it."""

    messages: list[Message] = field(default_factory=list)
    lines: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.messages)

    def __getitem__(self, offset: int) -> Message:
        return self.messages[offset]

    def add(self, messages: Iterable[Message]) -> None:
        for message in messages:
            self.lines.setdefault(message.key, []).append(len(self.messages))
            self.messages.append(message)


@dataclass
class Lease:
    receipt: bytes
    until: float
    tries: int


@dataclass
class Group:
    """One group: what it wants, what it is done with, who holds what, what waits until when.

    Invariants, held by check(): none is given that is done with, is held, waits, is not wanted or
    comes before its turn; none is given more often than allowed.
    """

    order: str = "none"
    tag: str = ""
    limited: bool = False
    done: set[int] = field(default_factory=set)
    leases: dict[int, Lease] = field(default_factory=dict)
    waiting: dict[int, float] = field(default_factory=dict)
    tries: dict[int, int] = field(default_factory=dict)
    # Of a first delivery a crash may take the count back.
    unsure: set[int] = field(default_factory=set)
    # Given back for the last time: on its way to the dead letters, or there.
    dying: set[int] = field(default_factory=set)
    # For each key how much of its line is done with; see first().
    passed: dict[str, int] = field(default_factory=dict)

    def wants(self, message: Message) -> bool:
        return not self.tag or message.tag == self.tag

    def expire(self, now: float) -> None:
        self.leases = {at: one for at, one in self.leases.items() if one.until > now}
        self.waiting = {at: until for at, until in self.waiting.items() if until > now}

    def used_up(self, offset: int) -> bool:
        return self.limited and self.tries.get(offset, 0) >= ATTEMPTS

    def may_die(self, offset: int) -> bool:
        """Whether it may be moved to the dead letters now."""
        return offset not in self.done and (offset in self.dying or (
            self.used_up(offset) and offset not in self.leases))

    def blocked(self, log: Log, offset: int) -> bool:
        """Whether something must be done with before it may be given."""
        if self.order == "none" or (self.order == "key" and not log[offset].key):
            return False
        if self.order == "strict":
            return self.first(log, "", range(len(log))) < offset
        key = log[offset].key
        return self.first(log, key, log.lines[key]) < offset

    def first(self, log: Log, key: str, line: Sequence[int]) -> int:
        """The first of a line that is wanted and not done with: only a seek moves it back."""
        at = self.passed.get(key, 0)
        while at < len(line) and (line[at] in self.done or not self.wants(log[line[at]])):
            at += 1
        self.passed[key] = at
        return line[at] if at < len(line) else len(log)

    def ready(self, log: Log, offset: int) -> bool:
        """Whether nothing keeps it from being given."""
        return (
            offset not in self.done and offset not in self.leases and offset not in self.waiting
            and not self.may_die(offset) and self.wants(log[offset])
            and not self.blocked(log, offset)
        )

    def check(self, log: Log, offset: int, tries: int) -> None:
        """It was given: every rule that it may have broken."""
        assert offset < len(log), "nobody sent it"
        assert offset not in self.done, f"{offset} was confirmed"
        assert offset not in self.leases, f"{offset} is leased to somebody"
        assert offset not in self.waiting, f"{offset} comes early"
        assert offset not in self.dying, f"{offset} is a dead letter"
        assert self.wants(log[offset]), f"{offset} is not wanted"
        assert not self.blocked(log, offset), f"{offset} comes before its turn"
        sure = self.tries.get(offset, 0) + 1
        assert tries == sure or (offset in self.unsure and sure == 2 and tries == 1)
        assert not self.limited or tries <= ATTEMPTS

    def give(self, offset: int, lease: Lease, now: float) -> None:
        self.tries[offset] = lease.tries
        self.unsure.discard(offset)
        if lease.until > now:
            self.leases[offset] = lease

    def holds(self, offset: int, receipt: bytes) -> bool:
        return offset in self.leases and self.leases[offset].receipt == receipt

    def confirm(self, offset: int) -> None:
        self.done.add(offset)
        self.leases.pop(offset, None)
        self.waiting.pop(offset, None)
        self.dying.discard(offset)

    def release(self, offset: int, until: float | None) -> None:
        del self.leases[offset]
        if self.used_up(offset):
            self.dying.add(offset)
        elif until is not None:
            self.waiting[offset] = until

    def seek(self, offset: int) -> None:
        """Start again there: receipts, delays and counts are those of another life."""
        self.done = set(range(offset))
        for gone in (self.leases, self.waiting, self.tries, self.passed):
            gone.clear()
        self.dying.clear()
        self.unsure.clear()

    def advance(self, offset: int) -> None:
        for at in range(offset):
            self.confirm(at)

    def restart(self, crashed: bool) -> None:
        """Leases end; delays, counts and confirmations stay."""
        if crashed:
            self.unsure |= {at for at, tries in self.tries.items() if tries == 1}
        self.leases.clear()


@dataclass
class Ids:
    """Which ids are known, and what offset they have."""

    known: dict[str, tuple[int, float]] = field(default_factory=dict)

    def find(self, name: str, now: float) -> int | None:
        offset, stored = self.known.get(name, (0, -1e9))
        return offset if now - stored < WINDOW_S else None

    def store(self, name: str, offset: int, now: float) -> None:
        self.known[name] = (offset, now)
