"""The broker held against a model: any order of sends, takes, confirmations, releases, rewinds,
dead letters, redrives, clock steps, clean restarts and crashes, with several groups.

A lease or delay is ten minutes or ten hours, and only the test's own steps end it: no test run
lasts that long.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from broker_model import ATTEMPTS, WINDOW_S, Group, Ids, Lease, Log, Message
from engine_language import killed, split, unattended
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
)

from penstock.engine import Attributes, Consumer
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.groups import Groups
from penstock.server.broker.limits import Limits
from penstock.server.broker.seeing import Seeing

SHORT_S, LONG_S = 600.0, 36_000.0
MOVED = 30  # by one redrive
NAMES = ("", "keyed", "strict", "picky", "limited")
MODELS: dict[str, dict[str, Any]] = {
    "": {}, "keyed": {"order": "key", "limited": True}, "strict": {"order": "strict"},
    "picky": {"tag": "a"}, "limited": {"limited": True},
}
names = st.sampled_from(NAMES)
spans = st.sampled_from([0.0, SHORT_S, LONG_S])
Given = tuple[str, bytes]


def backoff(name: str) -> tuple[float, float]:
    """How long what is given back waits after its first delivery, and after the others."""
    return (SHORT_S, LONG_S) if name in ("", "picky") else (0.0, SHORT_S)


class Brokered(RuleBasedStateMachine):
    receipts = Bundle("receipts")

    @initialize()
    def begin(self) -> None:
        memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.root = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
        self.now = 0.0
        self.log = Log()
        self.ids = Ids()
        self.models = {name: Group(**MODELS[name]) for name in NAMES}
        # Dead letters in their order: the group they came from, the offset there, what they are.
        self.dead: list[tuple[str, int, Message]] = []
        self.buried: set[int] = set()
        self.open()
        red = self.store.queue("red")
        red.configure(dedup_ms=int(WINDOW_S * 1000))
        for name, model in self.models.items():
            retry = {"backoff_ms": [int(delay * 1000) for delay in backoff(name)]}
            if model.limited:
                retry |= {"max_attempts": ATTEMPTS, "dead_letter": "dead"}
            fields: dict[str, Any] = {"order": model.order, "retry": retry}
            if model.tag:
                fields["filter"] = model.tag
            self.ask("group.set", group=name, **fields)

    def open(self) -> None:
        self.store = unattended(self.root)
        self.store._clock(int(self.now * 1e6))
        self.broker = Broker(self.store, Limits())
        self.asks = Groups(self.broker, lambda: 0)
        self.seeing = Seeing(self.broker)
        self.queue = self.broker.open("red", create=True)
        self.dead_letters = self.broker.open("dead", create=True)
        self.names = {self.group(name).id: name for name in NAMES}

    def ask(self, do: str, **fields: Any) -> Any:
        return self.asks(do, {"queue": "red", **fields})

    def group(self, name: str) -> Consumer:
        return self.broker.group(self.queue, name)

    # Sending.

    @rule(key=st.sampled_from(["", "x", "y"]), tag=st.sampled_from("ab"),
          id_=st.sampled_from(["", "", "1", "2", "3"]), count=st.integers(1, 5))
    def send(self, key: str, tag: str, id_: str, count: int) -> None:
        sent = [Message(b"%d" % (len(self.log) + at), key, tag) for at in range(count)]
        each = [Attributes(key=key, tag=tag, id=id_ if at == 0 else "") for at in range(count)]
        known = self.ids.find(id_, self.now) if id_ else None
        receipt = self.queue.append_many([one.body for one in sent], attributes=each)
        assert receipt.duplicate == (known is not None), "stored once, if its id is known"
        assert receipt.offset == (len(self.log) if known is None else known)
        if known is None and id_:
            self.ids.store(id_, len(self.log), self.now)
        self.log.add(sent[known is not None :])
        assert self.queue.stat()["visible"] == len(self.log)

    # Taking, and what can be done with what was taken.

    @rule(target=receipts, name=names, count=st.integers(1, 12), span=spans)
    def take(self, name: str, count: int, span: float) -> object:
        found = self.taken(name, count, span)
        if len(found) < count:
            # The first look may have moved what was dying, and have let others come.
            found += self.taken(name, count - len(found), span)
            self.bury()
            if len(found) < count and span:
                more = [one for _ in range(4) for one in self.taken(name, 1, span)]
                found += more
                self.bury()
                if not more:
                    model = self.models[name]
                    left = [at for at in range(len(self.log)) if model.ready(self.log, at)]
                    assert not left, f"{left} could have come"
        return multiple(*((name, receipt) for receipt in found))

    def taken(self, name: str, count: int, span: float) -> list[bytes]:
        model = self.models[name]
        batch = self.group(name).receive(count, lease_ms=int(span * 1000))
        model.expire(self.now)
        receipts = split(batch.receipts) if len(batch) else []
        for at, receipt in enumerate(receipts):
            offset, tries = int(batch.offsets[at]), int(batch.attempts[at])
            model.check(self.log, offset, tries)
            assert bytes(batch[at]) == self.log[offset].body
            model.give(offset, Lease(receipt, self.now + span, tries), self.now)
            if model.order == "strict":
                assert len(model.leases) <= 1
        self.bury()
        return receipts

    def bury(self) -> None:
        """Look at the dead letters that are new: each was to die, and died once."""
        self.store._flush()
        batch = self.dead_letters.read(offset=len(self.dead), max_messages=1000)
        for at, body in enumerate(batch.tolist()):
            origin = batch.origin(at)
            assert origin is not None and int(batch.offsets[at]) == len(self.dead)
            name, offset = self.names[origin.group], origin.offset
            model = self.models[name]
            assert model.may_die(offset), f"{offset} of {name!r} died before its time, or twice"
            assert body == self.log[offset].body and origin.attempts == ATTEMPTS
            model.confirm(offset)
            self.dead.append((name, offset, self.log[offset]))

    @rule(one=consumes(receipts), again=st.booleans())
    def confirm(self, one: Given, again: bool) -> None:
        name, receipt = one
        model, offset = self.models[name], int.from_bytes(one[1][:8], "little")
        model.expire(self.now)
        held = model.holds(offset, receipt)
        verdict = self.group(name).confirm(receipt)[0]
        assert verdict == (0 if held else 1), "who holds it, and nobody else, confirms it"
        if held:
            model.confirm(offset)
            assert self.group(name).confirm(receipt)[0] == 1
            assert self.group(name).confirm(receipt, again=True)[0] == 0
        elif again and self.group(name).confirm(receipt, again=True)[0] == 0:
            assert offset in model.done, "done is what is confirmed"

    @rule(one=receipts, delay=st.sampled_from([None, 0.0, SHORT_S, LONG_S]))
    def release(self, one: Given, delay: float | None) -> None:
        name, receipt = one
        model, offset = self.models[name], int.from_bytes(receipt[:8], "little")
        model.expire(self.now)
        held = model.holds(offset, receipt)
        delay_ms = None if delay is None else int(delay * 1000)
        verdict = self.group(name).release(receipt, delay_ms=delay_ms, reason="why")[0]
        assert verdict == (0 if held else 1)
        if held:
            if delay is None:
                delay = backoff(name)[min(model.tries[offset], 2) - 1]
            model.release(offset, self.now + delay if delay else None)
        self.bury()

    @rule(one=receipts, span=st.sampled_from([SHORT_S, LONG_S]))
    def extend(self, one: Given, span: float) -> None:
        name, receipt = one
        model, offset = self.models[name], int.from_bytes(receipt[:8], "little")
        model.expire(self.now)
        held = model.holds(offset, receipt)
        verdict = self.group(name).extend(receipt, lease_ms=int(span * 1000))[0]
        assert verdict == (0 if held else 1)
        if held:
            model.leases[offset].until = self.now + span

    # Places and times.

    @rule(step=st.sampled_from([SHORT_S + 1, LONG_S + 1]))
    def wait(self, step: float) -> None:
        self.now += step
        self.store._clock(int(self.now * 1e6))
        for model in self.models.values():
            model.expire(self.now)

    @rule(name=names, part=st.floats(0, 1))
    def rewind(self, name: str, part: float) -> None:
        offset = int(part * len(self.log))
        self.seeing("rewind", {"queue": "red", "group": name, "offset": offset})
        self.models[name].seek(offset)

    @rule(name=names, part=st.floats(0, 1), reset=st.booleans())
    def commit_offset(self, name: str, part: float, reset: bool) -> None:
        offset, model = int(part * len(self.log)), self.models[name]
        floor = self.ask("offset.show", group=name)["offset"]
        told = self.ask("offset.commit", group=name, offset=offset, reset=reset)["offset"]
        if offset < floor and reset:
            model.seek(offset)
        elif offset > floor:
            model.advance(offset)
        assert told >= offset if reset or offset > floor else told >= floor

    @rule(dry=st.booleans(), end=st.floats(0, 1))
    def redrive(self, dry: bool, end: float) -> None:
        self.bury()
        limit = int(end * len(self.dead))
        left = [at for at in range(limit) if at not in self.buried]
        if len(left) > MOVED:
            # Each of them can die in two groups: all of them each time would double what there is.
            limit, left = left[MOVED], left[:MOVED]
        moved, cursor = 0, 0
        while cursor is not None:
            step = {"queue": "dead", "cursor": cursor, "end": limit, "dry_run": dry}
            answer = self.asks("redrive", step)
            moved, cursor = moved + answer["moved"], answer["next"]
        assert moved == len(left) or (dry and moved >= len(left))
        if dry:
            return
        for at in left:
            self.buried.add(at)
            self.log.add([self.dead[at][2]])
        found = self.queue.read(offset=len(self.log) - len(left), max_messages=max(1, len(left)))
        assert found.tolist() == [self.dead[at][2].body for at in left]

    # The end of a life.

    @rule()
    def save(self) -> None:
        self.store.checkpoint()

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        self.bury()
        if clean:
            self.store.close()
        else:
            killed(self.store)
        self.open()
        for model in self.models.values():
            model.restart(crashed=not clean)
        self.bury()

    @rule(name=names)
    def settle(self, name: str) -> None:
        """Let every lease and delay end and take all there is: nothing that is wanted is lost."""
        model = self.models[name]
        self.wait(LONG_S + 1)
        idle = 0
        while idle < 3:
            receipts = self.taken(name, 50, LONG_S)
            idle = 0 if receipts else idle + 1
            for receipt in receipts:
                assert self.group(name).confirm(receipt)[0] == 0
                model.confirm(int.from_bytes(receipt[:8], "little"))
        lost = [at for at in range(len(self.log))
                if at not in model.done and model.wants(self.log[at])]
        assert not lost, f"{lost} never came to {name!r}"
        lag = self.seeing("lag", asks_of(name))["groups"][0]
        assert lag["lag"] == 0 or model.tag, "what is done with is no lag"

    @rule(name=st.sampled_from(["keyed", "limited"]))
    def fail(self, name: str) -> None:
        """Give back whatever comes: after so many attempts all of it is among the dead letters."""
        model = self.models[name]
        for _ in range((ATTEMPTS + 2) * (len(self.log) + 1)):
            self.wait(LONG_S + 1)
            receipts = self.taken(name, 50, LONG_S)
            for receipt in receipts:
                self.release((name, receipt), None)
            if not receipts and not self.taken(name, 1, LONG_S):
                break
        self.wait(LONG_S + 1)
        assert not self.taken(name, 50, LONG_S)
        left = [at for at in range(len(self.log)) if at not in model.done]
        assert not left, f"{left} of {name!r} did not die"

    def teardown(self) -> None:
        if hasattr(self, "store"):
            try:
                self.fail("limited")
                for name in NAMES:
                    self.settle(name)
            finally:
                self.store.close()
                shutil.rmtree(self.root, ignore_errors=True)


def asks_of(name: str) -> dict[str, Any]:
    return {field: value for field, value in (("queue", "red"), ("group", name))
            if field in asks.Lag.__struct_fields__}


TestBroker = Brokered.TestCase
TestBroker.settings = settings(settings.get_profile("engine"), stateful_step_count=50)
