"""CMQ's queues in the broker's words: names, ranges, counters, rewinding, dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import LONG, opened

from penstock.engine import Store
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import STRICT, Given, Rules
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.limits import Limits

NOW_US = 1_990_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield store


@pytest.fixture
def queues(store: Store) -> CmqQueues:
    return CmqQueues(Broker(store, Limits()), Rules())



def test_a_queue_lives_and_dies(queues: CmqQueues) -> None:
    made = queues.create("Red", Given(visibility_s=7, polling_s=3, max_size=2048), NOW_US)
    assert made.startswith("queue-") and queues.page("", 0, 20) == (1, [(made, "Red")])
    with pytest.raises(CmqError) as error:
        queues.create("rED", Given(), NOW_US)
    assert error.value.fault is Fault.QUEUE_EXISTS
    found = queues.find("Red")
    assert (found.defaults.lease_ms, found.defaults.wait_ms) == (7000, 3000)
    queues.set("Red", Given(visibility_s=8, retention_s=60, rewind_s=30), NOW_US + 1)
    told = queues.describe("Red")
    assert (told["defaults"].lease_ms, told["defaults"].wait_ms) == (8000, 3000)
    assert (told["retention_s"], told["rewind_s"], told["changed_us"]) == (60, 30, NOW_US + 1)
    queues.delete("Red")
    with pytest.raises(CmqError) as error:
        queues.find("Red")
    assert error.value.text == "(10100)queue is not existed, or deleted"
    assert queues.create("Red", Given(), NOW_US) != made
    assert queues.find("Red").defaults.lease_ms == 30_000


def test_lists_are_pages_of_names_with_a_text_in_them(queues: CmqQueues, store: Store) -> None:
    for name in ("b1", "b2", "c1", "b3"):
        queues.create(name, Given(), NOW_US)
    store.queue("has.dots")
    total, rows = queues.page("b", 1, 1)
    assert total == 3 and [name for _, name in rows] == ["b2"]
    assert queues.page("", 0, 50)[0] == 4


@pytest.mark.parametrize("name", ["", "1a", "a.b", "a b", "x" * 65, "ä", "a/b", "-a"])
def test_names_that_cmq_does_not_know(queues: CmqQueues, name: str) -> None:
    for call in (queues.find, queues.delete, lambda name: queues.create(name, Given(), NOW_US)):
        with pytest.raises(CmqError) as error:
            call(name)
        assert error.value.fault is Fault.QUEUE_NAME


@pytest.mark.parametrize("wrong", [
    Given(visibility_s=0), Given(visibility_s=43_201), Given(polling_s=-1), Given(max_size=1023),
    Given(retention_s=29), Given(rewind_s=-1), Given(heap=0), Given(policy=2),
    Given(dead_letter="a", policy=0, max_receive=0),
    Given(dead_letter="a", policy=1, dead_after_s=0),
])  # fmt: skip
def test_attributes_out_of_range(queues: CmqQueues, wrong: Given) -> None:
    with pytest.raises(CmqError) as error:
        queues.create("Red", wrong, NOW_US)
    assert error.value.fault is Fault.OUT_OF_RANGE
    assert queues.page("", 0, 20) == (0, [])


@pytest.mark.parametrize("wrong", [
    Given(heap=999_999), Given(polling_s=31), Given(max_size=(1 << 20) + 1),
    Given(retention_s=1_296_001), Given(dead_letter="a", policy=1, dead_after_s=299),
])  # fmt: skip
def test_the_original_s_limits_can_be_had(store: Store, wrong: Given) -> None:
    CmqQueues(Broker(store, Limits()), Rules()).create("a", Given(), NOW_US)
    with pytest.raises(CmqError) as error:
        CmqQueues(Broker(store, Limits()), STRICT).create("Red", wrong, NOW_US)
    assert error.value.fault is Fault.OUT_OF_RANGE
    CmqQueues(Broker(store, Limits()), Rules()).create("Red", wrong, NOW_US)


def test_counters_are_true(queues: CmqQueues, store: Store) -> None:
    queues.create("Red", Given(rewind_s=600), NOW_US)
    queue, group, _ = queues.find("Red")
    queue.append_many([b"%d" % at for at in range(10)])
    queue.append(b"later", due_us=(1 << 52))
    taken = group.receive(4, lease_ms=LONG)
    group.confirm(taken.receipts[: 2 * 24])
    told = queues.describe("Red")
    names = ("active", "inactive", "delayed", "rewindable")
    assert [told[name] for name in names] == [6, 2, 1, 2]
    assert told["oldest_us"] == int(taken.timestamps[2])
    store._clock(LONG * 1000 + 1_000_000)
    told = queues.describe("Red")
    assert [told[name] for name in names] == [8, 0, 1, 2]


def test_a_rewind_leaves_what_stands_before_it(queues: CmqQueues, store: Store) -> None:
    queues.create("Red", Given(rewind_s=600), NOW_US)
    queue, group, _ = queues.find("Red")
    times = []
    for at in range(6):
        store._clock(at * 10_000_000)
        queue.append(b"%d" % at)
        times.append(queue.stat()["last_us"])
    batch = group.receive(6, lease_ms=LONG)
    group.confirm(batch.receipts[24 : 5 * 24])
    # 0 and 5 are leased, 1 to 4 confirmed; from the 3rd on everything comes again.
    now_us = times[5] + 10_000_000
    queues.rewind("Red", times[3] // 1_000_000, now_us)
    assert sorted(map(bytes, group.receive(10, lease_ms=LONG))) == [b"0", b"3", b"4", b"5"]
    queues.rewind("Red", 1, now_us)
    assert len(group.receive(10, lease_ms=LONG)) == 6
    for late in (now_us // 1_000_000 + 100, 0, -5):
        with pytest.raises(CmqError) as error:
            queues.rewind("Red", late, now_us)
        assert error.value.fault is Fault.REWIND_TIME
    queues.create("Blue", Given(), NOW_US)
    with pytest.raises(CmqError) as error:
        queues.rewind("Blue", 1, now_us)
    assert error.value.fault is Fault.NOT_REWINDABLE


def test_a_rewind_to_what_nobody_took_moves_nothing(queues: CmqQueues) -> None:
    queues.create("Red", Given(rewind_s=600), NOW_US)
    queue, group, _ = queues.find("Red")
    queue.append(b"0")
    receipts = group.receive(1, lease_ms=LONG).receipts
    now_s = queue.stat()["last_us"] // 1_000_000
    queues.rewind("Red", now_s + 5, queue.stat()["last_us"])
    assert group.confirm(receipts) == b"\0"


def test_dead_letters_are_bound_by_count(queues: CmqQueues) -> None:
    queues.create("Dead", Given(), NOW_US)
    queues.create("Red", Given(dead_letter="Dead", max_receive=2), NOW_US)
    queue, group, defaults = queues.find("Red")
    assert defaults.dead_letter == "Dead" and queues.sources("Dead") == ["Red"]
    queue.append(b"x")
    for _ in range(2):
        assert len(group.receive(1, lease_ms=0)) == 1
    assert len(group.receive(1)) == 0
    dead = queues.find("Dead").group.receive(5, wait_ms=9000)
    assert [bytes(one) for one in dead] == [b"x"]
    for refused in (
        lambda: queues.delete("Dead"),
        lambda: queues.set("Dead", Given(dead_letter="Red", max_receive=1), NOW_US),
        lambda: queues.set("Red", Given(dead_letter="Red", max_receive=1), NOW_US),
        lambda: queues.unbind("Dead", NOW_US),
    ):
        with pytest.raises(CmqError) as error:
            refused()
        assert error.value.fault is Fault.DEAD_LETTER
    queues.unbind("Red", NOW_US)
    assert queues.describe("Red")["max_receive"] == 0
    queues.delete("Dead")
    with pytest.raises(CmqError) as error:
        queues.set("Red", Given(dead_letter="Dead", max_receive=1), NOW_US)
    assert error.value.fault is Fault.NO_QUEUE
