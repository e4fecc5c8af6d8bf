"""Fan-out against dictionaries: queues come and go, processes die, nobody lacks a message."""

import tempfile
from pathlib import Path
from typing import Any

from engine_language import crashed, messages, opened, quiet
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.engine import Store
from penstock.engine._core import place_many
from penstock.engine.check import check

NAMES = [f"q{n}" for n in range(6)]
SOME = st.lists(st.sampled_from(NAMES), min_size=1, max_size=8)


class FanoutModel(RuleBasedStateMachine):
    """What each queue holds, from its first message that was not purged on."""

    def __init__(self) -> None:
        super().__init__()
        self.root = tempfile.TemporaryDirectory()
        self.life = 0
        self.sequence = 0
        self.store: Store = quiet(opened(Path(self.root.name, "0"), durability="kernel"))
        self.held: dict[str, list[bytes]] = {}
        self.first: dict[str, int] = {}

    @rule(name=st.sampled_from(NAMES))
    def create(self, name: str) -> None:
        self.store.queue(name)
        self.held.setdefault(name, [])
        self.first.setdefault(name, 0)

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        if name in self.held:
            self.store.delete(name)
            del self.held[name], self.first[name]

    @rule(name=st.sampled_from(NAMES))
    def purge(self, name: str) -> None:
        if name in self.held:
            self.store.queue(name).purge()
            self.first[name] = len(self.held[name])

    @rule(names=SOME, size=st.integers(0, 3000), again=st.booleans())
    def fan_out(self, names: list[str], size: int, again: bool) -> None:
        there = [self.store.queue(name) for name in names if name in self.held]
        if not there:
            return
        self.sequence += 1
        body = b"%d:" % self.sequence + b"x" * size
        before = self.store.stat()["bytes_written"]
        receipt = self.store.fanout(there, body, producer=1, sequence=self.sequence)
        reached = len({queue.id for queue in there})
        room = 64 + 48 + 16 + 16 * reached + len(body) + 7 & ~7
        assert self.store.stat()["bytes_written"] - before == room
        assert receipt.count == reached and not receipt.duplicate
        if again:
            assert self.store.fanout(there, body, producer=1, sequence=self.sequence).duplicate
        for name in {queue.name for queue in there}:
            self.held[name].append(body)

    @rule(name=st.sampled_from(NAMES), size=st.integers(0, 3000))
    def append(self, name: str, size: int) -> None:
        if name in self.held:
            self.store.queue(name).append(b"y" * size)
            self.held[name].append(b"y" * size)

    @precondition(lambda self: len(self.held) > 1)
    @rule(data=st.data())
    def place(self, data: st.DataObject) -> None:
        source, to = (data.draw(st.sampled_from(sorted(self.held))) for _ in range(2))
        self.store._flush()
        queue = self.store.queue(source)
        positions = queue.index(self.first[source])["position"]
        place_many(self.store, self.store.queue(to), positions)
        self.held[to] += self.held[source][self.first[source]:]

    @rule()
    def checkpoint(self) -> None:
        self.store.checkpoint()

    @rule(kill=st.booleans())
    def restart(self, kill: bool) -> None:
        self.life += 1
        after = Path(self.store.path)
        if kill:
            after = crashed(self.store, Path(self.root.name, str(self.life)))
        self.store.close()
        self.store = quiet(opened(after, durability="kernel"))

    @invariant()
    def everybody_has_what_was_sent(self) -> None:
        self.store._flush()
        assert self.store.queues() == sorted(self.held)
        for name, bodies in self.held.items():
            found = messages(self.store.queue(name))
            first = self.first[name]
            assert found == dict(enumerate(bodies[first:], first))

    def teardown(self) -> None:
        self.store.close()
        assert check(Path(self.store.path)).problems == []
        self.root.cleanup()


FanoutModel.TestCase.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
TestFanout: Any = FanoutModel.TestCase
