"""What waits for its time, in the broker's words: nothing early, all of it listed, errors named."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_language import messages, opened, quiet

from penstock.engine import Attributes, Store
from penstock.engine.check import check
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.schedule import Schedule

HOUR_MS = 3_600_000
HOUR = HOUR_MS * 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quiet(opened(tmp_path / "s")) as store:
        yield store
    assert check(tmp_path / "s").problems == []


@pytest.fixture
def schedule(store: Store) -> Schedule:
    return Schedule(Broker(store, Limits()))


def late(store: Store, ahead_us: int) -> None:
    store._clock(ahead_us)
    while store.pending._keep():
        pass


def bodies(store: Store, queue: str) -> list[bytes]:
    return list(messages(store.queue(queue)).values())


def test_a_delay_counts_from_the_servers_clock(store: Store, schedule: Schedule) -> None:
    queue = store.queue("red")
    before = schedule.now_us()
    receipt = schedule.send(queue, b"x", Attributes(tag="t"), delay_ms=HOUR_MS)
    shown = schedule("pending.get", {"id": receipt.id})
    assert before + HOUR <= shown["due_us"] <= schedule.now_us() + HOUR
    assert (shown["state"], shown["queue"], shown["body"], shown["tag"]) == (
        "delayed", "red", "x", "t")
    late(store, HOUR - 1_000_000)
    assert bodies(store, "red") == []
    late(store, HOUR + 1_000_000)
    assert bodies(store, "red") == [b"x"]
    with pytest.raises(BrokerError) as refused:
        schedule("pending.get", {"id": receipt.id})
    assert refused.value.kind is Kind.NOT_FOUND


def test_no_delay_and_a_time_that_is_over_do_not_wait(store: Store, schedule: Schedule) -> None:
    queue = store.queue("red")
    for when in ({}, {"delay_ms": 0}, {"due_us": 0}, {"due_us": schedule.now_us() - 1}):
        assert schedule.send(queue, b"x", **when).pending is None
    many = schedule.send_many(queue, [b"y", b"z"], [None, Attributes(key="k")], delay_ms=HOUR_MS)
    assert many.pending and many.count == 2
    late(store, 2 * HOUR)
    assert bodies(store, "red") == [b"x"] * 4 + [b"y", b"z"]


def test_a_list_goes_by_time_and_on_with_a_cursor(store: Store, schedule: Schedule) -> None:
    red, blue = store.queue("red"), store.queue("blue")
    start = schedule.now_us() + HOUR
    for at in range(50):
        # Each time twice, so that pages end between messages of one time.
        schedule.send(red if at % 2 else blue, b"%d" % at, due_us=start + at * 7 % 50 // 2)
    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = schedule("pending.list", {"limit": "7", "cursor": cursor})
        found += page["messages"]
        cursor = page["next"]
        if len(found) == 14:
            # What moves away or goes between two pages does not disturb the others.
            schedule("pending.move", {"id": found[13]["id"], "delay_ms": 9 * HOUR_MS})
            schedule("pending.cancel", {"id": found[0]["id"]})
    moved = found.pop()
    assert moved["id"] == found[13]["id"]
    assert [one["due_us"] - start for one in found] == [at // 2 for at in range(50)]
    assert len({one["id"] for one in found}) == 50
    reds = schedule("pending.list", {"queue": "red", "since_us": start, "until_us": start + 5})
    assert {one["queue"] for one in reds["messages"]} == {"red"} and reds["next"] is None
    assert all(start <= one["due_us"] < start + 5 for one in reds["messages"])


def test_states_are_listed_apart(store: Store, schedule: Schedule) -> None:
    queue = store.queue("red")
    delayed = schedule.send(queue, b"d", delay_ms=HOUR_MS).id
    half = queue.prepare(b"h").id
    committed = queue.prepare(b"c", due_us=schedule.now_us() + HOUR)
    store.pending.commit(committed.pending)
    for state, id in (("delayed", delayed), ("half", half), ("committed", committed.id)):
        [one] = schedule("pending.list", {"state": state})["messages"]
        assert (one["id"], one["state"]) == (id, state)
    assert len(schedule("pending.list", {})["messages"]) == 3


def test_what_is_cancelled_never_comes_and_what_is_moved_comes_then(
    store: Store, schedule: Schedule
) -> None:
    queue = store.queue("red")
    gone, moved = (schedule.send(queue, body, delay_ms=HOUR_MS).id for body in (b"gone", b"moved"))
    assert schedule("pending.cancel", {"id": gone}) == {"id": gone, "cancelled": True}
    assert schedule("pending.cancel", {"id": gone})["cancelled"] is False
    due = schedule("pending.move", {"id": moved, "delay_ms": 3 * HOUR_MS})["due_us"]
    assert schedule("pending.get", {"id": moved})["due_us"] == due
    late(store, 2 * HOUR)
    assert bodies(store, "red") == []
    late(store, 4 * HOUR)
    assert bodies(store, "red") == [b"moved"]


def test_retention_begins_when_a_message_comes(store: Store, schedule: Schedule) -> None:
    queue = store.queue("red")
    queue.configure(retain_ms=HOUR_MS)
    schedule.send(queue, b"x", delay_ms=5 * HOUR_MS)
    late(store, 5 * HOUR + 1_000_000)
    from penstock.engine._core import Reclaimer

    reclaimer = Reclaimer(store)
    for age, left in ((HOUR // 2, [b"x"]), (2 * HOUR, [])):
        store._clock(5 * HOUR + age)
        reclaimer.retain(schedule.now_us())
        assert bodies(store, "red") == left


def test_order_by_key_is_that_of_coming(store: Store, schedule: Schedule) -> None:
    queue = store.queue("red")
    group = queue.group("g")
    group.configure(order="key")
    key = Attributes(key="k")
    schedule.send(queue, b"later", key, delay_ms=HOUR_MS)
    schedule.send(queue, b"first", key)
    late(store, 2 * HOUR)
    got = []
    while len(batch := group.receive(10)):
        got.append(batch.tolist())
        group.confirm(batch.receipts)
    assert got == [[b"first"], [b"later"]]


BAD: list[tuple[str, dict[str, Any], Kind]] = [
    ("pending.list", {"queue": "none"}, Kind.NOT_FOUND),
    ("pending.list", {"queue": "a b"}, Kind.INVALID),
    ("pending.list", {"state": "dead"}, Kind.INVALID),
    ("pending.list", {"limit": 0}, Kind.INVALID),
    ("pending.list", {"limit": 1001}, Kind.INVALID),
    ("pending.list", {"since_us": -1}, Kind.INVALID),
    ("pending.list", {"until_us": 1 << 64}, Kind.INVALID),
    ("pending.list", {"cursor": "later"}, Kind.INVALID),
    ("pending.list", {"cursor": "1.-"}, Kind.INVALID),
    ("pending.list", {"cursor": "-1.-1"}, Kind.INVALID),
    ("pending.list", {"cursor": f"{1 << 70:x}.1"}, Kind.INVALID),
    ("pending.list", {"colour": "red"}, Kind.INVALID),
    ("pending.get", {}, Kind.INVALID),
    ("pending.get", {"id": 7}, Kind.INVALID),
    ("pending.get", {"id": "00000001-0000000000000001"}, Kind.INVALID),
    ("pending.get", {"id": "00000001-p000000000000001"}, Kind.NOT_FOUND),
    ("pending.cancel", {"id": "00000001-p000000000000001"}, Kind.NOT_FOUND),
    ("pending.cancel", {"id": "HALF"}, Kind.INVALID),
    ("pending.cancel", {"id": "CAME"}, Kind.EXISTS),
    ("pending.move", {"id": "WAITS"}, Kind.INVALID),
    ("pending.move", {"id": "WAITS", "delay_ms": 1, "due_us": 1}, Kind.INVALID),
    ("pending.move", {"id": "WAITS", "delay_ms": -1}, Kind.INVALID),
    ("pending.move", {"id": "WAITS", "delay_ms": 11 * 366 * 24 * HOUR_MS}, Kind.INVALID),
    ("pending.move", {"id": "HALF", "delay_ms": 1}, Kind.INVALID),
    ("pending.move", {"id": "CAME", "delay_ms": 1}, Kind.EXISTS),
]


@pytest.mark.parametrize(("do", "fields", "kind"), BAD)
def test_bad_asks_are_named_and_change_nothing(
    store: Store, schedule: Schedule, do: str, fields: dict[str, Any], kind: Kind
) -> None:
    queue = store.queue("red")
    came = schedule.send(queue, b"came", delay_ms=60_000).id
    late(store, 61_000_000)
    known = {"HALF": queue.prepare(b"h").id, "CAME": came,
             "WAITS": schedule.send(queue, b"w", delay_ms=HOUR_MS).id}
    before = schedule("pending.list", {})
    with pytest.raises(BrokerError) as refused:
        schedule(do, {name: known.get(value, value) if isinstance(value, str) else value
                      for name, value in fields.items()})
    assert refused.value.kind is kind
    assert schedule("pending.list", {}) == before


@pytest.mark.parametrize("when", [
    {"delay_ms": -1}, {"delay_ms": 1, "due_us": 1}, {"delay_ms": 4000 * 24 * HOUR_MS},
    {"due_us": time.time_ns() // 1000 + 4000 * 24 * HOUR}, {"due_us": -1},
])
def test_a_time_that_cannot_be_is_refused(
    store: Store, schedule: Schedule, when: dict[str, int]
) -> None:
    with pytest.raises(BrokerError) as refused:
        schedule.send(store.queue("red"), b"x", **when)
    assert refused.value.kind is Kind.INVALID
    assert len(store.pending) == 0 and bodies(store, "red") == []
