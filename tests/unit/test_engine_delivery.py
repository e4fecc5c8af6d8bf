"""Taking, confirming, giving back and seeking; what a restart keeps of it."""

from __future__ import annotations

import select
import threading
from pathlib import Path

import pytest
from engine_language import LONG, crashed, deliveries, in_child, opened, quiet, split

from penstock.engine import Queue, SendReceipt
from penstock.engine._core import Lane


@pytest.fixture
def queue(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"%d" % at for at in range(10)])
        yield queue


def test_a_message_is_delivered_to_one_consumer_of_a_group(queue: Queue) -> None:
    one, two = queue.group(), queue.group()
    assert one.receive(4).offsets.tolist() == [0, 1, 2, 3]
    assert two.receive(100).offsets.tolist() == [4, 5, 6, 7, 8, 9]
    assert len(one.receive(1)) == 0
    assert queue.group("audit").receive(100).offsets.tolist() == list(range(10))


def test_a_lease_that_ended_brings_the_message_to_the_next(queue: Queue) -> None:
    group = queue.group()
    late = group.receive(1, lease_ms=0)
    again = group.receive(1, lease_ms=LONG)
    assert late.offsets[0] == again.offsets[0] == 0
    assert (late.attempts[0], again.attempts[0]) == (1, 2)
    assert group.confirm(late.receipts) == b"\1"
    assert group.confirm(again.receipts) == b"\0"


def test_a_lease_can_be_extended_and_shortened(queue: Queue) -> None:
    group = queue.group()
    mine = group.receive(1, lease_ms=1000)
    assert group.extend(mine.receipts, lease_ms=LONG) == b"\0"
    assert group.receive(1, lease_ms=LONG).offsets[0] == 1
    assert group.extend(mine.receipts, lease_ms=0) == b"\0"
    assert group.extend(mine.receipts, lease_ms=LONG) == b"\1"
    assert group.receive(1).offsets[0] == 0


def test_a_message_given_back_comes_at_once_or_later(queue: Queue) -> None:
    group = queue.group()
    one, two = split(group.receive(2, lease_ms=LONG).receipts)
    assert group.release(one) == b"\0"
    assert group.release(two, delay_ms=LONG) == b"\0"
    assert group.release(one) == group.release(two) == b"\1"
    batch = group.receive(3)
    assert batch.offsets.tolist() == [0, 2, 3]
    assert batch.attempts.tolist() == [2, 1, 1]


def test_a_short_delay_ends_while_a_receiver_waits(queue: Queue) -> None:
    group = queue.group()
    batch = group.receive(10, lease_ms=LONG)
    group.release(batch.receipts[:24], delay_ms=30)
    assert len(group.receive(1)) == 0
    assert group.receive(1, wait_ms=5000).offsets.tolist() == [0]


def test_a_waiting_receiver_is_woken_by_a_release(queue: Queue) -> None:
    group = queue.group()
    batch = group.receive(10, lease_ms=LONG)
    found: list[int] = []
    thread = threading.Thread(
        target=lambda: found.extend(group.receive(1, wait_ms=20_000).offsets.tolist())
    )
    thread.start()
    group.release(batch.receipts[:24])
    thread.join()
    assert found == [0]


def test_seeking_brings_back_what_was_confirmed(queue: Queue) -> None:
    group = queue.group()
    batch = group.receive(10, lease_ms=LONG)
    group.confirm(batch.receipts[:120])
    assert group.seek(offset=3) == (3, 7)
    assert set(group.confirm(batch.receipts)) == {1}
    again = group.receive(100)
    assert again.offsets.tolist() == list(range(3, 10))
    assert again.attempts.tolist() == [1] * 7
    assert group.seek(offset=10**9) == (10, 0)
    assert len(group.receive()) == 0
    assert group.seek(offset=0) == (0, 10)


def test_seeking_to_a_time(queue: Queue) -> None:
    group = queue.group()
    deliveries(group)
    moment = int(queue.read().timestamps[-1])
    assert group.seek(time_us=moment + 1) == (10, 0)
    queue.append(b"later")
    assert group.receive(100).tolist() == [b"later"]
    assert group.seek(time_us=0) == (0, 11)


def test_one_group_seeks_and_the_other_does_not_notice(queue: Queue) -> None:
    group, other = queue.group(), queue.group("other")
    other.confirm(other.receive(10, lease_ms=LONG).receipts)
    deliveries(group)
    group.seek(offset=0)
    assert len(other.receive(10)) == 0
    assert len(group.receive(10)) == 10


def test_a_confirmation_written_behind_a_rewind_undoes_none_of_it(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        queue = store.queue("red")
        group = queue.group()
        queue.append_many([b"a", b"b"])
        batch = group.receive(2, lease_ms=LONG)
        lane = Lane(store)
        assert lane._confirm(1, batch.receipts, bytearray(2))
        # Confirmed in memory, not in the log yet.
        assert group.seek(offset=0) == (0, 2)
        lane._kick()
        found: dict[int, object] = {}
        while not found:
            assert select.select([lane.fileno()], [], [], 60)[0]
            found = dict(lane._results())
        assert isinstance(found[1], SendReceipt)
        copy = crashed(store, tmp_path / "crashed")
        lane.close()
        assert deliveries(group) == {0: b"a", 1: b"b"}
    with opened(copy) as store:
        assert deliveries(store.queue("red").group()) == {0: b"a", 1: b"b"}


def test_a_group_counts_what_it_does(queue: Queue) -> None:
    group = queue.group()
    assert group.stat() == {"floor": 0, "cursor": 0, "in_flight": 0, "ready": 10}
    batch = group.receive(4, lease_ms=LONG)
    assert group.stat() == {"floor": 0, "cursor": 4, "in_flight": 4, "ready": 6}
    group.confirm(batch.receipts[24:48])
    group.release(batch.receipts[48:72])
    assert group.stat() == {"floor": 0, "cursor": 4, "in_flight": 2, "ready": 7}
    group.confirm(batch.receipts[:24])
    assert group.stat()["floor"] == 2


@pytest.mark.parametrize("count", [300, 40_000])
def test_state_is_as_large_as_what_is_in_flight(count: int, tmp_path: Path) -> None:
    with opened(tmp_path / "store", durability="kernel") as store:
        queue = store.queue("red")
        for start in range(0, count, 1000):
            queue.append_many([b"x"] * min(1000, count - start))
        store._flush()
        group = queue.group()
        while len(batch := group.receive(1000, lease_ms=LONG)):
            assert set(group.confirm(batch.receipts)) == {0}
        assert group.stat() == {"floor": count, "cursor": count, "in_flight": 0, "ready": 0}
        assert store.stat()["state_pages"] < 16


def test_receiving_keeps_to_its_limits(queue: Queue) -> None:
    queue.append(bytes(100_000))
    group = queue.group()
    assert len(group.receive(3)) == 3
    batch = group.receive(100, max_bytes=1000)
    assert batch.offsets.tolist() == list(range(3, 10))
    assert group.receive(100, max_bytes=1000).sizes.tolist() == [100_000]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_restart_ends_leases_and_keeps_confirmations(
    checkpointed: bool, queue: Queue, tmp_path: Path
) -> None:
    group = queue.group()
    batch = group.receive(6, lease_ms=LONG)
    group.confirm(batch.receipts[:24] + batch.receipts[72:96])
    group.release(batch.receipts[24:48], delay_ms=LONG)
    if checkpointed:
        queue.store.checkpoint()
    with opened(crashed(queue.store, tmp_path / "copy")) as store:
        again = store.queue("red").group()
        assert set(again.confirm(batch.receipts)) == {1}
        assert sorted(deliveries(again)) == [2, 4, 5, 6, 7, 8, 9]


def test_a_confirmation_of_many_single_messages(tmp_path: Path) -> None:
    with opened(tmp_path / "store", durability="kernel") as store:
        queue = store.queue("red")
        queue.append_many([b"x"] * 5000)
        store._flush()
        batch = queue.group().receive(5000, lease_ms=LONG)
        every_second = b"".join(split(batch.receipts)[::2])
        assert set(queue.group().confirm(every_second)) == {0}
        copy = crashed(store, tmp_path / "copy")
    with opened(copy) as store:
        assert sorted(deliveries(store.queue("red").group())) == list(range(1, 5000, 2))


def confirm_more_than_a_commit_holds(path: Path) -> None:
    with opened(path, durability="kernel") as store:
        queue = store.queue("red")
        for _ in range(7):
            queue.append_many([b"x"] * 1000)
        store._flush()
        receipts = queue.group().receive(7000, lease_ms=LONG).receipts
        assert set(queue.group().confirm(receipts)) == {0}


def test_a_confirmation_larger_than_a_commit_ends(tmp_path: Path) -> None:
    assert in_child(confirm_more_than_a_commit_holds, tmp_path / "store", within_s=5) == 0
