"""Messages of one key come one after the other, those of other keys beside them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from engine_language import LONG, crashed, in_child, opened, quiet, split

from penstock.engine import Attributes, Consumer, InvalidError, Queue, Store
from penstock.engine._core import Inspector


def fill(queue: Queue, keys: str) -> None:
    """A message for each letter, which is its key; a dot is a message without one."""
    for at, key in enumerate(keys):
        queue.append(b"%d" % at, attributes=Attributes(key=key.strip(".")), durability="kernel")
    queue.store._flush()


def take(group: Consumer, count: int = 100, lease_ms: int = LONG) -> list[int]:
    return list(group.receive(count, lease_ms=lease_ms).offsets.tolist())


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        yield quiet(store)


def ordered(store: Store, keys: str, order: str = "key") -> Consumer:
    queue = store.queue("red")
    fill(queue, keys)
    group = queue.group()
    group.configure(order=order)
    return group


def test_the_next_of_a_key_comes_after_the_one_before_is_confirmed(store: Store) -> None:
    group = ordered(store, "abacab.a")
    batch = group.receive(100, lease_ms=LONG)
    assert batch.offsets.tolist() == [0, 1, 3, 6]
    assert group.stat()["held"] == 4
    a, b, c, none = split(batch.receipts)
    group.confirm(c + none)
    assert take(group) == []
    group.confirm(b)
    assert take(group) == [5]
    group.confirm(a)
    second = group.receive(100, lease_ms=LONG)
    assert second.offsets.tolist() == [2]
    group.confirm(second.receipts)
    third = group.receive(100, lease_ms=LONG)
    assert third.offsets.tolist() == [4]
    fill(group.queue, "a")
    assert take(group) == []
    group.confirm(third.receipts)
    assert take(group) == [7]


def test_a_line_waits_for_what_was_given_back_or_ran_out(store: Store) -> None:
    group = ordered(store, "aab")
    assert take(group, 1, lease_ms=0) == [0]
    batch = group.receive(2, lease_ms=LONG)
    assert batch.offsets.tolist() == [0, 2]
    group.release(batch.receipts[:24], delay_ms=LONG)
    assert take(group) == []
    group.extend(batch.receipts[24:], lease_ms=0)
    assert take(group) == [2]


def test_strict_order_is_one_message_at_a_time(store: Store) -> None:
    group = ordered(store, "ab..", "strict")
    for offset in range(4):
        batch = group.receive(100, lease_ms=LONG)
        assert batch.offsets.tolist() == [offset]
        assert take(group) == []
        group.confirm(batch.receipts)
    assert group.stat()["held"] == 0


def test_messages_without_a_key_are_not_ordered(store: Store) -> None:
    assert take(ordered(store, "....")) == [0, 1, 2, 3]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_order_holds_across_a_crash(checkpointed: bool, store: Store, tmp_path: Path) -> None:
    group = ordered(store, "aabbab")
    batch = group.receive(100, lease_ms=LONG)
    group.confirm(batch.receipts[24:])
    if checkpointed:
        store.checkpoint()
    group.receive(100, lease_ms=LONG)
    with opened(crashed(store, tmp_path / "copy")) as again:
        group = again.queue("red").group()
        assert take(group) == [0, 3]
        assert take(group) == []


def test_order_holds_across_a_rewind(store: Store) -> None:
    group = ordered(store, "aabb")
    group.confirm(group.receive(100, lease_ms=LONG).receipts)
    take(group)
    group.seek(offset=0)
    assert take(group) == [0, 2]
    assert group.stat()["held"] == 2


def test_an_order_asked_for_later_counts_from_then_on(store: Store) -> None:
    queue = store.queue("red")
    fill(queue, "aaab")
    group = queue.group()
    batch = group.receive(2, lease_ms=LONG)
    group.configure(order="key")
    assert take(group) == [3]
    group.release(batch.receipts[24:])
    assert take(group) == []
    group.confirm(batch.receipts[:24])
    assert take(group) == [1]
    group.configure(order="none")
    assert take(group) == [2]


def test_an_order_that_is_not_one_is_refused(store: Store) -> None:
    with pytest.raises(InvalidError, match="none, key, strict"):
        store.queue("red").group().configure(order="some")  # type: ignore[arg-type]


def test_one_group_is_ordered_and_the_other_is_not(store: Store) -> None:
    group = ordered(store, "aa")
    assert take(group) == [0]
    assert take(group.queue.group("other")) == [0, 1]


def test_a_damaged_message_does_not_stop_its_line(store: Store) -> None:
    group = ordered(store, "aaa")
    position = int(group.queue.index()["position"][0])
    with open(Path(store.path, "log", "00000001.seg"), "r+b") as file:
        file.seek((position & 0xFFFFFFFF) + 50)
        file.write(b"?")
    assert take(group) == [1]
    assert take(group) == []


def test_what_is_purged_leaves_its_line(store: Store) -> None:
    group = ordered(store, "aaa")
    batch = group.receive(100, lease_ms=LONG)
    group.queue.purge()
    fill(group.queue, "a")
    group.confirm(batch.receipts)
    assert take(group) == [3]


def test_more_keys_than_a_page_holds(store: Store) -> None:
    queue = store.queue("red")
    count = 3000
    with_keys = [Attributes(key=f"key {at % 1000}") for at in range(count)]
    for attributes in with_keys:
        queue.append(b"x", attributes=attributes, durability="kernel")
    store._flush()
    group = queue.group()
    group.configure(order="key")
    for turn in range(3):
        batch = group.receive(5000, lease_ms=LONG)
        assert sorted(batch.offsets.tolist()) == list(range(turn * 1000, turn * 1000 + 1000))
        group.confirm(batch.receipts)
    assert group.stat()["held"] == 0
    pages = store.stat()["state_pages"]
    group.configure(order="none")
    group.configure(order="key")
    assert store.stat()["state_pages"] == pages


def die_taking(path: Path) -> None:
    """Be killed at some instruction inside or outside the group's lock."""
    with opened(path) as store:
        group = store.queue("red").group()
        store._prepare()
        if os.fork() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        while True:
            batch = group.receive(7, lease_ms=0)
            group.release(batch.receipts) if len(batch) else None


def test_a_death_inside_leaves_every_line_whole(store: Store) -> None:
    group = ordered(store, "abcabcabc" * 20)
    for _ in range(20):
        assert in_child(die_taking, Path(store.path)) == -signal.SIGKILL
    seen: list[int] = []
    while len(batch := group.receive(100, wait_ms=50, lease_ms=LONG)):
        seen += batch.offsets.tolist()
        group.confirm(batch.receipts)
    assert sorted(seen) == list(range(180))
    for key in range(3):
        assert [at for at in seen if at % 3 == key] == list(range(key, 180, 3))


def test_an_operator_sees_behind_whom_a_message_stands(store: Store) -> None:
    group = ordered(store, "aab")
    look = Inspector(store)
    assert look.message(group.queue.id, group.id, 1)["state"] == "fresh"
    take(group, 1)
    for _ in range(2):
        seen = look.message(group.queue.id, group.id, 1)
        assert (seen["state"], seen["behind"]) == ("held", 0)
        take(group)
    assert look.counts(group.queue.id, group.id)[0]["held"] == 1
