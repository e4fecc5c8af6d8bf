"""A message whose id was stored lately is stored once: by one sender, by many, over crashes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from engine_language import crashed, in_child, messages, opened, quiet

from penstock.engine import Attributes, InvalidError, Lane, Store
from penstock.engine.check import check
from penstock.engine.retries import Retry, redrive

MINUTE = 60_000


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        quiet(store).queue("red").configure(dedup_ms=MINUTE)
        yield store


def send(store: Store, name: str, body: bytes = b"") -> tuple[int, bool]:
    receipt = store.queue("red").append(body or name.encode(), attributes=Attributes(id=name))
    return receipt.offset, receipt.duplicate


def test_what_was_stored_is_answered_with_its_offset(store: Store) -> None:
    assert [send(store, name) for name in "aba"] == [(0, False), (1, False), (0, True)]
    assert send(store, "b", b"another body") == (1, True)
    assert messages(store.queue("red")) == {0: b"a", 1: b"b"}
    # What has no id, or none but other attributes, is stored each time.
    for attributes in (None, Attributes(key="a"), Attributes(correlation="a")):
        assert not store.queue("red").append(b"a", attributes=attributes).duplicate
    assert send(store, "c") == (5, False)


def test_other_queues_and_queues_without_a_window_know_nothing_of_it(store: Store) -> None:
    blue = store.queue("blue")
    send(store, "a")
    for _ in range(2):
        assert not blue.append(b"a", attributes=Attributes(id="a")).duplicate


def test_an_id_is_forgotten_when_its_window_ends(store: Store) -> None:
    send(store, "a")
    store._clock((MINUTE - 1000) * 1000)
    assert send(store, "a") == (0, True)
    store._clock(MINUTE * 1000)
    assert send(store, "a") == (1, False)
    assert send(store, "a") == (1, True)


def test_only_so_many_ids_are_known(store: Store) -> None:
    queue = store.queue("red")
    queue.configure(dedup_count=3)
    for name in "abcd":
        assert not send(store, name)[1]
    assert [send(store, name)[1] for name in "bcd"] == [True] * 3
    assert send(store, "a") == (4, False)
    assert send(store, "b") == (5, False)
    queue.configure(dedup_count=1000)
    assert send(store, "z") == (6, False)
    assert send(store, "b") == (7, False), "another number begins with none"


def test_of_a_batch_those_are_left_out_that_are_stored(store: Store) -> None:
    queue = store.queue("red")
    send(store, "b")

    def batch(names: str) -> tuple[int, bool]:
        receipt = queue.append_many([one.encode() for one in names],
                                    attributes=[Attributes(id=one) for one in names])
        return receipt.offset, receipt.duplicate

    assert batch("abca") == (1, True)
    assert messages(queue) == {0: b"b", 1: b"a", 2: b"c"}
    assert batch("abc") == (1, True)
    assert batch("de") == (3, False)
    assert len(messages(queue)) == 5


def test_two_copies_in_one_commit_are_one_message(store: Store) -> None:
    lane = Lane(store)
    for cookie in range(3):
        lane._append(cookie, store.queue("red"), b"x", attributes=Attributes(id="x"))
    lane._kick()
    results: list[tuple[int, object]] = []
    while len(results) < 3:
        results += lane._results()
    lane.close()
    assert sorted((cookie, one.offset, one.duplicate) for cookie, one in results) == [
        (0, 0, False), (1, 0, True), (2, 0, True)]
    assert len(messages(store.queue("red"))) == 1


@pytest.mark.parametrize("checkpointed", [False, True, None])
def test_a_crash_forgets_no_id(checkpointed: bool | None, store: Store, tmp_path: Path) -> None:
    for at in range(500):
        send(store, f"{at}")
        if checkpointed and at == 250:
            store.checkpoint()
    if checkpointed is None:
        store.close()
        path = Path(store.path)
    else:
        path = crashed(store, tmp_path / "copy")
    with opened(path) as again:
        # Two long lists that differ everywhere are compared for minutes where CI is set.
        assert not [at for at in range(500) if send(again, f"{at}") != (at, True)]
        assert send(again, "new") == (500, False)
        assert again.queue("red").settings()["dedup_ms"] == MINUTE
    assert check(path).problems == []


def test_what_is_known_needs_a_bounded_memory(store: Store) -> None:
    queue = store.queue("red")
    queue.configure(dedup_count=2000)
    before = 0
    for turn in range(6):
        for at in range(1000):
            send(store, f"{turn}.{at}")
        pages = store.stat()["state_pages"]
        if turn > 3:
            assert pages <= before + 2
        before = pages
    queue.configure(dedup_ms=0)
    assert send(store, "5.1")[1] is False


def test_what_is_moved_is_no_repetition(store: Store) -> None:
    queue, dead = store.queue("red"), store.queue("dead")
    queue.group().configure(retry=Retry(1, "dead", ()))
    send(store, "a")
    batch = queue.group().receive(1)
    queue.group().release(batch.receipts)
    store._flush()
    assert redrive(dead.group()).moved == 1
    assert messages(queue) == {0: b"a", 1: b"a"}
    assert send(store, "a") == (0, True)


def test_a_window_that_cannot_be_is_refused(store: Store) -> None:
    queue = store.queue("red")
    for wrong in ({"dedup_count": 1 << 19}, {"dedup_count": -1}, {"dedup_ms": -1}):
        with pytest.raises(InvalidError):
            queue.configure(**wrong)
    assert queue.settings()["dedup_count"] == 0


def test_a_deleted_queue_gives_its_ids_back(store: Store) -> None:
    pages = []
    for turn in range(4):
        queue = store.queue("blue")
        queue.configure(dedup_ms=MINUTE)
        for at in range(1000):
            queue.append(b"", attributes=Attributes(id=f"{turn}.{at}"))
        store.delete("blue")
        for _ in range(5):
            store._maintenance().reclaim.turn(1e9 + turn)
        pages.append(store.stat()["state_pages"])
    assert pages[3] <= pages[1] + 2


def send_and_die(path: Path) -> None:
    """Be killed while messages with ids are sent."""
    with opened(path) as store:
        if os.fork() == 0:
            os.kill(os.getppid(), signal.SIGKILL)
            os._exit(0)
        while True:
            for at in range(50):
                send(store, f"{at}")


def test_a_death_in_the_middle_stores_none_twice_and_refuses_none_that_is_new(store: Store) -> None:
    for turn in range(20):
        assert in_child(send_and_die, Path(store.path)) == -signal.SIGKILL
        for at in range(50):
            send(store, f"{at}")
        assert sorted(messages(store.queue("red")).values()) == sorted(
            [b"%d" % at for at in range(50)] + [b"new%d" % at for at in range(turn)])
        assert send(store, f"new{turn}")[1] is False
