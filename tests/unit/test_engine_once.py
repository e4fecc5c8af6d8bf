"""What waits, fan-outs and atomic batches are stored once, too: by ids and by numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_language import crashed, messages, opened, quiet

from penstock.engine import Attributes, Store
from penstock.engine._core import known_message
from penstock.engine.check import check

MINUTE = 60_000
SECOND = 1_000_000
NEVER = (1 << 64) - 1


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        quiet(store).queue("red").configure(dedup_ms=MINUTE)
        yield store
    assert check(tmp_path / "store").problems == []


def later(
    store: Store, name: str, seconds: float = 3600, queue: str = "red"
) -> tuple[int | None, bool]:
    due = store_now(store) + int(seconds * SECOND)
    receipt = store.queue(queue).append(name.encode(), attributes=Attributes(id=name), due_us=due)
    return receipt.pending, receipt.duplicate


def send(store: Store, name: str, queue: str = "red") -> tuple[int, bool, bool]:
    receipt = store.queue(queue).append(name.encode(), attributes=Attributes(id=name))
    return receipt.pending or receipt.offset, receipt.duplicate, receipt.pending is not None


def store_now(store: Store) -> int:
    from penstock.engine._core import Inspector

    return Inspector(store).now_us()




def came(store: Store, ahead_us: int) -> list[bytes]:
    """The bodies of the queue when so much time has passed."""
    store._clock(ahead_us)
    while store.pending._keep():
        pass
    return list(messages(store.queue("red")).values())


def test_a_delayed_message_is_known_while_it_waits(store: Store) -> None:
    id, twice = later(store, "a")
    assert id is not None and not twice
    assert later(store, "a") == (id, True)
    assert send(store, "a") == (id, True, True)
    assert known_message(store.queue("red"), "a").pending == id
    # Longer than the window: it has not come yet.
    store._clock(2 * MINUTE * 1000)
    assert later(store, "a") == (id, True)
    assert store.queue("red").stat()["pending"] == 1
    assert not store.queue("red").append(b"other", due_us=1 << 52).duplicate


def test_when_it_came_it_is_known_by_its_offset_for_a_window_more(store: Store) -> None:
    id, _ = later(store, "a", 50)
    assert came(store, 51 * SECOND) == [b"a"]
    assert send(store, "a") == (0, True, False)
    assert later(store, "a") == (None, True)
    assert known_message(store.queue("red"), "a").offset == 0
    store._clock((51 + 59) * SECOND)
    assert send(store, "a") == (0, True, False)
    store._clock((51 + 61) * SECOND)
    assert send(store, "a") == (1, False, False)
    assert known_message(store.queue("red"), "b") is None


def test_what_is_cancelled_is_not_known(store: Store) -> None:
    id, _ = later(store, "a")
    store.pending.cancel(id)
    again, twice = later(store, "a")
    assert not twice and again != id
    store.pending.move(again, store_now(store) + 5000 * SECOND)
    assert later(store, "a") == (again, True)


def test_a_half_is_known_until_it_is_rolled_back(store: Store) -> None:
    def half() -> tuple[int | None, bool]:
        receipt = store.queue("red").prepare(b"h", attributes=Attributes(id="h"))
        return receipt.pending, receipt.duplicate

    id, twice = half()
    assert not twice and half() == (id, True)
    store.pending.rollback(id)
    id, twice = half()
    assert not twice
    assert store.pending.commit(id).offset == 0
    assert half() == (None, True) and send(store, "h") == (0, True, False)


def test_of_a_delayed_batch_those_are_left_out_that_are_known(store: Store) -> None:
    def batch(names: str) -> tuple[int | None, bool]:
        receipt = store.queue("red").append_many(
            [one.encode() for one in names], attributes=[Attributes(id=one) for one in names],
            due_us=store_now(store) + 3600 * SECOND)
        return receipt.pending, receipt.duplicate

    b, _ = later(store, "b")
    first, twice = batch("abc")
    assert twice and first not in (None, b)
    assert store.queue("red").stat()["pending"] == 3
    assert batch("abc") == (first, True) and batch("bca") == (b, True)
    assert store.queue("red").stat()["pending"] == 3
    assert sorted(came(store, 3700 * SECOND)) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_crash_forgets_nothing_of_it(checkpointed: bool, store: Store, tmp_path: Path) -> None:
    ids = {name: later(store, name)[0] for name in "abc"}
    half = store.queue("red").prepare(b"h", attributes=Attributes(id="h")).pending
    store.queue("red").append(b"x", attributes=Attributes(id="x"))
    if checkpointed:
        store.checkpoint()
    store.pending.cancel(ids["c"])
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert again.queue("red").stat()["pending"] == 3
        assert later(again, "a") == (ids["a"], True) and later(again, "b") == (ids["b"], True)
        assert later(again, "c")[1] is False
        assert send(again, "h") == (half, True, True)
        assert send(again, "x") == (0, True, False)
        assert again.queue("red").stat()["pending"] == 4
    assert check(tmp_path / "copy").problems == []


def fan(store: Store, name: str, home: str | None = None) -> tuple[set[str], bool]:
    queues = {queue.id: queue.name for queue in map(store.queue, ("blue", "red", "green"))}
    receipt = store.fanout(
        [store.queue(one) for one in queues.values()], name.encode(),
        attributes=Attributes(id=name), home=None if home is None else store.queue(home))
    found = {queues[row["queue"]] for row in receipt.recipients()}
    assert receipt.count == (0 if receipt.duplicate else len(found))
    return found, receipt.duplicate


def test_a_fan_out_leaves_out_who_knows_the_message(store: Store) -> None:
    assert fan(store, "a") == ({"red", "blue", "green"}, False)
    assert fan(store, "a") == ({"blue", "green"}, False)
    assert messages(store.queue("red")) == {0: b"a"}
    assert len(messages(store.queue("blue"))) == 2
    assert send(store, "a") == (0, True, False)


def test_the_queue_that_decides_knows_for_all(store: Store, tmp_path: Path) -> None:
    first = fan(store, "a", "red")
    assert first == ({"red", "blue", "green"}, False)
    assert fan(store, "a", "red") == ({"red", "blue", "green"}, True)
    assert len(messages(store.queue("blue"))) == 1
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert fan(again, "a", "red")[1] is True
        assert fan(again, "b", "red")[1] is False
    # One that waits, and one that is purged meanwhile.
    later(store, "w")
    assert fan(store, "w", "red") == (set(), True)
    store.queue("red").purge()
    assert fan(store, "a", "red") == (set(), True)


def test_when_all_know_it_nothing_is_stored(store: Store) -> None:
    for name in ("blue", "green"):
        store.queue(name).configure(dedup_ms=MINUTE)
    fan(store, "a")
    assert fan(store, "a") == ({"red", "blue", "green"}, True)
    written = store.stat()["written"]
    assert fan(store, "a")[1] is True
    assert store.queue("green").stat()["next"] == 1 and store.stat()["written"] > written


def atomic(store: Store, names: str, *, sequence: int = 0, ids: bool = False,
           due_us: int = 0) -> list[tuple[int, bool]]:
    """One message in each of red, blue, …; (offset or id, duplicate) of each."""
    with store.batch(producer=7, sequence=sequence) as batch:
        for at, name in enumerate(names):
            attributes = Attributes(id=name) if ids else None
            batch.append(store.queue(("red", "blue")[at % 2]), name.encode(),
                         attributes=attributes, due_us=due_us)
    return [(one.pending or one.offset, one.duplicate) for one in batch.receipts]


def test_an_atomic_batch_with_a_number_is_stored_once(store: Store, tmp_path: Path) -> None:
    store.queue("blue").append(b"before")
    first = atomic(store, "abc", sequence=5)
    assert first == [(0, False), (1, False), (1, False)]
    told = [(offset, True) for offset, _ in first]
    assert atomic(store, "abc", sequence=5) == told
    assert messages(store.queue("red")) == {0: b"a", 1: b"c"}
    assert atomic(store, "abc", sequence=6)[0] == (2, False)
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert atomic(again, "abc", sequence=5) == told
    store.queue("red").purge()
    assert atomic(store, "abc", sequence=5) == [(0, True), (NEVER, True), (NEVER, True)]


def test_so_is_one_whose_messages_wait(store: Store) -> None:
    first = atomic(store, "ab", sequence=1, due_us=1 << 52)
    assert not any(twice for _, twice in first)
    assert atomic(store, "ab", sequence=1, due_us=1 << 52) == [(id, True) for id, _ in first]
    assert store.queue("blue").stat()["pending"] == 1


def test_of_an_atomic_batch_each_message_is_known_by_its_id(store: Store, tmp_path: Path) -> None:
    store.queue("blue").configure(dedup_ms=MINUTE)
    send(store, "a")
    # Its first message is known; were its number not, a repetition would store what has no id.
    with store.batch(producer=7, sequence=1) as batch:
        batch.append(store.queue("red"), b"a", attributes=Attributes(id="a"))
        batch.append(store.queue("red"), b"plain")
    assert [one.duplicate for one in batch.receipts] == [True, False]
    assert atomic(store, "ab", ids=True) == [(0, True), (0, False)]
    assert atomic(store, "ab", ids=True) == [(0, True), (0, True)]
    for one in (store, None):
        with opened(crashed(store, tmp_path / "copy")) if one is None else opened(store.path) as it:
            with it.batch(producer=7, sequence=1) as batch:
                batch.append(it.queue("red"), b"a", attributes=Attributes(id="a"))
                batch.append(it.queue("red"), b"plain")
            assert [one.duplicate for one in batch.receipts] == [True, True]
            assert batch.receipts[0].offset == 0
            assert messages(it.queue("red")) == {0: b"a", 1: b"plain"}


def test_two_copies_in_one_batch_are_one_message(store: Store) -> None:
    store.queue("blue").configure(dedup_ms=MINUTE)
    assert atomic(store, "aaaa", ids=True) == [(0, False), (0, False), (0, True), (0, True)]


def test_a_batch_whose_first_is_known_keeps_its_number_over_a_crash(
    store: Store, tmp_path: Path
) -> None:
    send(store, "a")

    def batch(at: Store) -> bool:
        return at.queue("red").append_many(
            [b"a", b"plain"], attributes=[Attributes(id="a"), None], producer=9, sequence=4
        ).duplicate

    assert batch(store) is True
    with opened(crashed(store, tmp_path / "copy")) as again:
        assert batch(again) is True
        assert messages(again.queue("red")) == {0: b"a", 1: b"plain"}
