"""What explain says of a message is what receive then does: any calls, a filter, and crashes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from engine_language import LONG, crashed, opened, quiet, split
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from penstock.engine import Attributes
from penstock.engine._core import Inspector
from penstock.server.broker.explain import explain

TAGS = ("a", "b", "")


class Explained(RuleBasedStateMachine):
    """One queue, with a filter or without; each message is explained before it is asked for."""

    @initialize(tag=st.sampled_from(("", "a")))
    def begin(self, tag: str) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.lives = 0
        self.count = 0
        self.held: list[bytes] = []
        self.open(self.root / "0")
        if tag:
            self.group.filter("tag", tag)

    def open(self, path: Path) -> None:
        self.store = quiet(opened(path))
        self.queue = self.store.queue("red")
        self.group = self.queue.group()
        self.look = Inspector(self.store)

    @rule(tags=st.lists(st.sampled_from(TAGS), min_size=1, max_size=12))
    def append(self, tags: list[str]) -> None:
        for tag in tags:
            self.queue.append(b"m", attributes=Attributes(tag=tag))
        self.count += len(tags)

    def reasons(self) -> list[tuple[str, bool, int]]:
        """For every offset there is: the reason, whether it may come, how many before it."""
        told = [
            explain(self.look, self.queue, "", self.group.id, at) for at in range(self.count)
        ]
        return [(one.reason, one.deliverable, one.facts["before"]) for one in told]

    @rule(count=st.integers(1, 20), endless=st.booleans())
    def take(self, count: int, endless: bool) -> None:
        told = self.reasons()
        ran_out = any(
            self.look.message(self.queue.id, self.group.id, at)["ran_out"]
            for at in range(self.count)
        )
        batch = self.group.receive(count, lease_ms=LONG if endless else 0)
        got = batch.offsets.tolist()
        able = [at for at, (_, deliverable, _) in enumerate(told) if deliverable]
        # What was taken before comes before what never was; each kind in its order.
        line = sorted(able, key=lambda at: (told[at][0] == "fresh", at))
        assert got == line[:count]
        # Leases that ran out are counted as before others only once a receive has looked.
        if self.group.settings()["filter"].kind is None and not ran_out:
            assert [told[at][2] for at in got] == list(range(len(got)))
        if endless:
            self.held += split(batch.receipts)

    @rule(at=st.integers(0, 50))
    def confirm(self, at: int) -> None:
        if self.held:
            receipt = self.held.pop(at % len(self.held))
            offset = int.from_bytes(receipt[:8], "little")
            before = self.reasons()[offset][0]
            done = self.group.confirm(receipt)[0] == 0
            assert done == (before == "leased")
            if done:
                assert self.reasons()[offset][0] == "confirmed"

    @rule(at=st.integers(0, 50), delayed=st.booleans())
    def release(self, at: int, delayed: bool) -> None:
        if self.held:
            receipt = self.held.pop(at % len(self.held))
            offset = int.from_bytes(receipt[:8], "little")
            if self.group.release(receipt, delay_ms=LONG if delayed else 0)[0] == 0:
                assert self.reasons()[offset][0] == ("waiting" if delayed else "ready")

    @rule(part=st.floats(0, 1))
    def seek(self, part: float) -> None:
        self.group.seek(offset=int(part * self.count))
        self.held.clear()

    @rule()
    def purge(self) -> None:
        if self.count > 20:
            self.queue.purge()
            assert {reason for reason, _, _ in self.reasons()} <= {"purged"}

    @rule(clean=st.booleans(), save=st.booleans())
    def restart(self, clean: bool, save: bool) -> None:
        self.lives += 1
        if save:
            self.store.checkpoint()
        path = Path(self.store.path)
        if not clean:
            path = crashed(self.store, self.root / str(self.lives))
        self.store.close()
        self.open(path)
        self.held.clear()

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root, ignore_errors=True)
            # A store's maps go with its last reference, and each takes a tebibyte of addresses.
            del self.store, self.queue, self.group, self.look


TestExplained = Explained.TestCase
TestExplained.settings = settings(settings.get_profile("engine"), stateful_step_count=25)
