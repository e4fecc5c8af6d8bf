"""Looking into a store: states, counts and lag, search, and the trace in the log."""

import random
from pathlib import Path

import pytest
from engine_language import LONG, opened, quiet, split
from penstock.engine import Attributes, InvalidError, QueueNotFoundError, Store
from penstock.engine._core import STATES, Inspector
from penstock.engine.attributes import hash32

MESSAGE, CONFIRM, SEEK, _, QUEUE_DELETE, _, TRIM, _, _, PLACE = range(1, 11)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with quiet(opened(tmp_path)) as store:
        yield store


def state(store: Store, offset: int, queue: str = "red", group: str = "") -> str:
    one = store.queue(queue)
    return str(Inspector(store).message(one.id, one.group(group).id, offset)["state"])


def test_each_state_is_told(store: Store) -> None:
    queue = store.queue("red")
    queue.append_many([b"%d" % at for at in range(6)])
    own = queue.group()
    leased, delayed, ready, done = split(own.receive(4, lease_ms=LONG).receipts)
    own.release(delayed, delay_ms=LONG)
    own.release(ready)
    own.confirm(done)
    states = [state(store, at) for at in range(7)]
    assert states == ["leased", "waiting", "ready", "confirmed", "fresh", "fresh", "absent"]
    assert len(leased) == 24 and set(states) < set(STATES)
    queue.append(b"later", durability="kernel")
    assert state(store, 6) == "not durable"
    store._flush()
    assert state(store, 6) == "fresh"
    queue.purge()
    assert {state(store, at) for at in range(7)} == {"purged"}


def test_a_lease_that_ran_out_is_ready_and_says_so(store: Store) -> None:
    queue = store.queue("red")
    queue.append(b"m")
    queue.group().receive(1, lease_ms=0)
    seen = Inspector(store).message(queue.id, 0, 0)
    assert (seen["state"], seen["ran_out"]) == ("ready", True)
    assert (seen["attempts"], seen["before"]) == (1, 0)


def test_how_many_come_before_is_what_receive_then_gives(store: Store) -> None:
    queue = store.queue("red")
    queue.append_many([b"m"] * 2000)
    own = queue.group()
    receipts = split(own.receive(1500, lease_ms=LONG).receipts)
    own.release(b"".join(receipts[3::7]))
    look = Inspector(store)
    asked = (3, 10, 703, 1494, 1500, 1999)
    told = {at: look.message(queue.id, 0, at)["before"] for at in asked}
    given = own.receive(2000, lease_ms=LONG).offsets.tolist()
    assert told == {at: given.index(at) for at in told}


def test_counts_add_up_over_leaves_that_are_full(store: Store) -> None:
    queue = store.queue("red")
    for _ in range(4):
        queue.append_many([b"m"] * 5000)
    store._prepare()
    for _ in range(4):
        queue.append_many([b"m"] * 5000)
    own = queue.group()
    receipts = []
    while len(receipts) < 39000:
        receipts += split(own.receive(4096, lease_ms=LONG).receipts)
    own.confirm(b"".join(receipts[1:30001]))
    own.release(b"".join(receipts[30001:30011]), delay_ms=LONG)
    own.release(b"".join(receipts[30011:30031]))
    counts, low, high = Inspector(store).counts(queue.id, 0)
    taken = len(receipts)
    assert (low, high) == (0, 40000)
    assert counts == {"confirmed": 30000, "waiting": 10, "ready": 20, "held": 0, "passed": 0,
                      "leased": taken - 30030, "fresh": 40000 - taken}
    part, low, high = Inspector(store).counts(queue.id, 0, 29999, 30003)
    assert (part["confirmed"], part["waiting"], low, high) == (2, 2, 29999, 30003)


def test_lag_is_what_is_not_confirmed(store: Store) -> None:
    look, queue = Inspector(store), store.queue("red")
    assert look.lag(queue.id, 0) == {
        "lag": 0, "ready": 0, "in_flight": 0, "visible": 0, "oldest": None, "oldest_us": 0}
    queue.append_many([b"m"] * 10)
    receipts = split(queue.group().receive(5, lease_ms=LONG).receipts)
    queue.group().confirm(b"".join(receipts[:2] + receipts[3:4]))
    lag = look.lag(queue.id, 0)
    assert (lag["lag"], lag["ready"], lag["in_flight"], lag["oldest"]) == (7, 5, 2, 2)
    assert lag["oldest_us"] == int(queue.read(offset=2).timestamps[0])
    queue.purge()
    assert look.lag(queue.id, 0)["oldest"] is None
    queue.append(b"after")
    assert (look.lag(queue.id, 0)["lag"], look.lag(queue.id, 0)["oldest"]) == (3, 10)
    # The two that were in flight when they were purged are counted until a receive drops them.
    queue.group().receive(1)


def test_groups_are_listed_in_steps(store: Store) -> None:
    for name in ("red", "blue"):
        for group in ("", "a", "b"):
            store.queue(name).group(group)
    found: list[tuple[str, str]] = []
    slot = 0
    while True:
        some, slot = Inspector(store).groups(slot, 2)
        found += [(queue, group) for queue, group, *_ in some]
        if slot == 0:
            break
    assert sorted(found) == [(name, group) for name in ("blue", "red") for group in ("", "a", "b")]


def test_search_finds_what_a_plain_loop_finds(store: Store) -> None:
    queue, chance = store.queue("red"), random.Random(5)
    kept: list[tuple[Attributes, bytes]] = []
    for _ in range(600):
        sent = Attributes(
            tag=chance.choice(["", "a", "b"]), key=chance.choice(["", "k1", "k2"]),
            id=chance.choice(["", "x"]), properties=chance.choice([{}, {"p": "1"}, {"p": "2"}]),
        )
        kept.append((sent, chance.choice([b"needle in hay", b"hay"])))
        queue.append(kept[-1][1], attributes=sent)
    queue.append(b"needle", ext=b"\x01\x00\x01\x00a")
    kept.append((Attributes(), b"needle"))
    look = Inspector(store)
    for wanted, text in [
        (Attributes(tag="a"), b""), (Attributes(key="k2", properties={"p": "1"}), b""),
        (Attributes(id="x"), b"needle"), (Attributes(), b"needle"), (Attributes(), b""),
    ]:
        want = [at for at, (sent, body) in enumerate(kept) if text in body and fits(sent, wanted)]
        found: list[int] = []
        low, high = 0, 1 << 40
        while low < high:
            some, low, high, damaged = look.search(
                queue.id, low, high, attributes=wanted.pack(), text=text, tag=hash32(wanted.tag),
                key=hash32(wanted.key), limit=7, entries=100, read=4000)
            found += some
            assert damaged == 0
        assert found == want


def fits(sent: Attributes, wanted: Attributes) -> bool:
    names = ("tag", "key", "id")
    single = all(getattr(wanted, name) in ("", getattr(sent, name)) for name in names)
    return single and wanted.properties.items() <= sent.properties.items()


def test_a_trace_has_each_record_about_the_message_and_no_other(store: Store) -> None:
    queue, other = store.queue("red"), store.queue("blue")
    queue.append_many([b"a", b"b", b"c"], producer=7, sequence=1)
    queue.append(b"not ours")
    own = queue.group().receive(1, lease_ms=LONG).receipts
    late = queue.group("late").receive(1, lease_ms=LONG).receipts
    queue.group().confirm(own)
    other.append(b"blue")
    store._place(other, Inspector(store).message(queue.id, 0, 0)["position"])
    queue.group("late").confirm(late)
    queue.group().seek(offset=0)
    queue.purge()
    records, at, end, visible_us, skipped = Inspector(store).trace(queue.id, 0)
    kinds = [record[1] for record in records]
    assert kinds == [MESSAGE, CONFIRM, PLACE, CONFIRM, SEEK, TRIM]
    assert (at, skipped) == (end, 0) and visible_us >= records[0][5]
    assert records[0][6:9] == (7, 1, b"") and records[2][3] == other.id
    assert [record[4] for record in records[1:4:2]] == [queue.group().id, queue.group("late").id]


def test_a_trace_goes_on_where_it_ended_over_segments(store: Store) -> None:
    queue = store.queue("red")
    queue.append(b"first")
    groups = [queue.group(name) for name in ("a", "b", "c")]
    receipts = [group.receive(1, lease_ms=LONG).receipts for group in groups]
    for group, receipt in zip(groups, receipts, strict=True):
        for _ in range(7):
            queue.append(b"." * 100_000)
        group.confirm(receipt)
        store._prepare()
    whole = Inspector(store).trace(queue.id, 0)
    assert [record[1] for record in whole[0]] == [MESSAGE] + [CONFIRM] * 3
    assert len({record[0] >> 32 for record in whole[0]}) > 1
    found, at, steps = [], 0, 0
    while True:
        some, at, end, _, _ = Inspector(store).trace(queue.id, 0, at, read=1)
        found += some
        steps += 1
        if at >= end:
            break
    assert found == whole[0] and steps > 6


def test_more_records_than_one_step_holds_are_not_cut(store: Store) -> None:
    queue = store.queue("red")
    queue.append(b"m")
    for at in range(600):
        queue.group().seek(offset=at % 2)
    found, at = [], 0
    while True:
        some, at, end, _, _ = Inspector(store).trace(queue.id, 0, at)
        found += some
        if at >= end:
            break
    assert len(found) == 601 and len({record[0] for record in found}) == 601


def test_what_is_not_there_is_named(store: Store) -> None:
    look = Inspector(store)
    queue = store.queue("red")
    for call, more in ((look.message, (0,)), (look.counts, ()), (look.lag, ())):
        for numbers in ((queue.id, 999), (4711, 0)):
            with pytest.raises(QueueNotFoundError):
                call(*numbers, *more)
    with pytest.raises(QueueNotFoundError):
        look.search(4711, 0, 1)
    with pytest.raises(QueueNotFoundError):
        look.trace(4711, 0)
    with pytest.raises(InvalidError, match="no message 0 yet"):
        look.trace(queue.id, 0)
