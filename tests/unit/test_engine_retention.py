"""How long messages are kept: by age, by size, by what the groups have confirmed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from engine_language import LONG, crashed, deliveries, messages, opened, quiet

from penstock.engine import Consumer, InvalidError, Store
from penstock.engine._core import Reclaimer
from penstock.engine.check import check

HOUR_US = 3_600_000_000


def now() -> int:
    return time.time_ns() // 1000


def confirm(group: Consumer, count: int) -> None:
    while count:
        batch = group.receive(count, lease_ms=LONG)
        assert set(group.confirm(batch.receipts)) == {0}
        count -= len(batch)


def retained(store: Store, ahead_us: int = 0) -> int:
    """Look at the settings as they ask for at a later time; how many messages were purged."""
    return Reclaimer(store).retain(now() + ahead_us + 1_000_000)


def test_a_queue_keeps_everything_unless_told(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        queue.append_many([b"x"] * 5000)
        confirm(queue.group(), 5000)
        assert queue.settings() == {
            "retain_ms": 0, "retain_bytes": 0, "keep": "all", "rewind_ms": 0,
            "dedup_ms": 0, "dedup_count": 0}
        assert retained(store, 1000 * HOUR_US) == 0


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue, other = store.queue("q"), store.queue("other")
        queue.append_many([b"x"] * 10)
        other.append(b"stays")
        queue.configure(retain_ms=3_600_000)
        assert retained(store, HOUR_US - 60_000_000) == 0
        assert retained(store, HOUR_US + 60_000_000) == 10
        assert messages(queue) == {} and queue.stat()["first"] == 10
        assert len(messages(other)) == 1
        queue.configure(retain_ms=0)
        queue.append(b"y")
        assert retained(store, 9 * HOUR_US) == 0


def test_what_is_too_much_goes_oldest_first(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        queue.configure(retain_bytes=100 * 1048)
        for turn in range(10):
            queue.append_many([bytes(1000)] * 50)
            retained(store, turn * 2_000_000)
            Reclaimer(store).give_up()
        assert sorted(messages(queue)) == list(range(400, 500))
        Reclaimer(store).give_up()
        assert queue.stat()["bytes"] == 100 * 1048


@pytest.mark.parametrize("keep", ["unconfirmed", "subscribed"])
def test_what_every_group_has_confirmed_goes(keep: str, tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        one, two, own = queue.group("one"), queue.group("two"), queue.group()
        queue.append_many([b"x"] * 100)
        queue.configure(keep=keep, rewind_ms=60_000)
        confirm(one, 60)
        assert retained(store, HOUR_US) == 0
        confirm(two, 40)
        assert retained(store) == 0, "the window for a rewind is not over"
        expected = 40 if keep == "subscribed" else 0
        assert retained(store, HOUR_US) == expected
        confirm(own, 100 - expected)
        assert retained(store, 2 * HOUR_US) == 40 - expected
        assert len(deliveries(two)) == 60 and len(deliveries(one)) == 40


def test_settings_outlive_a_crash_and_a_close(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "s"))
    queue = store.queue("q")
    queue.configure(retain_ms=1000, keep="unconfirmed")
    store.checkpoint()
    queue.configure(retain_bytes=1 << 30)
    wanted = {
        "retain_ms": 1000, "retain_bytes": 1 << 30, "keep": "unconfirmed", "rewind_ms": 0,
        "dedup_ms": 0, "dedup_count": 0,
    }  # fmt: skip
    copy = crashed(store, tmp_path / "copy")
    store.close()
    for path in (tmp_path / "s", copy):
        with opened(path) as again:
            assert again.queue("q").settings() == wanted
        assert check(path).problems == []


def test_a_setting_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        for bad in ({"keep": "some"}, {"retain_ms": -1}, {"retain_bytes": 1 << 60}):
            with pytest.raises(InvalidError):
                store.queue("q").configure(**bad)


def test_a_purge_frees_what_groups_had_in_flight(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("q")
        group = queue.group()
        for _ in range(20):
            queue.append_many([b"x"] * 2000)
            held = group.receive(2000, lease_ms=LONG)
            group.confirm(held.receipts[: 24 * 100])
            queue.purge()
            assert len(group.receive(1)) == 0
            assert group.stat()["in_flight"] == 1900, "a lease lasts beyond a purge"
            group.release(held.receipts[24 * 100 :])
            assert len(group.receive(1)) == 0
            assert len(group.receive(1)) == 0
            stat = group.stat()
            assert stat["floor"] == stat["cursor"] == queue.stat()["next"]
            assert stat["in_flight"] == stat["ready"] == 0
        assert store.stat()["state_pages"] < 40


def test_many_times_the_budget_passes_through_a_bounded_directory(
    tmp_path: Path, soak: bool
) -> None:
    budget, times = 16 << 20, 50 if soak else 6
    with opened(tmp_path / "s", durability="kernel") as store:
        queue = store.queue("q")
        queue.configure(retain_bytes=4 << 20)
        sent = largest = 0
        while sent < times * budget:
            queue.append_many([bytes(8000)] * 50)
            sent += 400_000
            if sent % 8_000_000 == 0:
                # Back-pressure: the maintenance thread must get its turn on a busy machine.
                deadline = time.monotonic() + 30
                while store.stat()["segments"] > 14 and time.monotonic() < deadline:
                    time.sleep(0.01)
                largest = max(largest, size_of(tmp_path / "s" / "log"))
        assert largest <= budget + (4 << 20)
        assert store.stat()["segments_recycled"] > 10 * times // 2
        assert store.stat()["index_pages"] < 2000
        assert store.stat()["corrupt"] == 0
    assert check(tmp_path / "s").problems == []


def size_of(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())
