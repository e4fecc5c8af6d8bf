"""What is pending held against a dict: any order of calls, clock steps, clean restarts and crashes.

Times are whole hours and half ones, so that the seconds a test takes change nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engine_language import crashed, messages, opened, quiet
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from penstock.engine import InvalidError, PendingDecidedError
from penstock.engine.check import check

HOUR = 3_600_000_000
QUEUES = ("red", "blue")
hours = st.integers(1, 200)


@dataclass
class Waiting:
    """One message that was delayed or prepared."""

    queue: str
    body: bytes
    due: int                # half hours since the start; of a half the time it was given, or 0
    half: bool
    committed: bool = False
    verdict: str = ""       # placed or dropped
    checks: int = 0
    asked: int = 0          # when its producer is asked next


class Schedule(RuleBasedStateMachine):
    ids = Bundle("ids")

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.start = time.time_ns() // 1000
        self.now = 0            # half hours; times are odd ones, the clock stands at even ones
        self.life = self.count = 0
        self.model: dict[int, Waiting] = {}
        self.plain: dict[str, set[bytes]] = {name: set() for name in QUEUES}
        self.open(self.root / "0")

    def open(self, path: Path) -> None:
        self.store = quiet(opened(path))
        self.queues = {name: self.store.queue(name) for name in QUEUES}
        self.store._clock(self.now * HOUR // 2)

    def at(self, half_hours: int) -> int:
        return self.start + half_hours * HOUR // 2

    def body(self) -> bytes:
        self.count += 1
        return b"%d" % self.count

    @rule(name=st.sampled_from(QUEUES))
    def send(self, name: str) -> None:
        body = self.body()
        self.queues[name].append(body)
        self.plain[name].add(body)

    @rule(target=ids, name=st.sampled_from(QUEUES), after=hours)
    def delay(self, name: str, after: int) -> int:
        due = self.now + 2 * after - 1
        body = self.body()
        id = self.queues[name].append(body, due_us=self.at(due)).pending
        assert id and id not in self.model
        self.model[id] = Waiting(name, body, due, False)
        return id

    @rule(target=ids, name=st.sampled_from(QUEUES), after=st.none() | hours)
    def prepare(self, name: str, after: int | None) -> int:
        due = self.now + 2 * after - 1 if after else 0
        body = self.body()
        id = self.queues[name].prepare(body, due_us=self.at(due) if due else 0,
                                       check_ms=1800_000).pending
        assert id and id not in self.model
        # From when it was stored, a time that does not step back.
        asked = round((self.store.pending.get(id).due_us - self.start) / (HOUR / 2))
        assert asked > self.now
        self.model[id] = Waiting(name, body, due, True, asked=asked)
        return id

    @rule(id=ids)
    def cancel(self, id: int) -> None:
        one = self.model[id]
        if one.half and not one.committed:
            self.refused(InvalidError, lambda: self.store.pending.cancel(id))
        elif one.verdict == "placed":
            self.refused(PendingDecidedError, lambda: self.store.pending.cancel(id))
        else:
            assert self.store.pending.cancel(id) == (one.verdict == "")
            one.verdict = "dropped"

    @rule(id=ids, after=hours)
    def move(self, id: int, after: int) -> None:
        one = self.model[id]
        due = self.now + 2 * after - 1
        if one.half and not one.committed:
            self.refused(InvalidError, lambda: self.store.pending.move(id, self.at(due)))
        elif one.verdict:
            self.refused(PendingDecidedError, lambda: self.store.pending.move(id, self.at(due)))
        else:
            self.store.pending.move(id, self.at(due))
            one.due = due

    @rule(id=ids)
    def commit(self, id: int) -> None:
        one = self.model[id]
        if not one.half:
            self.refused(InvalidError, lambda: self.store.pending.commit(id))
        elif not one.committed and one.verdict == "dropped":
            self.refused(PendingDecidedError, lambda: self.store.pending.commit(id))
        else:
            receipt = self.store.pending.commit(id)
            assert receipt.duplicate == one.committed
            if not one.committed and one.due <= self.now:
                one.verdict = "placed"
            one.committed = True

    @rule(id=ids)
    def rollback(self, id: int) -> None:
        one = self.model[id]
        if not one.half:
            self.refused(InvalidError, lambda: self.store.pending.rollback(id))
        elif one.committed:
            self.refused(PendingDecidedError, lambda: self.store.pending.rollback(id))
        else:
            assert self.store.pending.rollback(id) == (one.verdict == "")
            one.verdict = "dropped"

    @rule()
    def ask(self) -> None:
        found = {one.id: one.checks for one in
                 self.store.pending.checks(interval_ms=5400_000, attempts=3, limit=10_000)}
        for id, one in self.model.items():
            if one.half and not one.committed and not one.verdict and one.asked <= self.now:
                if one.checks == 3:
                    one.verdict = "dropped"
                else:
                    assert found.pop(id) == one.checks
                    one.checks += 1
                    one.asked = self.now + 3
        assert not found

    @rule(step=st.integers(-20, 100))
    def step(self, step: int) -> None:
        self.now = max(0, self.now + 2 * step)
        self.store._clock(self.now * HOUR // 2)

    @rule()
    def fire(self) -> None:
        while self.store.pending._keep():
            pass
        for one in self.model.values():
            if one.due <= self.now and not one.verdict and (one.committed or not one.half):
                one.verdict = "placed"

    @rule()
    def save(self) -> None:
        self.store.checkpoint()

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        self.life += 1
        path = Path(self.store.path)
        if not clean:
            path = crashed(self.store, self.root / str(self.life))
        self.store.close()
        self.open(path)

    def refused(self, kind: type[Exception], call: object) -> None:
        try:
            call()  # type: ignore[operator]
        except kind:
            return
        raise AssertionError(f"expected {kind.__name__}")

    @invariant()
    def none_early_none_lost_none_twice(self) -> None:
        if not hasattr(self, "store"):
            return
        for name in QUEUES:
            found = list(messages(self.queues[name]).values())
            placed = {one.body for one in self.model.values()
                      if one.queue == name and one.verdict == "placed"}
            assert len(found) == len(set(found))
            assert set(found) == self.plain[name] | placed
        waiting = {id for id, one in self.model.items() if not one.verdict}
        assert {one.id for one in self.store.pending.list(limit=10_000)} == waiting
        assert len(self.store.pending) == len(waiting)
        assert self.store.stat()["corrupt"] == 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            assert check(self.store.path).problems == []
            shutil.rmtree(self.root, ignore_errors=True)


TestSchedule = Schedule.TestCase
TestSchedule.settings = settings(settings.get_profile("engine"), stateful_step_count=50)
