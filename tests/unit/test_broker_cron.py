"""Schedules: each firing is stored once, whoever stores it, and summer time takes none away."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from engine_language import crashed, messages, opened, quiet

from penstock.engine import Store
from penstock.engine.check import check
from penstock.server.broker.broker import Broker
from penstock.server.broker.cron import Crons, Plan, firings
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.topic import Topics

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quiet(opened(tmp_path / "s")) as store:
        store.queue("red")
        yield store
    assert check(tmp_path / "s").problems == []


def crons_of(store: Store) -> Crons:
    return Crons(Broker(store, Limits()))


class Clock:
    """Sets the store's clock to moments of the next hours, and lets time pass in steps."""

    def __init__(self, store: Store) -> None:
        self.store = store
        # A whole hour that has not begun: what the test takes changes nothing.
        self.start = (crons_of(store).schedule.now_us() // HOUR + 2) * HOUR
        self.to(0)

    def to(self, after_us: int) -> None:
        now_us = crons_of(self.store).schedule.now_us
        self.store._clock(0)
        self.store._clock(self.start + after_us - now_us())

    def passes(self, begin: int, end: int, *crons: Crons, step: int = 10 * SECOND) -> None:
        for at in range(begin, end, step):
            self.to(at)
            for one in crons:
                one.turn()
            while self.store.pending._keep():
                pass


@pytest.fixture
def clock(store: Store) -> Clock:
    return Clock(store)


def bodies(store: Store, queue: str = "red") -> list[bytes]:
    return list(messages(store.queue(queue)).values())


def test_a_firing_comes_at_its_time_and_says_so(store: Store, clock: Clock) -> None:
    crons = crons_of(store)
    told = crons("schedule.set", {
        "name": "report", "cron": "*/5 * * * *", "queue": "red", "body": "{{name}} {{unix}}",
        "tag": "t", "key": "k", "properties": {"a": "b"}})
    assert len(told["next"]) == 5 and told["last"] is None
    clock.passes(0, 11 * MINUTE, crons)
    expected = [f"report {(clock.start + at * MINUTE) // SECOND}".encode() for at in (5, 10)]
    assert bodies(store) == expected
    batch = store.queue("red").read()
    # Stored ahead, so that it comes then and not when somebody looked.
    assert all(0 <= at - due < 20 * SECOND for at, due in zip(
        batch.timestamps.tolist(), (clock.start + at * MINUTE for at in (5, 10))))
    assert batch.attributes(0).tag == "t" and batch.attributes(0).properties == {"a": "b"}
    shown = crons("schedule.show", {"name": "report"})
    assert datetime.fromisoformat(shown["next"][0]).timestamp() * SECOND == (
        clock.start + 15 * MINUTE)


def test_any_number_of_workers_store_a_firing_once(store: Store, clock: Clock) -> None:
    workers = [crons_of(store) for _ in range(3)]
    workers[0]("schedule.set", {"name": "s", "cron": "* * * * *", "queue": "red", "body": "x"})
    # Each acts on what it read before another one noted that it fired.
    for minute in range(1, 4):
        clock.to(minute * MINUTE - SECOND)
        seen = [(worker, worker.noted("s")) for worker in workers]
        for worker, (noted, version) in seen:
            after, _ = worker.fire("s", noted, worker.schedule.now_us())
            worker.keep("s", after, version)
        clock.to(minute * MINUTE + SECOND)
        store.pending._keep()
        assert len(bodies(store)) == minute


def test_a_crash_between_the_firing_and_its_note_does_not_fire_again(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    crons = crons_of(store)
    crons("schedule.set", {"name": "s", "cron": "* * * * *", "queue": "red", "body": "x"})
    clock.to(MINUTE + 5 * SECOND)
    crons.fire("s", crons.noted("s")[0], crons.schedule.now_us())
    assert bodies(store) == [b"x"]
    with quiet(opened(crashed(store, tmp_path / "other"))) as other:
        clock.store = other
        clock.to(MINUTE + 10 * SECOND)
        assert crons_of(other).turn() == 1      # it is sent again, and known
        assert bodies(other) == [b"x"]
    clock.store = store


@pytest.mark.parametrize(("missed", "came"), [
    ("skip", []), ("one", [180]), ("all", [60, 120, 180]),
])
def test_what_was_missed_is_sent_as_the_plan_says(
    store: Store, clock: Clock, missed: str, came: list[int]
) -> None:
    crons_of(store)("schedule.set", {
        "name": "s", "cron": "0 * * * *", "queue": "red", "body": "{{unix}}", "missed": missed})
    clock.to(3 * HOUR + 20 * MINUTE)
    later = crons_of(store)
    later.turn()
    later.turn()
    told = [int(body) - clock.start // SECOND for body in bodies(store)]
    assert told == [minutes * 60 for minutes in came]
    clock.passes(4 * HOUR - 5 * SECOND, 4 * HOUR + 10 * SECOND, later, step=SECOND)
    assert len(bodies(store)) == len(came) + 1


def test_of_very_many_missed_only_so_many_are_sent(store: Store, clock: Clock) -> None:
    crons = crons_of(store)
    crons("schedule.set", {
        "name": "s", "cron": "* * * * *", "queue": "red", "body": "x", "missed": "all"})
    clock.to(50 * HOUR + 30 * SECOND)
    crons.turn()
    assert len(bodies(store)) == 1001
    crons.turn()
    assert len(bodies(store)) == 1001


def test_paused_it_does_not_fire_and_resumed_it_goes_on_from_now(
    store: Store, clock: Clock
) -> None:
    crons = crons_of(store)
    crons("schedule.set", {"name": "s", "cron": "* * * * *", "queue": "red", "body": "x"})
    clock.to(MINUTE - SECOND)
    crons.turn()
    assert len(store.pending) == 1
    assert crons("schedule.pause", {"name": "s"})["next"] == []
    assert len(store.pending) == 0          # what was stored ahead is withdrawn
    clock.passes(MINUTE - SECOND, 5 * MINUTE, crons)
    assert bodies(store) == []
    # The minute that was withdrawn may fire after all, if it is resumed in time.
    clock.to(6 * MINUTE - SECOND)
    crons("schedule.resume", {"name": "s"})
    clock.passes(6 * MINUTE - SECOND, 7 * MINUTE - 10 * SECOND, crons, step=SECOND)
    assert bodies(store) == [b"x"]


def test_a_firing_that_was_withdrawn_fires_when_resumed_in_time(
    store: Store, clock: Clock
) -> None:
    crons = crons_of(store)
    crons("schedule.set", {"name": "s", "cron": "* * * * *", "queue": "red", "body": "x"})
    clock.to(MINUTE - 2 * SECOND)
    crons.turn()
    for do in ("schedule.pause", "schedule.resume"):
        crons(do, {"name": "s"})
    clock.passes(MINUTE - SECOND, MINUTE + 5 * SECOND, crons, step=SECOND)
    assert bodies(store) == [b"x"]


def test_who_was_overtaken_by_a_change_withdraws_what_it_sent(store: Store, clock: Clock) -> None:
    slow, quick = crons_of(store), crons_of(store)
    plan = {"name": "s", "cron": "* * * * *", "queue": "red"}
    quick("schedule.set", {**plan, "body": "old"})
    clock.to(MINUTE - SECOND)
    noted, version = slow.noted("s")
    quick("schedule.set", {**plan, "body": "new"})
    after, _ = slow.fire("s", noted, slow.schedule.now_us())
    slow.keep("s", after, version)
    clock.passes(MINUTE - SECOND, MINUTE + 5 * SECOND, quick, step=SECOND)
    assert bodies(store) == [b"new"]
    quick("schedule.remove", {"name": "s"})
    clock.passes(2 * MINUTE - SECOND, 3 * MINUTE, quick, slow)
    assert bodies(store) == [b"new"] and quick("schedule.list", {}) == {"schedules": []}


def test_a_topic_is_a_target_too(store: Store, clock: Clock) -> None:
    crons = crons_of(store)
    topics = Topics(Broker(store, Limits()))
    topics.create("news", 1)
    topics.subscribe("news", "red")
    crons("schedule.set", {"name": "s", "cron": "* * * * *", "topic": "news", "body": "x"})
    clock.passes(0, 2 * MINUTE + 5 * SECOND, crons, crons_of(store))
    assert bodies(store) == [b"x", b"x"]


def test_a_queue_that_is_gone_is_told_and_the_schedule_goes_on(store: Store, clock: Clock) -> None:
    crons = crons_of(store)
    crons("schedule.set", {"name": "s", "cron": "* * * * *", "queue": "red", "body": "x"})
    store.delete("red")
    clock.passes(0, MINUTE + 5 * SECOND, crons)
    assert "red" in crons("schedule.show", {"name": "s"})["error"]
    store.queue("red")
    clock.passes(2 * MINUTE - SECOND, 2 * MINUTE + 5 * SECOND, crons, step=SECOND)
    assert bodies(store) == [b"x"] and "error" not in crons("schedule.show", {"name": "s"})


def local(plan: Plan, start: datetime, count: int) -> list[str]:
    """The first firings, each found from the one before, as turns find them."""
    at, told = int(start.timestamp()) * SECOND, []
    zone = ZoneInfo(plan.zone)
    for _ in range(count):
        following = next(firings(plan, at))
        assert following > at
        at = following
        told.append(datetime.fromtimestamp(at // SECOND, zone).isoformat()[5:])
    assert [at] == list(islice(firings(plan, int(start.timestamp()) * SECOND), count))[-1:]
    return told


@pytest.mark.parametrize(("expression", "start", "expected"), [
    # Spring: 02:00 to 03:00 is left out on 29 March 2026.
    ("30 2 * * *", "2026-03-28T00:00", ["03-28T02:30:00+01:00", "03-29T03:00:00+02:00",
                                        "03-30T02:30:00+02:00"]),
    ("*/30 * * * *", "2026-03-29T01:00", ["03-29T01:30:00+01:00", "03-29T03:00:00+02:00",
                                          "03-29T03:30:00+02:00"]),
    # Autumn: 02:00 to 03:00 is there twice on 25 October 2026.
    ("30 2 * * *", "2026-10-24T12:00", ["10-25T02:30:00+02:00", "10-26T02:30:00+01:00"]),
    ("*/30 * * * *", "2026-10-25T01:45", [
        "10-25T02:00:00+02:00", "10-25T02:30:00+02:00", "10-25T02:00:00+01:00",
        "10-25T02:30:00+01:00", "10-25T03:00:00+01:00"]),
    ("0 9 * * MON-FRI", "2026-10-23T10:00", ["10-26T09:00:00+01:00", "10-27T09:00:00+01:00"]),
    ("0 0 29 2 *", "2026-01-01T00:00", ["02-29T00:00:00+01:00"]),
])
def test_summer_time_takes_no_firing_away(
    expression: str, start: str, expected: list[str]
) -> None:
    plan = Plan(cron=expression, queue="red", zone="Europe/Berlin")
    begin = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo("Europe/Berlin"))
    assert local(plan, begin, len(expected)) == expected


def test_a_daily_time_fires_once_each_day_of_a_decade() -> None:
    for zone in ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"):
        for clock in ("30 2", "0 3", "45 1"):
            plan = Plan(cron=f"{clock} * * *", queue="red", zone=zone)
            start = datetime(2026, 1, 1, tzinfo=ZoneInfo(zone))
            at, days = int(start.timestamp()) * SECOND, set()
            while len(days) < 800:
                at = next(firings(plan, at))
                day = datetime.fromtimestamp(at // SECOND, ZoneInfo(zone)).date()
                assert day not in days, (zone, clock, day)
                days.add(day)
            assert max(days) - min(days) == timedelta(days=len(days) - 1)


BAD: list[tuple[str, dict[str, Any], Kind]] = [
    ("schedule.set", {"cron": "* * * *", "queue": "red"}, Kind.INVALID),
    ("schedule.set", {"cron": "61 * * * *", "queue": "red"}, Kind.INVALID),
    ("schedule.set", {"cron": "soon", "queue": "red"}, Kind.INVALID),
    ("schedule.set", {"cron": "0 0 31 2 *", "queue": "red"}, Kind.INVALID),
    ("schedule.set", {"queue": "red"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "topic": "t"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "none"}, Kind.NOT_FOUND),
    ("schedule.set", {"cron": "* * * * *", "topic": "none"}, Kind.NOT_FOUND),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "zone": "Mars/Base"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "zone": "../etc"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "zone": "Europe"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "missed": "some"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "colour": "blue"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "body": "x" * 32769}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "name": "a b"}, Kind.INVALID),
    ("schedule.set", {"cron": "* * * * *", "queue": "red", "name": 7}, Kind.INVALID),
    ("schedule.show", {}, Kind.NOT_FOUND),
    ("schedule.pause", {}, Kind.NOT_FOUND),
    ("schedule.resume", {}, Kind.NOT_FOUND),
    ("schedule.remove", {}, Kind.NOT_FOUND),
    ("schedule.show", {"at": 1}, Kind.INVALID),
]


@pytest.mark.parametrize(("do", "fields", "kind"), BAD)
def test_bad_schedules_are_named(
    store: Store, do: str, fields: dict[str, Any], kind: Kind
) -> None:
    crons = crons_of(store)
    with pytest.raises(BrokerError) as refused:
        crons(do, {"name": "s", **fields})
    assert refused.value.kind is kind
    assert crons("schedule.list", {}) == {"schedules": []}


def test_there_are_only_so_many(store: Store) -> None:
    crons = Crons(Broker(store, Limits(schedules=2)))
    plan = {"cron": "* * * * *", "queue": "red"}
    for name in ("a", "b", "a"):
        crons("schedule.set", {"name": name, **plan})
    with pytest.raises(BrokerError) as refused:
        crons("schedule.set", {"name": "c", **plan})
    assert refused.value.kind is Kind.TOO_LARGE
