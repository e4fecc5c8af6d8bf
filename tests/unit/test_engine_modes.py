"""Consuming by offset, groups that go, and a confirmation that is asked twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_language import DONE, FORGED, LONG, STALE, crashed, deliveries, opened, quiet, split

from penstock.engine import Attributes, InvalidError, QueueNotFoundError, Store
from penstock.engine.check import check


@pytest.fixture
def store(tmp_path: Path) -> object:
    with opened(tmp_path / "store") as store:
        quiet(store).queue("red").append_many([b"%d" % at for at in range(1000)])
        yield store


def test_all_before_an_offset_is_done_and_the_offset_never_goes_back(store: Store) -> None:
    group = store.queue("red").group("g")
    assert group.advance(10) == 10
    assert group.advance(5) == 10
    assert group.stat()["floor"] == group.stat()["cursor"] == 10
    assert group.receive(2, lease_ms=LONG).offsets.tolist() == [10, 11]
    assert group.advance(1000) == 1000
    assert deliveries(group) == {}
    with pytest.raises(InvalidError, match="beyond the end"):
        group.advance(1001)
    group.seek(offset=3)
    assert group.advance(4) == 4


@pytest.mark.parametrize("before", [1, 255, 256, 300, 512, 700])
def test_what_is_leased_or_confirmed_behind_it_stays_so(before: int, store: Store) -> None:
    group = store.queue("red").group()
    batch = group.receive(800, lease_ms=LONG)
    receipts = split(batch.receipts)
    group.confirm(b"".join(receipts[720:740]))
    group.release(receipts[750], delay_ms=0)
    assert group.advance(before) == before
    assert group.confirm(receipts[before - 1])[0] == STALE
    assert group.confirm(receipts[before])[0] == DONE
    assert group.stat()["in_flight"] == 800 - before - 22
    assert group.receive(2).offsets.tolist() == [750, 800]
    group.confirm(b"".join(receipts[before + 1 : 720] + receipts[740:750] + receipts[751:]))
    assert group.stat()["floor"] == 750


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_offset_survives_a_crash(checkpointed: bool, store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    receipts = split(group.receive(600, lease_ms=LONG).receipts)
    group.confirm(receipts[400])
    if checkpointed:
        store.checkpoint()
    group.advance(300)
    group.confirm(receipts[500])
    copy = crashed(store, tmp_path / "copy")
    with opened(copy) as again:
        left = deliveries(again.queue("red").group())
        assert sorted(left) == [at for at in range(300, 1000) if at not in (400, 500)]
    assert check(copy).problems == []


def test_what_is_confirmed_behind_a_filter_that_was_not_yet_asked_stays_so(
    store: Store, tmp_path: Path
) -> None:
    queue = store.queue("tags")
    for _ in range(4):
        queue.append(b"", attributes=Attributes(tag="a"))
    group = queue.group("g")
    group.filter("tag", "a")
    group.confirm(group.receive(4, lease_ms=LONG).receipts[24:])
    with opened(crashed(store, tmp_path / "copy")) as again:
        group = again.queue("tags").group("g")
        assert group.advance(2) == 2
        assert deliveries(group) == {}


def test_a_group_in_order_goes_on_behind_the_offset(store: Store) -> None:
    queue = store.queue("keys")
    for at in range(20):
        queue.append(b"%d" % at, attributes=Attributes(key="ab"[at % 2]))
    group = queue.group()
    group.configure(order="key")
    assert group.receive(9, lease_ms=LONG).offsets.tolist() == [0, 1]
    group.advance(5)
    assert sorted(group.receive(9, lease_ms=LONG).offsets.tolist()) == [5, 6]


def test_a_group_that_is_deleted_is_gone_after_a_crash_as_well(
    store: Store, tmp_path: Path
) -> None:
    queue = store.queue("red")
    group = queue.group("g")
    batch = group.receive(5, lease_ms=LONG)
    queue.delete_group("g")
    assert "g" not in queue.groups()
    assert group.confirm(batch.receipts) == bytes([FORGED]) * 5
    with pytest.raises(QueueNotFoundError):
        group.receive(1)
    with pytest.raises(QueueNotFoundError):
        queue.delete_group("g")
    with pytest.raises(InvalidError, match="own"):
        queue.delete_group("")
    copy = crashed(store, tmp_path / "copy")
    with opened(copy) as again:
        assert list(again.queue("red").groups()) == [""]
        assert again.queue("red").group("g").receive(1).offsets.tolist() == [0]
    assert check(copy).problems == []
    assert queue.group("g").receive(1).offsets.tolist() == [0]


def test_a_confirmation_asked_twice_is_done_twice(store: Store, tmp_path: Path) -> None:
    group = store.queue("red").group()
    receipts = split(group.receive(300, lease_ms=LONG).receipts)
    group.confirm(receipts[5])
    assert group.confirm(receipts[5])[0] == STALE
    assert group.confirm(receipts[5], again=True)[0] == DONE
    assert group.confirm(b"".join(receipts[4:8]), again=True) == bytes(4)
    # Not what another has by now, nor what was rewound, nor what nobody gave out.
    group.extend(receipts[20], lease_ms=0)
    second = group.receive(1, lease_ms=LONG).receipts
    assert group.confirm(receipts[20], again=True)[0] == STALE
    group.confirm(second)
    assert group.confirm(receipts[20], again=True)[0] == STALE
    assert group.confirm(second, again=True)[0] == DONE
    assert group.confirm(bytes(24), again=True)[0] == FORGED
    # What is folded away is confirmed, by whomever.
    group.confirm(b"".join(receipts[:256]), again=True)
    assert group.confirm(receipts[0], again=True)[0] == DONE
    group.seek(offset=0)
    assert group.confirm(receipts[5], again=True)[0] == STALE


def test_what_was_confirmed_before_stays_so_when_the_repetition_finds_no_room(
    store: Store,
) -> None:
    group = store.queue("red").group()
    receipts = split(group.receive(300, lease_ms=LONG).receipts)
    group.confirm(receipts[5])
    store._fault(3, 28)
    with pytest.raises(OSError, match="no room"):
        for _ in range(1000):
            store.queue("other").append(bytes(100_000))
    with pytest.raises(OSError, match="no room"):
        for _ in range(100_000):
            group.confirm(receipts[5], again=True)
    left = deliveries(group)
    assert 5 not in left
