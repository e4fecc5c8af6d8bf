"""How often a message was delivered and until when it waits: what a crash leaves of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from engine_language import LONG, crashed, deliveries, in_child, opened, quiet, split

from penstock.engine import Store


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        quiet(store).queue("red").append_many([b"%d" % at for at in range(10)])
        yield store


def test_a_first_delivery_writes_nothing_and_the_second_one_record(store: Store) -> None:
    group = store.queue("red").group()
    frames = store.stat()["frames"]
    group.receive(4, lease_ms=0)
    assert store.stat()["frames"] == frames
    group.receive(4, lease_ms=0)
    assert store.stat()["frames"] == frames + 1
    group.receive(4)
    assert store.stat()["frames"] == frames + 2


def test_a_count_survives_a_crash(store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    for _ in range(3):
        batch = group.receive(2, lease_ms=0)
    assert batch.attempts.tolist() == [3, 3]
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert again.queue("red").group().receive(3).attempts.tolist() == [4, 4, 1]


def test_a_count_ends_with_a_rewind(store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    for _ in range(3):
        group.receive(2, lease_ms=0)
    group.seek(offset=0)
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert again.queue("red").group().receive(2).attempts.tolist() == [1, 1]


def test_a_confirmed_message_is_not_brought_back_by_a_late_note(
    store: Store, tmp_path: Path
) -> None:
    group = store.queue("red").group()
    group.receive(2, lease_ms=0)
    group.confirm(group.receive(2, lease_ms=LONG).receipts)
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert sorted(deliveries(again.queue("red").group())) == list(range(2, 10))


def test_a_delay_goes_on_after_a_crash(store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    one, two, three = split(group.receive(3, lease_ms=LONG).receipts)
    group.release(three)
    group.release(group.receive(1, lease_ms=LONG).receipts, delay_ms=0)
    group.release(one + two, delay_ms=LONG)
    with opened(crashed(store, tmp_path / "copy")) as again:
        group = again.queue("red").group()
        batch = group.receive(100)
        assert batch.offsets.tolist() == list(range(2, 10))
        assert batch.attempts.tolist() == [3] + [1] * 7
        assert group.stat()["in_flight"] == 10


@pytest.mark.parametrize("clean", [False, True])
def test_a_delay_in_a_checkpoint_goes_on(clean: bool, store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    group.release(group.receive(2, lease_ms=LONG).receipts, delay_ms=LONG)
    group.receive(1, lease_ms=LONG)
    store.checkpoint()
    path = crashed(store, tmp_path / "copy")
    if clean:
        store.close()
        path = Path(store.path)
    with opened(path) as again:
        batch = again.queue("red").group().receive(100)
        assert batch.offsets.tolist() == list(range(2, 10))
        assert batch.attempts[0] == 2


def test_a_delay_that_was_over_before_the_crash_is_over(store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    group.release(group.receive(10, lease_ms=LONG).receipts[:24], delay_ms=1)
    assert group.receive(1, wait_ms=5000, lease_ms=0).offsets[0] == 0
    with opened(crashed(store, tmp_path / "copy")) as again:
        batch = again.queue("red").group().receive(1)
        assert (batch.offsets[0], batch.attempts[0]) == (0, 3)


def receive_and_die(path: Path) -> None:
    with opened(path) as store:
        store.queue("red").group().receive(1, lease_ms=LONG)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_message_that_kills_its_only_process_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with opened(path) as store:
        store.queue("red").append(b"poison")
    for _ in range(4):
        assert in_child(receive_and_die, path) == -signal.SIGKILL
    with opened(path) as store:
        # The first delivery of all is not recorded; each one after it is, before it is handed over.
        assert store.queue("red").group().receive(1).attempts[0] == 4


def test_only_what_may_have_been_in_flight_is_recorded_after_a_crash(
    store: Store, tmp_path: Path
) -> None:
    store.queue("red").group().receive(3, lease_ms=LONG)
    with opened(crashed(store, tmp_path / "copy")) as again:
        queue = quiet(again).queue("red")
        queue.append_many([b"new"] * 5)
        queue.group().receive(10)
        frames = again.stat()["frames"]
        queue.group().receive(5)
        assert again.stat()["frames"] == frames


def test_a_full_disk_does_not_stop_deliveries(store: Store) -> None:
    queue = store.queue("red")
    store._fault(3, 28)
    with pytest.raises(OSError, match="no room"):
        for _ in range(100):
            queue.append(bytes(100_000))
    group = queue.group()
    for attempt in range(1, 4):
        batch = group.receive(1, lease_ms=0)
        assert (batch.offsets[0], batch.attempts[0]) == (0, attempt)
    group.release(group.receive(1, lease_ms=LONG).receipts, delay_ms=LONG)
    assert group.receive(1).offsets[0] == 1
