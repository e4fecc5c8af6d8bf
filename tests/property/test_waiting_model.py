"""What waits, in the broker's words and with two workers, held against a dict: any order of sends,
verdicts, checks, producers that come and go, clock steps, restarts and crashes.

Times are whole hours and half ones, so that the seconds a test takes change nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine_language import killed, messages, unattended
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule

from penstock.engine.check import check
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.producers import Check, Member
from penstock.server.broker.transaction import CheckBack, Transactions

HALF_HOUR = 1_800_000_000
QUEUES = ("red", "blue")
GROUPS = ("bank", "shop")
LIFE = 72               # of a half, in half hours
hours = st.integers(1, 40)


@dataclass
class Waiting:
    """One message that was delayed or prepared; times in half hours since the start."""

    queue: str
    body: bytes
    due: int
    group: str | None = None        # of a half
    sent: int = 0
    asked: int = 0                  # when its producers are asked next
    checks: int = 0
    limit: int = 3
    committed: bool = False
    verdict: str = ""               # placed or dropped
    offset: int | None = None
    text: str = field(default="")


class Worker:
    """One process's view: a broker with producers of its own."""

    def __init__(self, path: Path) -> None:
        self.store = unattended(path)
        self.broker = Broker(self.store, Limits(half_ms=LIFE * HALF_HOUR // 1000))
        self.halves = Transactions(self.broker)
        self.schedule = self.halves.schedule
        self.members: dict[str, Member] = {}


class Schedule(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.start = time.time_ns() // 1000
        self.now = 0            # the clock stands at even half hours, times are odd ones
        self.count = 0
        self.model: dict[int, Waiting] = {}
        self.heard: list[Check] = []
        self.open()

    def open(self) -> None:
        self.workers = [Worker(self.root) for _ in range(2)]
        for name in QUEUES:
            self.workers[0].store.queue(name)
        self.tick()

    def tick(self) -> None:
        for worker in self.workers:
            worker.store._clock(self.now * HALF_HOUR)

    def at(self, half_hours: int) -> int:
        return self.start + half_hours * HALF_HOUR

    def of(self, at: int) -> Worker:
        return self.workers[at % 2]

    def body(self) -> bytes:
        self.count += 1
        return b"%d" % self.count

    @rule(target=ids, at=st.integers(0, 1), name=st.sampled_from(QUEUES), after=hours)
    def delay(self, at: int, name: str, after: int) -> int:
        one = Waiting(name, self.body(), self.now + 2 * after - 1, sent=self.now)
        worker = self.of(at)
        queue = worker.broker.open(name, create=False)
        receipt = worker.schedule.send(queue, one.body, due_us=self.at(one.due))
        one.text = receipt.id
        assert receipt.pending and receipt.pending not in self.model
        self.model[receipt.pending] = one
        return receipt.pending

    @rule(target=ids, at=st.integers(0, 1), name=st.sampled_from(QUEUES),
          group=st.sampled_from(GROUPS), after=st.none() | hours, limit=st.integers(1, 3))
    def prepare(self, at: int, name: str, group: str, after: int | None, limit: int) -> int:
        worker, due = self.of(at), self.now + 2 * after - 1 if after else 0
        # Asked after half an hour, then each hour and a half.
        back = CheckBack(HALF_HOUR // 1000, 3 * HALF_HOUR // 1000, limit)
        body = self.body()
        receipt = worker.halves.prepare(
            worker.broker.open(name, create=False), body, group=group, check_back=back,
            due_us=self.at(due) if due else None)
        id = receipt.pending
        assert id and id not in self.model
        stored = worker.store.pending.get(id)
        # A stored time does not step back: it may be later than the clock.
        sent = round((stored.stored_us - self.start) / HALF_HOUR)
        asked = round((stored.due_us - self.start) / HALF_HOUR)
        assert asked == sent + 1 > self.now
        self.model[id] = Waiting(name, body, due, group, sent, asked, limit=limit, text=receipt.id)
        return id

    @rule(id=ids, at=st.integers(0, 1))
    def commit(self, id: int, at: int) -> None:
        one, halves = self.model[id], self.of(at).halves
        if one.group is None:
            self.refused(Kind.INVALID, lambda: halves.commit(id))
        elif one.verdict == "dropped" and not one.committed:
            self.refused(Kind.EXISTS, lambda: halves.commit(id))
        else:
            receipt = halves.commit(id)
            assert receipt.duplicate == one.committed
            self.committed(id, one, receipt.offset, receipt.pending)

    def committed(self, id: int, one: Waiting, offset: int, pending: int | None) -> None:
        """A commit was answered so: the first and all that repeat it say the same."""
        if not one.committed and one.due <= self.now:
            one.verdict, one.offset = "placed", offset
        one.committed = True
        if one.verdict == "placed":
            assert pending is None
            one.offset = offset if one.offset is None else one.offset
            assert offset == one.offset
        elif one.verdict == "":
            assert pending == id
        else:
            # It was cancelled while it waited for its time: there is no offset to tell.
            assert pending is None

    @rule(id=ids, at=st.integers(0, 1))
    def rollback(self, id: int, at: int) -> None:
        one, halves = self.model[id], self.of(at).halves
        if one.group is None:
            self.refused(Kind.INVALID, lambda: halves.rollback(id))
        elif one.committed:
            self.refused(Kind.EXISTS, lambda: halves.rollback(id))
        else:
            assert halves.rollback(id) == (one.verdict == "")
            one.verdict = "dropped"

    @rule(id=ids, at=st.integers(0, 1))
    def cancel(self, id: int, at: int) -> None:
        one, schedule = self.model[id], self.of(at).schedule
        ask = lambda: schedule("pending.cancel", {"id": one.text})  # noqa: E731
        if one.group is not None and not one.committed:
            self.refused(Kind.INVALID, ask)
        elif one.verdict == "placed":
            self.refused(Kind.EXISTS, ask)
        else:
            assert ask()["cancelled"] == (one.verdict == "")
            one.verdict = "dropped"

    @rule(id=ids, at=st.integers(0, 1), after=hours)
    def move(self, id: int, at: int, after: int) -> None:
        one, due = self.model[id], self.now + 2 * after - 1
        fields = {"id": one.text, "due_us": self.at(due)}
        ask = lambda: self.of(at).schedule("pending.move", fields)  # noqa: E731
        if one.group is not None and not one.committed:
            self.refused(Kind.INVALID, ask)
        elif one.verdict:
            self.refused(Kind.EXISTS, ask)
        else:
            ask()
            one.due = due

    @rule(at=st.integers(0, 1), group=st.sampled_from(GROUPS))
    def come_or_go(self, at: int, group: str) -> None:
        worker = self.of(at)
        if group in worker.members:
            worker.members.pop(group).leave()
        else:
            worker.members[group] = worker.broker.producers.join(group, self.hear)

    def hear(self, check: Check) -> bool:
        self.heard.append(check)
        return True

    @rule(at=st.integers(0, 1), answer=st.sampled_from(["", "commit", "rollback"]))
    def ask(self, at: int, answer: str) -> None:
        worker = self.of(at)
        self.heard.clear()
        worker.halves.check()
        heard = {one.id: one for one in self.heard}
        assert len(heard) == len(self.heard)
        for id, one in self.model.items():
            if one.group in worker.members and not one.committed and not one.verdict \
                    and one.asked <= self.now:
                if one.checks == one.limit:
                    one.verdict = "dropped"
                    continue
                check = heard.pop(id)
                assert (check.checks, check.group, check.queue, check.body) == (
                    one.checks, one.group, one.queue, one.body)
                one.checks += 1
                one.asked = self.now + 3
        assert not heard
        for check in self.heard:
            # Answered over the other worker.
            if answer:
                getattr(self, answer)(check.id, at + 1)

    @rule(at=st.integers(0, 1))
    def expire(self, at: int) -> None:
        self.of(at).halves.expire()
        for one in self.model.values():
            if one.group is not None and not one.committed and not one.verdict \
                    and one.asked <= self.now and one.sent + LIFE <= self.now:
                one.verdict = "dropped"

    @rule(step=st.integers(-10, 50))
    def step(self, step: int) -> None:
        self.now = max(0, self.now + 2 * step)
        self.tick()

    @rule(at=st.integers(0, 1))
    def fire(self, at: int) -> None:
        # Whoever keeps the time now; the other one does nothing.
        for worker in (self.of(at), self.of(at + 1)):
            while worker.store.pending._keep():
                pass
        for one in self.model.values():
            if one.due <= self.now and not one.verdict and (one.committed or one.group is None):
                one.verdict = "placed"

    @rule()
    def save(self) -> None:
        self.workers[0].store.checkpoint()

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        stores = [worker.store for worker in self.workers]
        if clean:
            for store in stores:
                store.close()
        else:
            killed(*stores)
        self.open()

    def refused(self, kind: Kind, call: Callable[[], object]) -> None:
        try:
            call()
        except BrokerError as error:
            assert error.kind is kind, error
            return
        raise AssertionError(f"expected {kind}")

    @invariant()
    def none_early_none_lost_none_twice(self) -> None:
        if not hasattr(self, "workers"):
            return
        for worker in self.workers:
            for name in QUEUES:
                found = list(messages(worker.store.queue(name)).values())
                placed = [one.body for one in self.model.values()
                          if one.queue == name and one.verdict == "placed"]
                assert sorted(found) == sorted(placed)
        waiting = {one.text: one for one in self.model.values() if not one.verdict}
        listed = self.workers[0].schedule("pending.list", {"limit": 1000})["messages"]
        assert {row["id"] for row in listed} == waiting.keys()
        for row in listed:
            one = waiting[row["id"]]
            state = "delayed" if one.group is None else "committed" if one.committed else "half"
            assert (row["state"], row.get("checks", 0)) == (
                state, one.checks if state == "half" else 0)

    def teardown(self) -> None:
        if hasattr(self, "workers"):
            for worker in self.workers:
                worker.store.close()
            assert check(self.workers[0].store.path).problems == []
            shutil.rmtree(self.root, ignore_errors=True)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(settings.get_profile("engine"), stateful_step_count=50)
