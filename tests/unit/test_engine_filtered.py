"""A group with a filter: what it takes, what it passes over, what a change or a crash leaves."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from pathlib import Path

import pytest
from engine_language import (
    DONE,
    LONG,
    STALE,
    crashed,
    deliveries,
    in_child,
    killed,
    opened,
    quiet,
    split,
    started,
    unattended,
)
from penstock.engine import Attributes, Consumer, FilterError, Queue, Store
from penstock.engine._core import short_receipts, whole_receipts
from penstock.engine.check import check

TAGS = ("a", "b", "c")


def send(queue: Queue, *tags: str) -> None:
    for tag in tags:
        queue.append(tag.encode(), attributes=Attributes(tag=tag), durability="kernel")
    queue.store._flush()


def fill(queue: Queue, count: int) -> None:
    """So many messages without a tag."""
    for at in range(0, count, 8000):
        queue.append_many([b""] * min(8000, count - at), durability="kernel")
    queue.store._flush()


def taken(group: Consumer) -> list[int]:
    return sorted(deliveries(group))


def pages(store: Store) -> int:
    return store.stat()["state_pages"]


def test_a_group_gets_what_its_filter_wants(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        group = queue.group("g")
        send(queue, *TAGS * 5)
        found = group.filter("tag", "b || c")
        assert (found.kind, found.source) == ("tag", "b || c")
        assert group.settings()["filter"] == found
        assert taken(group) == [at for at in range(15) if at % 3]
        assert taken(queue.group()) == list(range(15))
        assert group.stat()["cursor"] == 15 and group.stat()["in_flight"] == 10


@pytest.mark.parametrize(("kind", "source", "wanted"), [
    ("routing", "order.*.paid", [1]), ("routing", "order.#", [0, 1]), ("sql", "total > 10", [1, 2]),
    ("sql", "total > 10 AND TAGS = 'x'", [2]), (None, "", [0, 1, 2, 3]), ("tag", "nothing", []),
])
def test_each_kind_of_filter(tmp_path: Path, kind: str, source: str, wanted: list[int]) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter(kind, source)
        for body, key, total in ((b"0", "order.1", "5"), (b"1", "order.1.paid", "11")):
            properties = {"total": total}
            queue.append(body, attributes=Attributes(routing_key=key, properties=properties))
        queue.append(b"2", attributes=Attributes(tag="x", properties={"total": "12.5"}))
        queue.append(b"3", ext=b"anything")
        assert taken(group) == wanted


def test_what_is_passed_over_costs_no_state(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        fill(queue, 70_000)
        group.filter("tag", "b")
        send(queue, "b")
        before = pages(store)
        batch = group.receive(10, lease_ms=LONG)
        assert batch.offsets.tolist() == [70_000]
        assert group.stat()["floor"] == group.stat()["cursor"] - 1 == 70_000
        # While it is in flight, what is passed over behind it leaves marks, not a page for each.
        fill(queue, 70_000)
        assert not len(group.receive(10))
        assert pages(store) - before <= 8
        group.confirm(batch.receipts)
        assert group.stat()["floor"] == group.stat()["cursor"] == 140_001
        send(queue, *["a", "b"] * 500)
        while len(batch := group.receive(7)):
            group.confirm(batch.receipts)
        assert group.stat()["floor"] == 141_001
        assert pages(store) - before <= 8


def test_pages_come_back_when_a_filter_leaves_gaps(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("tag", "b")
        for _ in range(40):
            fill(queue, 3000)
            send(queue, "b")
            batch = group.receive(10)
            group.confirm(batch.receipts)
        assert group.stat()["floor"] == 40 * 3001
        assert pages(store) <= 8


def test_a_change_loses_nothing(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        send(queue, *TAGS * 4)
        group.filter("tag", "a")
        first = group.receive(2, lease_ms=LONG)
        assert first.offsets.tolist() == [0, 3]
        generation = group.settings()["filter"].generation
        assert group.filter("tag", "b").generation > generation
        # 1 and 2 were passed over, 0 and 3 stay in flight and are owed.
        assert taken(group) == [4, 7, 10]
        group.release(first.receipts)
        assert taken(group) == [0, 3]


@pytest.mark.parametrize("saved", ["never", "before", "after"])
@pytest.mark.parametrize("second", ["b", None])
def test_a_change_loses_nothing_over_a_crash(
    tmp_path: Path, saved: str, second: str | None
) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        send(queue, *TAGS * 4)
        group.filter("tag", "a")
        if saved == "before":
            store.checkpoint()
        first = group.receive(2, lease_ms=LONG)
        group.filter("tag" if second else None, second or "")
        if saved == "after":
            store.checkpoint()
        rest = [at for at in range(4, 12) if not second or at % 3 == 1]
        with opened(crashed(store, tmp_path / "one")) as other:
            assert taken(other.queue("q").group("g")) == [0, 3, *rest]
        group.confirm(split(first.receipts)[0])
        assert group.receive(1, lease_ms=LONG).offsets.tolist() == rest[:1]
        with opened(crashed(store, tmp_path / "two")) as other:
            assert taken(other.queue("q").group("g")) == [3, *rest]
    assert check(tmp_path / "two").problems == []


def test_what_was_in_flight_before_the_first_filter_is_owed_after_a_crash(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        send(queue, *TAGS)
        assert taken(group) == [0, 1, 2]
        group.filter("tag", "nothing")
        send(queue, *TAGS)
        with opened(crashed(store, tmp_path / "crashed")) as other:
            assert taken(other.queue("q").group("g")) == [0, 1, 2]


def test_confirmations_survive_a_crash_and_passing_is_done_again(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("tag", "b")
        send(queue, *TAGS * 300)
        batch = group.receive(300, lease_ms=LONG)
        group.confirm(b"".join(split(batch.receipts)[::2]))
        with opened(crashed(store, tmp_path / "crashed")) as other:
            again = other.queue("q").group("g")
            assert taken(again) == batch.offsets.tolist()[1::2]
            assert again.stat()["cursor"] == 900


def test_a_rewind_asks_the_filter_there_is_now(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        send(queue, *TAGS * 2)
        group.filter("tag", "a")
        group.confirm(group.receive(10).receipts)
        group.filter("tag", "b")
        group.seek(offset=0)
        assert taken(group) == [1, 4]
        with opened(crashed(store, tmp_path / "crashed")) as other:
            assert taken(other.queue("q").group("g")) == [1, 4]


def test_a_filter_that_does_not_compile_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("tag", "a")
        with pytest.raises(FilterError, match="column 5"):
            group.filter("sql", "a > ")
        assert group.settings()["filter"].source == "a"


def test_a_receiver_waits_for_what_it_wants(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("tag", "b")
        send(queue, "a")
        assert not len(group.receive(wait_ms=20))
        send(queue, "b")
        assert group.receive(wait_ms=5000).offsets.tolist() == [1]


def test_one_call_finds_what_lies_far_behind(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("sql", "TAGS = 'b'")
        for _ in range(4):
            fill(queue, 60_000)
        send(queue, "b")
        calls = 1
        while not len(group.receive(once=True)):
            assert group.stat()["cursor"] < 240_000
            calls += 1
        assert calls > 2
        group.seek(offset=0)
        assert group.receive().offsets.tolist() == [240_000]


def die_holding_the_stripe(path: Path) -> None:
    store = opened(path)
    group = store.queue("q").group("g")
    threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()
    while True:
        group.receive(1, lease_ms=1)
        group.seek(offset=0)


def test_a_receiver_that_dies_while_it_passes_over_leaves_the_group_whole(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        group = queue.group("g")
        group.filter("sql", "TAGS = 'b'")
        fill(queue, 5000)
        send(queue, "b", "a", "b")
        for _ in range(5):
            assert in_child(die_holding_the_stripe, tmp_path / "s") == -signal.SIGKILL
            group.seek(offset=0)
            batch = group.receive(5, lease_ms=LONG, wait_ms=2000)
            assert batch.offsets.tolist() == [5000, 5002]
            group.confirm(batch.receipts)
            assert group.stat()["floor"] == group.stat()["cursor"] == 5003


def stop_while_frozen(path: Path) -> None:
    """Change the filter, and stop for good behind the write, holding the store's lock."""
    store = quiet(opened(path))
    group = store.queue("q").group("g")
    _, full = os.pipe()
    os.set_blocking(full, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(full, b"\0")
    os.set_blocking(full, True)
    store._trace(full)
    group.filter("tag", "nothing")


def test_nothing_is_taken_while_a_change_is_on_its_way(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        fill(queue, 200_000)
        child = started(stop_while_frozen, tmp_path / "s")
        taken = 0
        while len(group.receive(1, lease_ms=LONG)):
            taken += 1
        child.kill()
        child.join()
        assert group.stat()["ready"] == 200_000 - taken > 0
        # Whoever takes the store's lock next undoes what was not published.
        send(queue, "x")
        assert group.settings()["filter"].kind is None
        assert group.receive(1, lease_ms=LONG).offsets.tolist() == [taken]


def test_changes_beside_a_receiver_lose_nothing(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s", durability="kernel")) as store:
        queue = store.queue("q")
        group = queue.group("g")
        told = [Attributes(tag="ab"[at % 2]) for at in range(4000)]
        for _ in range(25):
            queue.append_many([b""] * 4000, attributes=told)
        store._flush()
        over = threading.Event()
        found: set[int] = set()

        def receive() -> None:
            while not over.is_set():
                found.update(group.receive(1, lease_ms=LONG).offsets.tolist())

        receiver = threading.Thread(target=receive)
        receiver.start()
        for change in range(100):
            group.filter("tag", "ab"[change % 2])
            before = len(found)
            while len(found) < before + 3 and group.stat()["ready"]:
                pass
        over.set()
        receiver.join()
        with opened(crashed(store, tmp_path / "crashed")) as other:
            assert found <= set(taken(other.queue("q").group("g")))


def test_what_is_known_beyond_the_cursor_after_a_crash_is_confirmed_once_and_again(
    tmp_path: Path,
) -> None:
    """Its delivery is in the log, where the cursor was is not: the slot stands ahead of it."""
    store = unattended(tmp_path / "s")
    store.queue("q").group("g").filter("tag", "a")
    send(store.queue("q"), "a")
    for lease_ms in (0, 0, LONG):
        killed(store)
        store = unattended(tmp_path / "s")
        group = store.queue("q").group("g")
        receipt = group.receive(1, lease_ms=lease_ms).receipts
    # Its handle of 63 bits finds it, too.
    assert whole_receipts(group, short_receipts(receipt)) == [receipt]
    assert group.confirm(receipt) == bytes([DONE])
    assert group.confirm(receipt) == bytes([STALE])
    assert group.confirm(receipt, again=True) == bytes([DONE])
    store.close()
