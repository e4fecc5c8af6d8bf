"""A purge can be taken back while what it purged is kept, and not afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import crashed, deliveries, messages, opened, quiet

from penstock.engine import InvalidError, QueueNotFoundError, Store
from penstock.engine._core import Reclaimer
from penstock.engine.check import check

HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = quiet(opened(tmp_path / "store"))
    yield made
    made.close()


def given_up(store: Store) -> None:
    while not Reclaimer(store).give_up():
        pass


def test_a_purge_is_taken_back_within_its_window(store: Store, tmp_path: Path) -> None:
    queue = store.queue("q")
    queue.append_many([b"1", b"2", b"3"])
    wanted = messages(queue)
    assert queue.purge(keep_ms=HOUR_MS) == 3
    queue.append(b"4")
    given_up(store)
    assert messages(queue) == {3: b"4"} and queue.stat()["reclaimed"] == 0
    copy = crashed(store, tmp_path / "copy")
    assert queue.unpurge() == (0, 3)
    assert messages(queue) == {**wanted, 3: b"4"} == deliveries(queue.group())
    with pytest.raises(InvalidError, match="no purge"):
        queue.unpurge()
    # The window outlives a crash, and so does what was taken back.
    with quiet(opened(copy)) as again:
        assert again.queue("q").unpurge() == (0, 3)
        other = crashed(again, tmp_path / "other")
    for path in (copy, other):
        with quiet(opened(path)) as again:
            assert messages(again.queue("q")) == {**wanted, 3: b"4"}
        assert check(path).problems == []


def test_after_the_window_it_is_gone(store: Store) -> None:
    queue = store.queue("q")
    queue.append_many([b"1", b"2"])
    queue.purge(keep_ms=1000)
    queue.append(b"3")
    given_up(store)
    assert queue.stat()["reclaimed"] == 0
    store._clock(2_000_000)
    given_up(store)
    assert queue.stat()["reclaimed"] == 2
    with pytest.raises(InvalidError, match="no purge"):
        queue.unpurge()
    assert messages(queue) == {2: b"3"}
    store._clock(0)


def test_two_purges_are_taken_back_together_and_one_for_good_is_not(store: Store) -> None:
    queue = store.queue("q")
    queue.append(b"1")
    queue.purge()
    given_up(store)
    queue.append(b"2")
    queue.purge(keep_ms=HOUR_MS)
    queue.append(b"3")
    queue.purge(keep_ms=1000)
    queue.append(b"4")
    assert queue.unpurge() == (1, 2)
    assert messages(queue) == {1: b"2", 2: b"3", 3: b"4"}


def test_a_group_that_took_meanwhile_is_set_back(store: Store) -> None:
    queue = store.queue("q")
    queue.append_many([b"1", b"2"])
    queue.purge(keep_ms=HOUR_MS)
    queue.append(b"3")
    group = queue.group("g")
    assert deliveries(group) == {2: b"3"}
    first, count = queue.unpurge()
    assert (first, count) == (0, 2)
    group.seek(offset=first)
    assert deliveries(group) == {0: b"1", 1: b"2", 2: b"3"}


def test_bad_words_are_refused_by_name(store: Store) -> None:
    queue = store.queue("q")
    with pytest.raises(InvalidError, match="no purge"):
        queue.unpurge()
    with pytest.raises(InvalidError, match="keep_ms"):
        queue.purge(keep_ms=1 << 60)
    store.delete("q")
    with pytest.raises(QueueNotFoundError):
        queue.unpurge()
