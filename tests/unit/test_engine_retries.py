"""What fails again and again waits longer each time, and in the end lies among the dead letters."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from engine_language import LONG, crashed, in_child, messages, opened, quiet, split

from penstock.engine import Attributes, Consumer, InvalidError, QueueNotFoundError, Store
from penstock.engine.check import check
from penstock.engine.retries import Retry, redrive


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        quiet(store).queue("dead")
        store.queue("red").append_many([b"%d" % at for at in range(4)])
        yield store


def limited(store: Store, attempts: int = 2, *backoff_ms: int) -> Consumer:
    group = store.queue("red").group()
    group.configure(retry=Retry(attempts, "dead", backoff_ms))
    return group


def fail(group: Consumer, reason: str = "") -> list[int]:
    """Take what there is and give it back."""
    batch = group.receive(100, lease_ms=LONG)
    if len(batch):
        group.release(batch.receipts, reason=reason)
    # A move is written at once, and visible when it is on disk.
    group.queue.store._flush()
    return list(batch.offsets.tolist())


def test_what_used_up_its_attempts_is_moved_with_its_story(store: Store) -> None:
    group = limited(store)
    assert fail(group) == fail(group, "no such account") == [0, 1, 2, 3]
    assert fail(group) == []
    batch = store.queue("dead").read()
    assert batch.tolist() == [b"0", b"1", b"2", b"3"]
    origin = batch.origin(1)
    assert origin is not None
    assert (origin.queue, origin.group, origin.offset) == (group.queue.id, group.id, 1)
    assert (origin.attempts, origin.text) == (2, "no such account")
    assert origin.reason == "given back for the last time"
    assert group.stat()["floor"] == 4
    assert store.queue("red").read().origin(0) is None


def test_a_lease_that_ran_out_for_the_last_time_counts_too(store: Store) -> None:
    group = limited(store, 1)
    group.receive(1, lease_ms=0)
    assert group.receive(100, lease_ms=LONG).offsets.tolist() == [1, 2, 3]
    store._flush()
    origin = store.queue("dead").read().origin(0)
    assert origin is not None and (origin.offset, origin.reason) == (0, "attempts used up")


def test_each_failure_waits_longer(store: Store) -> None:
    group = limited(store, 10, 0, LONG)
    assert len(fail(group)) == 4
    assert len(fail(group)) == 4
    assert fail(group) == []
    assert group.stat()["in_flight"] == 4


def test_a_delay_that_is_named_counts_before_the_table(store: Store) -> None:
    group = limited(store, 10, LONG)
    batch = group.receive(1, lease_ms=LONG)
    group.release(batch.receipts, delay_ms=0)
    assert group.receive(1).offsets[0] == 0


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_moved_message_is_in_one_place_after_a_crash(
    checkpointed: bool, store: Store, tmp_path: Path
) -> None:
    group = limited(store, 1)
    group.receive(2, lease_ms=0)
    if checkpointed:
        store.checkpoint()
    group.receive(100, lease_ms=LONG)
    store._flush()
    copy = crashed(store, tmp_path / "copy")
    with opened(copy) as again:
        left = set(again.queue("red").group().receive(100).offsets.tolist())
        moved = set(map(int, messages(again.queue("dead")).values()))
        assert moved == {0, 1} and left == {2, 3}
    assert check(copy).problems == []


def test_a_poison_message_does_not_hold_its_key_for_ever(store: Store) -> None:
    queue = store.queue("blue")
    for at in range(4):
        queue.append(b"%d" % at, attributes=Attributes(key="ab"[at % 2]))
    group = queue.group()
    group.configure(order="key", retry=Retry(2, "dead", ()))
    for _ in range(2):
        one, two = split(group.receive(10, lease_ms=LONG).receipts)
        group.release(one)
        group.extend(two, lease_ms=0)
    assert group.receive(10, lease_ms=LONG).offsets.tolist() == [2]
    # The move of message 1 was the last act of that receive; now its key goes on.
    assert group.receive(10, lease_ms=LONG).offsets.tolist() == [3]
    store._flush()
    assert sorted(messages(store.queue("dead")).values()) == [b"0", b"1"]


def test_without_the_dead_letter_queue_nothing_is_lost(store: Store) -> None:
    group = limited(store, 1)
    store.delete("dead")
    assert fail(group) == [0, 1, 2, 3]
    assert fail(group) == []
    assert group.stat()["floor"] == 0
    group.configure(retry=Retry(0, "", ()))


def test_a_policy_that_cannot_be_kept_is_refused(store: Store) -> None:
    group = store.queue("red").group()
    with pytest.raises(InvalidError, match="needs dead_letter"):
        group.configure(retry=Retry(3))
    with pytest.raises(InvalidError, match="its own"):
        group.configure(retry=Retry(3, "red"))
    with pytest.raises(QueueNotFoundError):
        group.configure(retry=Retry(3, "nowhere"))
    with pytest.raises(InvalidError, match="backoff_ms"):
        group.configure(retry=Retry(3, "dead", (1,) * 65))
    assert group.settings()["retry"] is None
    group.configure(retry=Retry(3, "dead", (1, 2)))
    assert group.settings()["retry"] == (3, store.queue("dead").id, (1, 2))


def test_dead_letters_are_redriven_to_where_they_came_from(store: Store, tmp_path: Path) -> None:
    fail(limited(store, 1))
    dead = store.queue("dead").group()
    assert redrive(dead, dry_run=True).moved == 4
    done = redrive(dead, wanted=lambda batch, at: batch.origin(at).offset != 2)
    assert (done.seen, done.moved, done.next) == (4, 3, 4)
    red = store.queue("red")
    batch = red.read(offset=4)
    assert batch.tolist() == [b"0", b"1", b"3"]
    origin = batch.origin(0)
    assert origin is not None and origin.reason == "redriven"
    assert dead.receive(10).tolist() == [b"2"]
    assert redrive(dead, start=done.next or 0).next is None
    store._flush()
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert again.queue("dead").group().receive(10).tolist() == [b"2"]
        assert again.queue("red").group().receive(10).tolist() == [b"0", b"1", b"3"]


def test_a_redrive_leaves_what_somebody_works_on(store: Store) -> None:
    fail(limited(store, 1))
    dead = store.queue("dead").group()
    dead.receive(1, lease_ms=LONG)
    goal = store.queue("goal")
    assert redrive(dead, to=goal).moved == 3
    assert redrive(dead, to=goal).moved == 0
    assert goal.read().tolist() == [b"1", b"2", b"3"]


def test_a_message_is_moved_once_though_asked_twice_in_one_commit(store: Store) -> None:
    fail(limited(store, 1))
    dead, goal = store.queue("dead").group(), store.queue("goal")
    assert dead._transfer([0, 0], [goal.id, goal.id]) == [0, 1]
    assert goal.read().tolist() == [b"0"]


def test_on_a_full_disk_a_message_stays_where_it_is(store: Store) -> None:
    group = limited(store, 1)
    store._fault(3, 28)
    with pytest.raises(OSError, match="no room"):
        for _ in range(100):
            store.queue("other").append(bytes(100_000))
    fail(group)
    assert messages(store.queue("dead")) == {}
    assert group.stat()["floor"] == 0


def fail_and_die(path: Path) -> None:
    """Be killed while messages are taken, given back and moved."""
    with opened(path) as store:
        group = store.queue("red").group()
        if os.fork() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        while True:
            fail(group)


def test_a_death_in_the_middle_leaves_every_message_in_one_place(store: Store) -> None:
    limited(store, 3)
    queue, dead = store.queue("red"), store.queue("dead")
    for turn in range(20):
        queue.append_many([b"%d" % (4 + 10 * turn + at) for at in range(10)])
        assert in_child(fail_and_die, Path(store.path)) == -signal.SIGKILL
        store._flush()      # what the dead one had moved is seen only once it is on disk
        moved = sorted(map(int, messages(dead).values()))
        assert len(moved) == len(set(moved))
    confirmed = queue.group().stat()["floor"]
    assert set(range(confirmed)) <= set(moved)
