"""Delivery held against a model of a page: any order of calls, clean restarts and crashes.

Leases are either endless or over at once, so that no test waits for a clock.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from engine_language import LONG, crashed, opened, quiet, split
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

GROUPS = ("", "other")
groups = st.sampled_from(GROUPS)


@dataclass
class Model:
    """One group: what is confirmed, who holds what, what was tried how often."""

    confirmed: set[int] = field(default_factory=set)
    held: dict[int, bytes] = field(default_factory=dict)
    hidden: set[int] = field(default_factory=set)
    tries: dict[int, int] = field(default_factory=dict)
    start: int = 0

    def ready(self, first: int, end: int) -> list[int]:
        """What comes next, in order: what was taken before, then what never was."""
        low = max(first, self.start)
        away = self.confirmed | self.held.keys() | self.hidden
        return [at for at in range(low, end) if at not in away]

    def seek(self, offset: int) -> None:
        self.confirmed = set(range(offset))
        self.held.clear()
        self.hidden.clear()
        self.tries.clear()
        self.start = offset

    def restart(self) -> None:
        """Leases end; confirmations and delays stay, and counts, but for a first delivery's."""
        self.held.clear()


class Delivery(RuleBasedStateMachine):
    receipts = Bundle("receipts")

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.life = 0
        self.bodies: list[bytes] = []
        self.first = 0
        self.models = {name: Model() for name in GROUPS}
        self.exact = True
        self.open(self.root / "0")

    def open(self, path: Path) -> None:
        self.store = quiet(opened(path))
        self.queue = self.store.queue("red")
        self.groups = {name: self.queue.group(name) for name in GROUPS}

    @rule(count=st.integers(1, 40), large=st.sampled_from([0, 0, 0, 9000]))
    def append(self, count: int, large: int) -> None:
        bodies = [b"%d" % (len(self.bodies) + at) + b"." * large for at in range(count)]
        receipt = self.queue.append_many(bodies)
        assert receipt.offset == len(self.bodies) and receipt.count == count
        self.bodies += bodies
        self.store._prepare()

    @rule(target=receipts, name=groups, count=st.integers(1, 30), endless=st.booleans())
    def take(self, name: str, count: int, endless: bool) -> object:
        model = self.models[name]
        batch = self.groups[name].receive(count, lease_ms=LONG if endless else 0)
        expected = model.ready(self.first, len(self.bodies))[:count]
        assert batch.offsets.tolist() == expected
        assert batch.tolist() == [self.bodies[at] for at in expected]
        for at, tries, receipt in zip(
            expected, batch.attempts.tolist(), split(batch.receipts), strict=True
        ):
            # A crash may take back the count of the first delivery, never of a later one.
            sure = model.tries.get(at, 0) + 1
            assert tries == sure or (tries == 1 and sure == 2 and not self.exact)
            model.tries[at] = tries
            if endless:
                model.held[at] = receipt
        return multiple(*((name, receipt) for receipt in split(batch.receipts)))

    def verdict(self, name: str, receipt: bytes) -> tuple[int, int]:
        """What the model says of a receipt: (0 or 1, its offset)."""
        offset = int.from_bytes(receipt[:8], "little")
        return int(self.models[name].held.get(offset) != receipt), offset

    @rule(one=consumes(receipts))
    def confirm(self, one: tuple[str, bytes]) -> None:
        name, receipt = one
        expected, offset = self.verdict(name, receipt)
        assert self.groups[name].confirm(receipt)[0] == expected
        if expected == 0:
            del self.models[name].held[offset]
            self.models[name].confirmed.add(offset)
        assert self.groups[name].confirm(receipt)[0] == 1

    @rule(name=groups)
    def confirm_all(self, name: str) -> None:
        model = self.models[name]
        if model.held:
            verdicts = self.groups[name].confirm(b"".join(model.held.values()))
            assert set(verdicts) == {0}
            model.confirmed |= model.held.keys()
            model.held.clear()

    @rule(one=receipts, delayed=st.booleans())
    def release(self, one: tuple[str, bytes], delayed: bool) -> None:
        name, receipt = one
        expected, offset = self.verdict(name, receipt)
        delay_ms = LONG if delayed else 0
        assert self.groups[name].release(receipt, delay_ms=delay_ms)[0] == expected
        if expected == 0:
            del self.models[name].held[offset]
            if delayed:
                self.models[name].hidden.add(offset)

    @rule(one=receipts, endless=st.booleans())
    def extend(self, one: tuple[str, bytes], endless: bool) -> None:
        name, receipt = one
        expected, offset = self.verdict(name, receipt)
        lease_ms = LONG if endless else 0
        assert self.groups[name].extend(receipt, lease_ms=lease_ms)[0] == expected
        if expected == 0 and not endless:
            del self.models[name].held[offset]

    @rule(name=groups, part=st.floats(0, 1))
    def seek(self, name: str, part: float) -> None:
        low = self.first
        target = low + int(part * (len(self.bodies) - low))
        assert self.groups[name].seek(offset=target) == (target, len(self.bodies) - target)
        self.models[name].seek(target)

    @rule()
    def purge(self) -> None:
        if len(self.bodies) - self.first > 50:
            assert self.queue.purge() == len(self.bodies) - self.first
            self.first = len(self.bodies)

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
        for model in self.models.values():
            model.restart()
        self.exact = self.exact and clean

    @invariant()
    def what_is_stored_can_be_read(self) -> None:
        if hasattr(self, "queue"):
            stat = self.queue.stat()
            assert (stat["first"], stat["next"]) == (self.first, len(self.bodies))
            assert stat["visible"] == len(self.bodies)
            assert self.store.stat()["corrupt"] == 0

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.root, ignore_errors=True)


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(settings.get_profile("engine"), stateful_step_count=40)
