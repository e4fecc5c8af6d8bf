"""Delayed messages and halves: nothing early, nothing lost, the first verdict wins."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import crashed, messages, opened, quiet
from penstock.engine import (
    Attributes,
    InvalidError,
    PendingDecidedError,
    PendingNotFoundError,
    Queue,
    Store,
)
from penstock.engine._core import pending_rules
from penstock.engine.check import check

SECOND = 1_000_000
HOUR = 3600 * SECOND
YEAR = 365 * 24 * HOUR


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quiet(opened(tmp_path / "store")) as store:
        yield store


def now_us() -> int:
    return time.time_ns() // 1000


def late(store: Store, ahead_us: int) -> int:
    """Let so much time pass; how many messages fell due."""
    store._clock(ahead_us)
    placed = 0
    while some := store.pending._keep():
        placed += some
    return placed


def bodies(queue: Queue) -> list[bytes]:
    return list(messages(queue).values())


def again(store: Store, to: Path, *, clean: bool) -> Store:
    """The store after a clean restart, or after a kill of all its users."""
    path = Path(store.path) if clean else crashed(store, to)
    if clean:
        store.close()
    return quiet(opened(path))


def test_a_delayed_message_comes_at_its_time_and_not_before(store: Store) -> None:
    queue = store.queue("red")
    receipt = queue.append(b"later", attributes=Attributes(tag="t"), due_us=now_us() + HOUR)
    assert receipt.pending and len(store.pending) == 1
    assert late(store, HOUR - SECOND) == 0 and bodies(queue) == []
    assert late(store, HOUR + SECOND) == 1 and len(store.pending) == 0
    batch = queue.group().receive(10)
    assert batch.tolist() == [b"later"] and batch.attributes(0).tag == "t"
    # It counts as stored when it became visible.
    assert batch.timestamps[0] >= now_us() + HOUR - SECOND
    assert late(store, 2 * HOUR) == 0 and bodies(queue) == [b"later"]


def test_a_time_that_is_over_is_no_delay(store: Store) -> None:
    receipt = store.queue("red").append(b"now", due_us=now_us() - 1)
    assert receipt.pending is None and receipt.offset == 0


def test_what_is_due_comes_in_the_order_of_its_times(store: Store) -> None:
    queue, start = store.queue("red"), now_us() + HOUR
    for at in (5, 3, 9, 3, 1):
        queue.append(b"%d" % at, due_us=start + at * SECOND)
    assert late(store, 2 * HOUR) == 5
    assert bodies(queue) == [b"1", b"3", b"3", b"5", b"9"]


@pytest.mark.parametrize("delay", [300_000, 5 * SECOND, 70 * SECOND, HOUR, YEAR // 4, 10 * YEAR])
def test_any_span_up_to_years(store: Store, delay: int) -> None:
    queue = store.queue("red")
    due = now_us() + delay
    queue.append(b"x", due_us=due)
    store.pending._keep()
    assert late(store, due - now_us() - 1000) == 0
    assert late(store, due - now_us() + 1200) == 1


def test_a_time_beyond_the_horizon_is_refused(store: Store) -> None:
    with pytest.raises(InvalidError):
        store.queue("red").append(b"x", due_us=1 << 57)


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("saved", [True, False])
def test_what_is_pending_survives(store: Store, tmp_path: Path, clean: bool, saved: bool) -> None:
    queue = store.queue("red")
    due = now_us() + HOUR
    ids = [queue.append(b"%d" % at, due_us=due).pending for at in range(300)]
    half = queue.prepare(b"half").pending
    if saved:
        store.checkpoint()
    assert store.pending.cancel(ids[0]) and store.pending.move(ids[1], due + HOUR) is None
    other = again(store, tmp_path / "other", clean=clean)
    assert [one.id for one in other.pending.list(limit=2, state="delayed")] == ids[2:4]
    assert len(other.pending) == 300
    assert late(other, HOUR + SECOND) == 298
    assert not other.pending.cancel(ids[0])
    assert other.pending.commit(half).offset == 298
    assert late(other, 2 * HOUR + SECOND) == 1
    assert bodies(other.queue("red"))[-2:] == [b"half", b"1"]
    other.close()
    assert check(other.path).problems == []


def test_placing_is_not_repeated_after_a_crash(store: Store, tmp_path: Path) -> None:
    queue = store.queue("red")
    for at in range(10):
        queue.append(b"%d" % at, due_us=now_us() + (HOUR if at % 2 else 3 * HOUR))
    assert late(store, 2 * HOUR) == 5
    with again(store, tmp_path / "other", clean=False) as other:
        assert late(other, 2 * HOUR) == 0 and late(other, 4 * HOUR) == 5
        assert sorted(bodies(other.queue("red"))) == [b"%d" % at for at in range(10)]


def test_verdicts_that_a_checkpoint_does_not_know_are_taken_from_the_log(
    store: Store, tmp_path: Path
) -> None:
    queue = store.queue("red")
    ids = [queue.append(b"%d" % at, due_us=now_us() + HOUR).pending for at in range(3)]
    store.checkpoint()
    store.pending.cancel(ids[0])
    path = crashed(store, tmp_path / "other")
    # As if the power had failed before the cancellation was on disk, though its page was.
    [segment] = [s for s in sorted((path / "log").iterdir()) if any(s.read_bytes()[:8])]
    raw = bytearray(segment.read_bytes())
    at = store.stat()["written"] & 0xFFFFFFFF
    raw[at - 120:at] = bytes(120)
    segment.write_bytes(raw)
    with quiet(opened(path)) as other:
        assert len(other.pending) == 3 and late(other, 2 * HOUR) == 3


def test_a_cancelled_message_never_comes(store: Store) -> None:
    queue = store.queue("red")
    id = queue.append(b"x", due_us=now_us() + HOUR).pending
    assert store.pending.cancel(id) and not store.pending.cancel(id)
    with pytest.raises(PendingDecidedError):
        store.pending.move(id, now_us() + 2 * HOUR)
    assert late(store, 2 * HOUR) == 0 and bodies(queue) == []


def test_what_came_is_not_cancelled_any_more(store: Store) -> None:
    id = store.queue("red").append(b"x", due_us=now_us() + HOUR).pending
    late(store, 2 * HOUR)
    for refused in (store.pending.cancel, lambda id: store.pending.move(id, now_us() + 9 * HOUR)):
        with pytest.raises(PendingDecidedError):
            refused(id)


def test_a_message_moves_again_and_again_under_one_id(store: Store) -> None:
    queue = store.queue("red")
    due = now_us() + 10 * HOUR
    id = queue.append(b"x", due_us=due).pending
    for hours in (20, 5, 30, 3):
        store.pending.move(id, now_us() + hours * HOUR)
        assert store.pending.get(id).id == id
    assert len(store.pending) == 1
    assert late(store, 2 * HOUR) == 0 and late(store, 4 * HOUR) == 1
    assert late(store, 40 * HOUR) == 0 and bodies(queue) == [b"x"]


def test_every_id_is_found_however_far_apart_the_records_are(store: Store) -> None:
    queue, due = store.queue("red"), now_us() + HOUR
    ids, sizes = [], [1, 200_000, 1, 1, 30_000]
    for at in range(60):
        # Over several segments, in bursts, with gaps that no guess foresees.
        body = bytes(sizes[at % 5])
        count = 1 if len(body) > 1 else 700 * (at % 3)
        if count:
            first = queue.append_many([body] * count, due_us=due, durability="kernel").pending
            step = (48 + len(body) + 7) // 8 * 8
            ids += [first + number * step for number in range(count)]
        queue.append(bytes(sizes[-1 - at % 5]), durability="kernel")
    store._flush()
    assert len(ids) == len(store.pending) > 20_000 and ids[-1] >> 32 > 2
    for id in [*ids[::97], *ids[:3], *ids[-3:]]:
        assert store.pending.get(id).id == id
        assert store.pending.get(id + 8) is None or id + 8 in ids
    # Each search begins where the last one ended: near by, far away, on either side.
    for id in random.Random(7).sample(ids, 500) + ids[-500:][::-1]:
        assert store.pending.get(id).id == id
    assert store.pending.get(ids[0] - 8) is None and store.pending.get(ids[-1] + (1 << 40)) is None


def test_an_unknown_id_is_named(store: Store) -> None:
    with pytest.raises(PendingNotFoundError):
        store.pending.cancel(4711)
    store.queue("red").append(b"x", due_us=now_us() + HOUR)
    with pytest.raises(PendingNotFoundError):
        store.pending.commit(1 << 32 | 4096)


def test_a_half_is_seen_only_when_it_is_committed(store: Store) -> None:
    queue = store.queue("red")
    id = queue.prepare(b"x").pending
    assert late(store, 9 * HOUR) == 0 and bodies(queue) == []
    first, second = store.pending.commit(id), store.pending.commit(id)
    assert (first.offset, first.duplicate, second.duplicate) == (0, False, True)
    with pytest.raises(PendingDecidedError):
        store.pending.rollback(id)
    assert bodies(queue) == [b"x"]


def test_a_half_that_was_rolled_back_stays_so(store: Store) -> None:
    queue = store.queue("red")
    id = queue.prepare(b"x").pending
    assert store.pending.rollback(id) and not store.pending.rollback(id)
    with pytest.raises(PendingDecidedError):
        store.pending.commit(id)
    assert bodies(queue) == []


def test_each_kind_is_asked_only_what_fits_it(store: Store) -> None:
    queue = store.queue("red")
    half, delayed = queue.prepare(b"h").pending, queue.append(b"d", due_us=now_us() + HOUR).pending
    with pytest.raises(InvalidError):
        store.pending.cancel(half)
    with pytest.raises(InvalidError):
        store.pending.commit(delayed)


def test_a_half_with_a_time_waits_for_both(store: Store) -> None:
    queue = store.queue("red")
    id = queue.prepare(b"x", due_us=now_us() + HOUR).pending
    receipt = store.pending.commit(id)
    assert receipt.pending == id and store.pending.get(id).state == "committed"
    assert store.pending.commit(id).duplicate and bodies(queue) == []
    with pytest.raises(PendingDecidedError):
        store.pending.rollback(id)
    assert late(store, 2 * HOUR) == 1 and bodies(queue) == [b"x"]
    assert store.pending.commit(id).duplicate


def test_producers_are_asked_again_and_then_no_more(store: Store) -> None:
    queue = store.queue("red")
    id = queue.prepare(b"x", check_ms=6000).pending
    assert store.pending.checks() == []
    store._clock(7 * SECOND)
    for at in range(3):
        [half] = store.pending.checks(interval_ms=30_000, attempts=3)
        assert (half.id, half.checks) == (id, at)
        assert store.pending.read(half.id)[0] == b"x"
        assert store.pending.checks(attempts=3) == []
        store._clock((40 + 31 * at) * SECOND)
    assert store.pending.checks(attempts=3) == []
    with pytest.raises(PendingDecidedError):
        store.pending.commit(id)


def test_the_attempts_of_checks_survive(store: Store, tmp_path: Path) -> None:
    store.queue("red").prepare(b"x", check_ms=0)
    store._clock(SECOND)
    assert [half.checks for half in store.pending.checks()] == [0]
    with again(store, tmp_path / "other", clean=False) as other:
        other._clock(40 * SECOND)
        assert [half.checks for half in other.pending.checks()] == [1]


def test_listing_goes_by_time_and_in_pages(store: Store) -> None:
    red, blue = store.queue("red"), store.queue("blue")
    start = now_us() + HOUR
    for at in range(50):
        (red if at % 2 else blue).append(b"%d" % at, due_us=start + (at * 7 % 50) * SECOND)
    found, after = [], None
    while page := store.pending.list(limit=7, after=after):
        found += page
        after = page[-1]
    assert [one.due_us for one in found] == [start + at * SECOND for at in range(50)]
    reds = store.pending.list(red, low_us=start, high_us=start + 10 * SECOND)
    assert {one.queue for one in reds} == {"red"} and len(reds) == 5
    assert store.pending.next_due() == start


def test_a_repeated_send_has_the_same_id(store: Store, tmp_path: Path) -> None:
    queue, due = store.queue("red"), now_us() + HOUR
    first = queue.append(b"x", due_us=due, producer=7, sequence=1)
    second = queue.append(b"x", due_us=due, producer=7, sequence=1)
    assert second.duplicate and second.pending == first.pending and len(store.pending) == 1
    with again(store, tmp_path / "other", clean=False) as other:
        third = other.queue("red").append(b"x", due_us=due, producer=7, sequence=1)
        assert third.duplicate and third.pending == first.pending


def test_a_clock_that_steps_back_delays(store: Store) -> None:
    queue = store.queue("red")
    store.pending._keep()
    store._clock(5 * HOUR)
    queue.append(b"x", due_us=now_us() + 6 * HOUR)
    store.pending._keep()
    assert late(store, -HOUR) == 0 and late(store, 6 * HOUR - SECOND) == 0
    assert late(store, 6 * HOUR + SECOND) == 1 and bodies(queue) == [b"x"]


def test_what_was_about_to_come_waits_when_the_clock_steps_back_a_little(store: Store) -> None:
    queue, due = store.queue("red"), now_us() + HOUR
    queue.append_many([b"x"] * 5000, due_us=due)
    store._clock(due - now_us() + 300_000)
    # One commit's worth: the others are proposed in the next turn.
    assert 0 < store.pending._keep() < 5000
    seen = len(bodies(queue))
    store._clock(due - now_us() - 400_000)
    assert store.pending._keep() == 0 and len(bodies(queue)) == seen
    assert late(store, HOUR + SECOND) == 5000 - seen


def test_a_batch_waits_and_comes_as_one(store: Store) -> None:
    queue = store.queue("red")
    receipt = queue.append_many([b"%d" % at for at in range(5000)], due_us=now_us() + HOUR)
    assert receipt.count == 5000 and len(store.pending) == 5000
    assert late(store, 2 * HOUR) == 5000
    assert bodies(queue) == [b"%d" % at for at in range(5000)]


def test_an_atomic_batch_may_hold_delayed_ones(store: Store) -> None:
    red, blue = store.queue("red"), store.queue("blue")
    with store.batch() as batch:
        batch.append(red, b"now")
        batch.append(blue, b"later", due_us=now_us() + HOUR)
    assert bodies(red) == [b"now"] and batch.receipts[1].pending and bodies(blue) == []
    assert late(store, 2 * HOUR) == 1 and bodies(blue) == [b"later"]


def test_a_deleted_queue_drops_what_was_to_come(store: Store, tmp_path: Path) -> None:
    id = store.queue("red").append(b"x", due_us=now_us() + HOUR).pending
    store.delete("red")
    assert store.pending.list() == []
    assert late(store, 2 * HOUR) == 0 and len(store.pending) == 0
    store.queue("red")
    with again(store, tmp_path / "other", clean=False) as other:
        assert late(other, 3 * HOUR) == 0 and bodies(other.queue("red")) == []
        with pytest.raises(PendingNotFoundError):
            other.pending.commit(id + 8)


def test_the_timekeeper_fires_by_itself_and_wakes_receivers(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append(b"x", due_us=now_us() + 150_000)
        batch = queue.group().receive(1, wait_ms=5000)
        assert batch.tolist() == [b"x"]


def test_what_is_pending_does_not_count_as_appended_twice(store: Store) -> None:
    before = store.stat()["messages_appended"]
    store.queue("red").append(b"x", due_us=now_us() + HOUR)
    late(store, 2 * HOUR)
    assert store.stat()["messages_appended"] == before + 1


def test_the_rules_are_whole_and_the_first_verdict_wins() -> None:
    act, same, other, wrong = range(4)
    fire, cancel, move, commit, rollback, check_ = range(6)
    delayed, half, committed = 1, 2, 3
    rules = pending_rules()
    assert len(rules) == 3 * 3 * 6
    for (kind, verdict, event), answer in rules.items():
        fits = event in ((commit, rollback, check_) if kind == half else (fire, cancel, move))
        if kind == delayed or kind == half and verdict != 1:
            assert (answer == wrong) != fits
        if answer == act:
            assert verdict == 0 and fits
        if verdict == 0 and fits:
            assert answer == act
        if verdict:
            assert answer != act
    for kind in (delayed, half, committed):
        assert rules[kind, 1, cancel] == rules[kind, 1, move] == other
        assert rules[kind, 1, fire] == same
    for kind in (delayed, committed):
        assert rules[kind, 2, fire] == rules[kind, 2, move] == other
        assert rules[kind, 2, cancel] == same
    for verdict in (0, 1, 2):
        assert rules[committed, verdict, commit] == same
        assert rules[committed, verdict, rollback] == other
    assert rules[half, 1, rollback] == rules[half, 2, commit] == other
    assert rules[half, 1, commit] == rules[half, 2, rollback] == same
