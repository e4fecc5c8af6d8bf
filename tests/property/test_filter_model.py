"""Filters held against a model: any order of sends, takes, changes, rewinds, restarts and crashes.

What the filter of its time wanted is delivered until it is confirmed; nothing else ever is.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from engine_language import LONG, crashed, opened, quiet, split
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from penstock.engine import Attributes
from penstock.engine.check import check

TAGS = ("a", "b", "c", "")
FILTERS: tuple[tuple[str | None, str, frozenset[str]], ...] = (
    (None, "", frozenset(TAGS)),
    ("tag", "a", frozenset("a")),
    ("tag", "b || c", frozenset("bc")),
    ("routing", "x.#.a", frozenset("a")),
    ("sql", "kind IN ('b', 'c')", frozenset("bc")),
    ("sql", "kind IS NULL OR TAGS = 'c'", frozenset(["c", ""])),
    ("tag", "nothing", frozenset()),
)


class Filtering(RuleBasedStateMachine):
    """Invariants of the model:

    1. judged[offset] says whether the filter of its time wanted what the cursor has passed.
    2. maybe has what a crash may or may not remember to have been delivered.
    """

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.life = 0
        self.tags: list[str] = []
        self.judged: list[bool] = []
        self.confirmed: set[int] = set()
        self.held: dict[int, bytes] = {}
        self.maybe: set[int] = set()
        self.wants = frozenset(TAGS)
        self.open(self.root / "0")

    def open(self, path: Path) -> None:
        self.store = quiet(opened(path))
        self.queue = self.store.queue("q")
        self.group = self.queue.group("g")

    @rule(tags=st.lists(st.sampled_from(TAGS), min_size=1, max_size=8),
          times=st.sampled_from([1, 1, 3, 70]))
    def send(self, tags: list[str], times: int) -> None:
        told = [
            Attributes(tag=tag, routing_key=f"x.y.{tag}", properties={"kind": tag} if tag else {})
            for tag in tags * times
        ]
        self.queue.append_many([b""] * len(told), attributes=told, durability="kernel")
        self.store._flush()
        self.tags += tags * times

    @rule(choice=st.sampled_from(FILTERS))
    def change(self, choice: tuple[str | None, str, frozenset[str]]) -> None:
        self.group.filter(choice[0], choice[1])
        self.wants = choice[2]

    def owed(self) -> set[int]:
        wanted = {at for at, yes in enumerate(self.judged) if yes}
        wanted |= {at for at in range(len(self.judged), len(self.tags))
                   if self.tags[at] in self.wants}
        return wanted - self.confirmed - self.held.keys()

    @rule(count=st.sampled_from([1, 2, 5, 1000]))
    def take(self, count: int) -> None:
        owed = self.owed()
        batch = self.group.receive(count, lease_ms=LONG)
        found = dict(zip(batch.offsets.tolist(), split(batch.receipts) if len(batch) else [],
                         strict=True))
        assert found.keys() <= owed | self.maybe
        assert len(found) == count or found.keys() >= owed
        self.held.update(found)
        self.maybe -= found.keys()
        cursor = self.group.stat()["cursor"]
        for at in range(len(self.judged), cursor):
            # One that a crash remembered may have been taken before the cursor passed it.
            self.judged.append(self.tags[at] in self.wants or at in self.held)
        for at in found:
            if at < len(self.judged):
                self.judged[at] = True

    @rule(count=st.integers(1, 60), last=st.booleans(), give_back=st.booleans())
    def settle(self, count: int, last: bool, give_back: bool) -> None:
        chosen = sorted(self.held, reverse=last)[:count]
        if not chosen:
            return
        receipts = b"".join(self.held.pop(at) for at in chosen)
        answer = self.group.release(receipts) if give_back else self.group.confirm(receipts)
        assert not any(answer)
        if give_back:
            # Those that a crash remembered lie behind the cursor, whatever the filter says of them.
            self.maybe |= {at for at in chosen if at >= len(self.judged)}
        else:
            self.confirmed.update(chosen)

    @rule(part=st.integers(0, 4))
    def seek(self, part: int) -> None:
        target = len(self.tags) * part // 4
        self.group.seek(offset=target)
        self.judged = [False] * target
        self.confirmed.clear()
        self.held.clear()
        self.maybe.clear()

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule()
    def restart(self) -> None:
        self.maybe |= self.held.keys()
        self.held.clear()
        self.store.close()
        self.open(Path(self.store.path))

    @rule()
    def crash(self) -> None:
        before = self.store
        self.life += 1
        delivered = {at for at, yes in enumerate(self.judged) if yes} - self.confirmed
        self.open(crashed(before, self.root / str(self.life)))
        before.close()
        assert check(self.store.path).problems == []
        cursor = self.group.stat()["cursor"]
        self.maybe |= {at for at in delivered | self.held.keys() if at >= cursor}
        self.held.clear()
        del self.judged[cursor:]

    @invariant()
    def the_floor_is_true(self) -> None:
        if hasattr(self, "store"):
            stat = self.group.stat()
            assert stat["floor"] <= stat["cursor"] <= len(self.tags)
            assert not [at for at in range(stat["floor"]) if at < len(self.judged)
                        and self.judged[at] and at not in self.confirmed]

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root)


TestFiltering = Filtering.TestCase
