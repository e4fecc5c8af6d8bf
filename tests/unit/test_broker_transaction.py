"""Halves in the broker's words: the first verdict wins, and live producers are asked for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_language import crashed, messages, opened, quiet

from penstock.engine import Attributes, Store
from penstock.engine.check import check
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.producers import Check, Producers
from penstock.server.broker.transaction import CheckBack, Transactions

SECOND = 1_000_000
HOUR = 3600 * SECOND
SOON = CheckBack(first_ms=1000, interval_ms=10_000, limit=3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quiet(opened(tmp_path / "s")) as store:
        yield store
    assert check(tmp_path / "s").problems == []


def transactions_of(store: Store) -> Transactions:
    return Transactions(Broker(store, Limits()), Producers())


@pytest.fixture
def halves(store: Store) -> Transactions:
    return transactions_of(store)


class Producer:
    """One that notes what it is asked."""

    def __init__(self, halves: Transactions, group: str, *, takes: bool = True) -> None:
        self.asked: list[Check] = []
        self.takes = takes
        self.place = halves.producers.join(group, self.ask)

    def ask(self, check: Check) -> bool:
        if self.takes:
            self.asked.append(check)
        return self.takes

    @property
    def ids(self) -> list[int]:
        return [check.id for check in self.asked]


def bodies(store: Store, queue: str = "red") -> list[bytes]:
    return list(messages(store.queue(queue)).values())


def refused(call: object) -> Kind:
    with pytest.raises(BrokerError) as error:
        call()  # type: ignore[operator]
    return error.value.kind


def test_a_half_is_seen_once_it_is_committed_and_a_repetition_answers_the_same(
    store: Store, halves: Transactions
) -> None:
    queue = store.queue("red")
    queue.append(b"before")
    id = halves.prepare(queue, b"x", Attributes(tag="t"), group="bank").pending
    assert bodies(store) == [b"before"]
    first, second = halves.commit(id), halves.commit(id)
    assert (first.offset, first.duplicate) == (1, False)
    assert (second.offset, second.duplicate, second.id) == (1, True, first.id)
    assert refused(lambda: halves.rollback(id)) is Kind.EXISTS
    batch = queue.group().receive(10)
    assert batch.tolist() == [b"before", b"x"] and batch.attributes(1).tag == "t"


def test_what_is_rolled_back_stays_so(store: Store, halves: Transactions) -> None:
    id = halves.prepare(store.queue("red"), b"x").pending
    assert halves.rollback(id) and not halves.rollback(id)
    assert refused(lambda: halves.commit(id)) is Kind.EXISTS
    assert bodies(store) == []


def test_a_repeated_commit_tells_its_offset_after_a_crash(
    store: Store, halves: Transactions, tmp_path: Path
) -> None:
    id = halves.prepare(store.queue("red"), b"x").pending
    offset = halves.commit(id).offset
    with quiet(opened(crashed(store, tmp_path / "other"))) as other:
        again = transactions_of(other).commit(id)
        assert (again.offset, again.duplicate) == (offset, True)


def test_a_half_with_a_delay_comes_when_it_is_committed_and_due(
    store: Store, halves: Transactions
) -> None:
    id = halves.prepare(store.queue("red"), b"x", delay_ms=3_600_000).pending
    first, second = halves.commit(id), halves.commit(id)
    assert first.pending == second.pending == id and second.duplicate and bodies(store) == []
    store._clock(HOUR + SECOND)
    # Its time has come and nobody has placed it yet: the repetition must not say otherwise.
    assert halves.commit(id).pending == id
    store.pending._keep()
    assert bodies(store) == [b"x"]
    assert (halves.commit(id).offset, halves.commit(id).pending) == (0, None)


def test_a_live_producer_of_the_group_is_asked_and_decides(
    store: Store, halves: Transactions
) -> None:
    queue = store.queue("red")
    id = halves.prepare(queue, b"x", Attributes(key="k"), group="bank", check_back=SOON).pending
    other, bank = Producer(halves, "shop"), Producer(halves, "bank")
    assert halves.check() == 0
    store._clock(2 * SECOND)
    assert halves.check() == 1 and halves.check() == 0
    [asked] = bank.asked
    assert (asked.id, asked.queue, asked.body, asked.attributes.key, asked.checks) == (
        id, "red", b"x", "k", 0)
    assert asked.text_id == halves.schedule("pending.list", {})["messages"][0]["id"]
    assert other.asked == []
    halves.commit(asked.id)
    store._clock(60 * SECOND)
    assert halves.check() == 0 and bodies(store) == [b"x"]


def test_the_members_of_a_group_are_asked_in_turn_and_one_that_cannot_is_passed(
    store: Store, halves: Transactions
) -> None:
    queue = store.queue("red")
    ids = [halves.prepare(queue, b"x", group="bank", check_back=SOON).pending for _ in range(6)]
    busy = Producer(halves, "bank", takes=False)
    one, two, gone = (Producer(halves, "bank") for _ in range(3))
    gone.place.leave()
    gone.place.leave()
    store._clock(2 * SECOND)
    assert halves.check() == 6
    assert sorted(one.ids + two.ids) == ids and len(one.ids) == len(two.ids) == 3
    assert busy.asked == gone.asked == []
    for producer in (busy, one, two):
        producer.place.leave()
    assert halves.producers.groups() == []


def test_who_never_answers_is_asked_so_often_and_then_it_is_rolled_back(
    store: Store, halves: Transactions
) -> None:
    id = halves.prepare(store.queue("red"), b"x", group="bank", check_back=SOON).pending
    bank = Producer(halves, "bank")
    for turn in range(1, 6):
        store._clock(turn * 11 * SECOND)
        halves.check()
    assert [check.checks for check in bank.asked] == [0, 1, 2]
    assert refused(lambda: halves.commit(id)) is Kind.EXISTS


def test_checks_wait_uncounted_while_no_producer_is_there(
    store: Store, halves: Transactions
) -> None:
    id = halves.prepare(store.queue("red"), b"x", group="bank", check_back=SOON).pending
    Producer(halves, "shop")
    for hour in range(1, 10):
        store._clock(hour * HOUR)
        assert halves.check() == 0
    bank = Producer(halves, "bank")
    assert halves.check() == 1 and [check.checks for check in bank.asked] == [0]
    assert halves.commit(id).offset == 0


def test_a_half_nobody_can_be_asked_about_is_rolled_back_in_the_end(
    store: Store, halves: Transactions
) -> None:
    queue = store.queue("red")
    old = halves.prepare(queue, b"old", group="bank").pending
    delayed = queue.append(b"d", due_us=halves.schedule.now_us() + 999 * HOUR).pending
    store._clock(71 * HOUR)
    young = halves.prepare(queue, b"young", group="bank").pending
    assert halves.expire() == 0
    store._clock(73 * HOUR)
    assert halves.expire() == 1 and halves.expire() == 0
    assert refused(lambda: halves.commit(old)) is Kind.EXISTS
    assert halves.commit(young).offset == 0 and store.pending.get(delayed)


def test_of_two_workers_the_one_with_the_producer_asks_and_only_one_does(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as first, quiet(opened(tmp_path / "s")) as second:
        left, right = transactions_of(first), transactions_of(second)
        ids = [left.prepare(first.queue("red"), b"x", group="bank", check_back=SOON).pending
               for _ in range(250)]
        bank = Producer(right, "bank")
        for store in (first, second):
            store._clock(2 * SECOND)
        assert left.check() == 0 and right.check() == 250 and sorted(bank.ids) == ids
        also = Producer(left, "bank")
        assert left.check() == right.check() == 0 and also.asked == []
        for store in (first, second):
            store._clock(13 * SECOND)
        assert left.check() + right.check() == 250
        assert sorted(also.ids + bank.ids[250:]) == ids


def test_two_that_saw_the_same_half_due_do_not_both_ask(store: Store) -> None:
    queue = store.queue("red")
    id = queue.prepare(b"x", check_ms=0).pending
    store._clock(SECOND)
    [seen] = store.pending.list(state="half")
    again = halves_due(store) + 10 * SECOND
    wanted = [(seen.id, seen.checks, again)]
    assert store.pending.claim(wanted) == [True]
    assert store.pending.claim(wanted) == [False]
    assert store.pending.claim([(seen.id, 1, None), (4711, 0, again)]) == [True, False]
    assert store.pending.claim([(seen.id, 1, None)]) == [False]
    assert store.pending.get(id) is None


def halves_due(store: Store) -> int:
    return transactions_of(store).schedule.now_us()


def test_more_halves_than_one_turn_are_all_asked_about(store: Store, halves: Transactions) -> None:
    queue = store.queue("red")
    for at in range(230):
        halves.prepare(queue, b"%d" % at, group="bank", check_back=SOON)
    bank = Producer(halves, "bank")
    store._clock(2 * SECOND)
    assert halves.check() == 230 and len({check.body for check in bank.asked}) == 230


def test_checks_are_not_forgotten_in_a_crash(
    store: Store, halves: Transactions, tmp_path: Path
) -> None:
    halves.prepare(store.queue("red"), b"x", group="bank", check_back=SOON)
    Producer(halves, "bank")
    store._clock(2 * SECOND)
    halves.check()
    with quiet(opened(crashed(store, tmp_path / "other"))) as other:
        other._clock(13 * SECOND)
        after = transactions_of(other)
        bank = Producer(after, "bank")
        assert after.check() == 1 and [check.checks for check in bank.asked] == [1]


def test_an_atomic_send_is_in_all_queues_or_in_none(store: Store, halves: Transactions) -> None:
    red, blue = store.queue("red"), store.queue("blue")
    due = halves.schedule.now_us() + HOUR
    receipts = halves.send_all([
        (red, b"r", Attributes(tag="t"), 0), (blue, b"b", None, 0), (blue, b"later", None, due)])
    assert [one.pending is None for one in receipts] == [True, True, False]
    assert red.read().attributes(0).tag == "t" and bodies(store, "blue") == [b"b"]
    store.delete("blue")
    assert refused(lambda: halves.send_all([(red, b"x", None, 0), (blue, b"y", None, 0)])) \
        is Kind.NOT_FOUND
    large = bytes(halves.limits.message_bytes + 1)
    for wrong, kind in (
        ([], Kind.INVALID), ([(red, large, None, 0)], Kind.TOO_LARGE),
        ([(red, b"", None, 0)] * (halves.limits.atomic_messages + 1), Kind.TOO_LARGE),
    ):
        assert refused(lambda w=wrong: halves.send_all(w)) is kind
    assert bodies(store) == [b"r"]


@pytest.mark.parametrize("wrong", [
    {"check_back": CheckBack(first_ms=-1)},
    {"check_back": CheckBack(first_ms=13 * 3_600_000)},
    {"check_back": CheckBack(interval_ms=99)},
    {"check_back": CheckBack(interval_ms=13 * 3_600_000)},
    {"check_back": CheckBack(limit=0)},
    {"check_back": CheckBack(limit=256)},
    {"group": "g" * 256},
    {"delay_ms": -1},
    {"delay_ms": 1, "due_us": 1},
])
def test_a_half_that_cannot_be_is_refused(
    store: Store, halves: Transactions, wrong: dict[str, object]
) -> None:
    queue = store.queue("red")
    options: Any = wrong
    assert refused(lambda: halves.prepare(queue, b"x", **options)) is Kind.INVALID
    large = bytes(halves.limits.message_bytes + 1)
    assert refused(lambda: halves.prepare(queue, large)) is Kind.TOO_LARGE
    assert len(store.pending) == 0


def test_verdicts_on_what_is_no_half_are_named(store: Store, halves: Transactions) -> None:
    queue = store.queue("red")
    delayed = queue.append(b"d", due_us=halves.schedule.now_us() + HOUR).pending
    for decide in (halves.commit, halves.rollback):
        assert refused(lambda d=decide: d(delayed)) is Kind.INVALID
        assert refused(lambda d=decide: d(4711)) is Kind.NOT_FOUND
    assert store.pending.get(delayed)
