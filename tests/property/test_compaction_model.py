"""Compaction held against a model: whatever is sent, purged, placed or copied, it is there."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from engine_language import crashed, messages, opened, quiet
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from penstock.engine._core import Compactor, Reclaimer, place_many
from penstock.engine.check import check
from penstock.engine.reclaim import save

QUEUES = ("a", "b", "c", "d")
FAR_US = 1 << 55


class Compacting(RuleBasedStateMachine):
    """held[queue][offset] is the body; waiting[id] what is delayed, with its queue."""

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.life = 0
        self.serial = 0
        self.held: dict[str, dict[int, bytes]] = {name: {} for name in QUEUES}
        self.next = dict.fromkeys(QUEUES, 0)
        self.waiting: dict[int, tuple[str, bytes]] = {}
        self.open(self.root / "0")

    def open(self, path: Path) -> None:
        self.store = quiet(opened(path))
        for name in QUEUES:
            self.store.queue(name)

    def body(self, size: int) -> bytes:
        self.serial += 1
        return b"%d." % self.serial * (size // 4 + 1)

    def stored(self, name: str, body: bytes) -> None:
        self.held[name][self.next[name]] = body
        self.next[name] += 1

    @rule(name=st.sampled_from(QUEUES), count=st.integers(1, 12),
          size=st.sampled_from([10, 3000, 90_000]))
    def send(self, name: str, count: int, size: int) -> None:
        for _ in range(count):
            self.store._prepare()
            body = self.body(size)
            self.store.queue(name).append(body, durability="kernel")
            self.stored(name, body)
        self.store._flush()

    @rule(names=st.sets(st.sampled_from(QUEUES), min_size=1), size=st.sampled_from([10, 90_000]))
    def fan_out(self, names: set[str], size: int) -> None:
        body = self.body(size)
        self.store.fanout([self.store.queue(name) for name in names], body)
        for name in names:
            self.stored(name, body)

    @rule(name=st.sampled_from(QUEUES), half=st.booleans())
    def delay(self, name: str, half: bool) -> None:
        body = self.body(20_000)
        queue = self.store.queue(name)
        receipt = queue.prepare(body) if half else queue.append(body, due_us=FAR_US)
        assert receipt.pending
        self.waiting[receipt.pending] = (name, body)

    @rule(last=st.booleans())
    def fire(self, last: bool) -> None:
        """A half is committed; what is delayed goes."""
        if self.waiting:
            found = max(self.waiting) if last else min(self.waiting)
            name, body = self.waiting.pop(found)
            shown = self.store.pending.get(found)
            assert shown is not None and self.store.pending.read(found)[0] == body
            if shown.state == "half":
                self.store.pending.commit(found)
                self.stored(name, body)
            else:
                self.store.pending.cancel(found)

    @rule(source=st.sampled_from(QUEUES), to=st.sampled_from(QUEUES), last=st.booleans())
    def place(self, source: str, to: str, last: bool) -> None:
        if self.held[source]:
            at = max(self.held[source]) if last else min(self.held[source])
            queue = self.store.queue(source)
            position = int(queue.index(at, at + 1)["position"][0])
            assert place_many(self.store, self.store.queue(to), [position]) == 1
            self.stored(to, self.held[source][at])

    @rule(name=st.sampled_from(QUEUES))
    def purge(self, name: str) -> None:
        self.store.queue(name).purge()
        self.held[name].clear()

    @rule()
    def give_up(self) -> None:
        while not Reclaimer(self.store).give_up():
            pass

    @rule()
    def checkpoint(self) -> None:
        Reclaimer(self.store).mark()
        save(self.store)

    @rule(share=st.sampled_from([30, 100]))
    def compact(self, share: int) -> None:
        Compactor(self.store).compact(share)

    @rule()
    def reclaim(self) -> None:
        Reclaimer(self.store).recycle()
        Reclaimer(self.store).shed()
        Compactor(self.store).retire()

    @rule()
    def all_of_it(self) -> None:
        self.give_up()
        for _ in range(2):
            self.checkpoint()
        self.compact(100)
        for _ in range(2):
            self.checkpoint()
        self.reclaim()

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.open(Path(self.store.path))

    @rule(older=st.booleans())
    def crash(self, older: bool) -> None:
        before = self.store
        self.life += 1
        copy = crashed(before, self.root / str(self.life))
        before.close()
        saved = sorted((copy / "ckpt").iterdir())
        if older and len(saved) > 1:
            saved[-1].unlink()
        self.open(copy)
        shutil.rmtree(before.path)
        assert check(copy).problems == []

    @invariant()
    def all_is_there(self) -> None:
        if hasattr(self, "store"):
            for name in QUEUES:
                assert messages(self.store.queue(name)) == self.held[name]
            for number, (_, body) in self.waiting.items():
                assert self.store.pending.read(number)[0] == body
            assert self.store.stat()["corrupt"] == 0
            assert self.store.stat()["segments_kept_for_damage"] == 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root)


TestCompacting = Compacting.TestCase


def test_a_purge_of_what_only_a_segment_that_is_gone_told_of_is_no_damage() -> None:
    """A check looked for the queue's end in what was left of the log (found above)."""
    state = Compacting()
    state.begin()
    state.fan_out(names={"a", "b"}, size=90_000)
    state.crash(older=False)
    state.fan_out(names={"a"}, size=10)
    state.crash(older=False)
    state.all_of_it()
    state.purge(name="a")
    state.crash(older=False)
    state.all_is_there()
    state.teardown()
