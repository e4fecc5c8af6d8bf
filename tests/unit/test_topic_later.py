"""Messages that wait for a topic: fanned out when they are due, once, to who wants them then."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine_language import crashed, messages, opened, quiet

from penstock.engine import Attributes, Consumer, Store
from penstock.engine._core import spread
from penstock.engine.check import check
from penstock.engine.errors import ConflictError, InvalidError, QueueNotFoundError
from penstock.engine.retries import Retry
from penstock.server.broker import topic_later
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.topic_later import LaterTopics
from penstock.server.broker.topic_settings import TopicSettings
from penstock.server.broker.transaction import CheckBack

SECOND = 1_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with quiet(opened(tmp_path / "s")) as store:
        yield store
    assert check(tmp_path / "s").problems == []


def later_of(store: Store) -> LaterTopics:
    return LaterTopics(Broker(store, Limits()))


@pytest.fixture
def later(store: Store) -> LaterTopics:
    later = later_of(store)
    later.topics.create("t")
    return later


def passed(later: LaterTopics, seconds: float) -> int:
    """Let time pass; how many messages were fanned out."""
    later.store._clock(int(seconds * SECOND))
    while later.store.pending._keep():
        pass
    moved = 0
    while some := later.turn():
        moved += some
    return moved


def bodies(store: Store, queue: str) -> list[bytes]:
    return list(messages(store.queue(queue)).values())


def test_it_comes_when_it_is_due_to_who_wants_it_then(later: LaterTopics, store: Store) -> None:
    topics = later.topics
    topics.subscribe("t", "before")
    topics.subscribe("t", "left")
    sent = later.send("t", b"x", Attributes(tag="a"), delay_ms=10_000)
    assert sent.waits and (sent.partition, sent.offset, sent.queues) == (None, None, 0)
    topics.unsubscribe("t", "left")
    topics.subscribe("t", "after", kind="tag", source="a")
    topics.subscribe("t", "other", kind="tag", source="b")
    assert passed(later, 9) == 0 and bodies(store, "t#0") == []
    written = store.stat()["written"]
    assert passed(later, 11) == 1
    for queue in ("t#0", "before", "after"):
        assert bodies(store, queue) == [b"x"]
    for queue in ("left", "other"):
        assert bodies(store, queue) == []
    assert store.stat()["written"] - written < 1000
    batch = store.queue("t#0").group("g").receive(1)
    assert batch.attributes(0).tag == "a" and batch.origin(0) is None and batch.attempts[0] == 1
    assert passed(later, 3600) == 0


def test_the_body_is_written_once(later: LaterTopics, store: Store) -> None:
    for at in range(50):
        later.topics.subscribe("t", f"q{at}")
    later.send("t", b"b" * 100_000, delay_ms=1000)
    before = store.stat()["bytes_written"] if "bytes_written" in store.stat() else None
    position = store.stat()["written"]
    assert passed(later, 2) == 1
    assert store.stat()["written"] - position < 20_000
    assert before is None or store.stat()["bytes_written"] - before < 20_000
    assert all(bodies(store, f"q{at}") == [b"b" * 100_000] for at in range(50))


def test_it_goes_to_the_partition_named_else_by_key(later: LaterTopics, store: Store) -> None:
    topics = later.topics
    topics.grow("t", 4)
    keyed = topics.send("t", b"k", Attributes(key="k")).partition
    later.send("t", b"named", partition=3, delay_ms=1000)
    later.send("t", b"later", Attributes(key="k"), delay_ms=1000)
    with pytest.raises(BrokerError, match="0 to 3"):
        later.send("t", b"", partition=4, delay_ms=1000)
    topics.grow("t", 5)
    passed(later, 2)
    assert b"named" in bodies(store, "t#3")
    now = topics.partition(topics.topic("t"), Attributes(key="k"), None)
    assert bodies(store, f"t#{keyed}")[0] == b"k" and b"later" in bodies(store, f"t#{now}")


def test_it_is_listed_moved_and_cancelled(later: LaterTopics, store: Store) -> None:
    schedule = later.schedule
    one = later.send("t", b"one", delay_ms=10_000)
    two = later.send("t", b"two", delay_ms=20_000)
    rows = schedule("pending.list", {"topic": "t"})["messages"]
    assert [row["id"] for row in rows] == [one.id, two.id]
    assert all(row["topic"] == "t" and row["queue"] == "" for row in rows)
    assert schedule("pending.list", {"topic": "none"}) == {"messages": [], "next": None}
    with pytest.raises(BrokerError):
        schedule("pending.list", {"topic": "t", "queue": "t"})
    assert schedule("pending.cancel", {"id": one.id})["cancelled"] is True
    schedule("pending.move", {"id": two.id, "delay_ms": 60_000})
    assert passed(later, 30) == 0
    assert passed(later, 61) == 1
    assert bodies(store, "t#0") == [b"two"]
    assert store.queue("t#later", create=False).stat()["pending"] == 0


def test_a_half_is_fanned_out_when_it_is_committed(later: LaterTopics, store: Store) -> None:
    halves = later.transactions
    later.topics.subscribe("t", "q")
    one = later.send("t", b"one", half=CheckBack())
    two = later.send("t", b"two", half=CheckBack())
    assert one.waits and passed(later, 1) == 0
    halves.commit(int(one.id.partition("-p")[2], 16))
    halves.rollback(int(two.id.partition("-p")[2], 16))
    assert passed(later, 1) == 1
    assert bodies(store, "q") == bodies(store, "t#0") == [b"one"]


@pytest.mark.parametrize("moment", ["waiting", "due", "done"])
def test_a_crash_loses_nothing_and_doubles_nothing(
    moment: str, later: LaterTopics, store: Store, tmp_path: Path
) -> None:
    later.topics.subscribe("t", "q")
    for at in range(20):
        later.send("t", b"%d" % at, delay_ms=1000)
    if moment != "waiting":
        store._clock(2 * SECOND)
        while store.pending._keep():
            pass
    if moment == "done":
        assert later.turn() == 20
    with quiet(opened(crashed(store, tmp_path / "copy"))) as again:
        other = later_of(again)
        assert passed(other, 2) == (0 if moment == "done" else 20)
        for queue in ("q", "t#0"):
            assert sorted(bodies(again, queue)) == sorted(b"%d" % at for at in range(20))
    assert check(tmp_path / "copy").problems == []


def test_a_topic_takes_what_waits_with_it(later: LaterTopics, store: Store) -> None:
    sent = later.send("t", b"x", delay_ms=1000)
    later.topics.delete("t")
    assert passed(later, 2) == 0
    with pytest.raises(BrokerError) as refused:
        later.schedule("pending.get", {"id": sent.id})
    assert refused.value.kind is Kind.NOT_FOUND
    later.topics.create("t")
    assert passed(later, 3) == 0 and bodies(store, "t#0") == []


def test_what_was_fanned_out_is_not_kept_twice(later: LaterTopics, store: Store) -> None:
    later.send("t", b"x", delay_ms=1000)
    passed(later, 2)
    assert store.queue("t#later", create=False).settings()["keep"] == "unconfirmed"


def leased(later: LaterTopics, seconds: float) -> Any:
    """What is due, taken and not yet fanned out."""
    later.send("t", b"x", delay_ms=1000)
    later.store._clock(int(seconds * SECOND))
    while later.store.pending._keep():
        pass
    group = later.store.queue("t#later", create=False).group()
    return group, group.receive(1)


def test_a_move_is_refused_whole(later: LaterTopics, store: Store) -> None:
    home, blue, gone = (store.queue(name) for name in ("t#0", "blue", "gone"))
    group, batch = leased(later, 2)
    version = store.notes_version()
    store.note("something", b"else")
    store.delete("gone")
    [told] = spread(group, batch.receipts, [[home, blue]], version)
    assert isinstance(told, ConflictError)
    [told] = spread(group, batch.receipts, [[home, blue, gone]], store.notes_version())
    assert isinstance(told, QueueNotFoundError)
    assert bodies(store, "t#0") == bodies(store, "blue") == []
    assert spread(group, batch.receipts, [[home, blue]], store.notes_version()) == [0]
    [told] = spread(group, batch.receipts, [[home, blue]])
    assert isinstance(told, InvalidError)
    assert bodies(store, "t#0") == bodies(store, "blue") == [b"x"]
    [told] = spread(store.queue("blue").group(), batch.receipts, [[home]])
    assert isinstance(told, InvalidError)


def test_two_that_fan_out_do_it_once(later: LaterTopics, store: Store) -> None:
    group, batch = leased(later, 2)
    home = store.queue("t#0")
    told = spread(group, batch.receipts * 2, [[home], [home]], store.notes_version())
    assert told[0] == 0 and isinstance(told[1], InvalidError)
    assert bodies(store, "t#0") == [b"x"]


def test_a_topic_stores_an_id_once(later: LaterTopics, store: Store) -> None:
    topics = later.topics
    topics.grow("t", 3)
    topics.subscribe("t", "q")
    TopicSettings(topics)("topic.set", {"name": "t", "dedup_ms": 60_000})
    first = topics.send("t", b"a", Attributes(id="a"))
    again = topics.send("t", b"a", Attributes(id="a"))
    assert again.duplicate and (again.partition, again.offset) == (first.partition, first.offset)
    assert later.send("t", b"a", Attributes(id="a"), delay_ms=1000).duplicate
    waits = later.send("t", b"b", Attributes(id="b"), delay_ms=100_000)
    assert not waits.duplicate
    for sent in (later.send("t", b"b", Attributes(id="b"), delay_ms=5000),
                 topics.send("t", b"b", Attributes(id="b"))):
        assert sent.duplicate and sent.waits and sent.id == waits.id
    assert passed(later, 101) == 1
    assert bodies(store, "q") == [b"a", b"b"]
    sent = topics.send("t", b"b", Attributes(id="b"))
    assert sent.duplicate and not sent.waits and sent.offset is not None
    topics.grow("t", 4)
    assert store.queue("t#3").settings()["dedup_ms"] == 60_000


def test_what_is_set_for_a_topic_is_set_for_its_partitions(
    later: LaterTopics, store: Store
) -> None:
    settings = TopicSettings(later.topics)
    later.topics.grow("t", 2)
    told = settings("topic.group", {
        "name": "t", "group": "g", "order": "key", "filter": "a",
        "retry": {"max_attempts": 3, "dead_letter": "dead", "backoff_ms": [5]}})
    assert told["order"] == "key" and told["retry"]["dead_letter"] == "dead"
    settings("topic.set", {"name": "t", "retain_ms": 1000, "keep": "subscribed"})
    settings("topic.group", {"name": "t", "group": "g", "order": "strict"})
    later.topics.grow("t", 3)
    for number in range(3):
        queue = store.queue(f"t#{number}", create=False)
        found = queue.group("g").settings()
        assert found["order"] == "strict" and found["filter"].source == "a"
        assert found["retry"] == (3, store.queue("dead").id, (5,))
        assert queue.settings()["retain_ms"] == 1000 and queue.settings()["keep"] == "subscribed"
    shown = later.topics.show("t")
    assert shown["settings"] == {"retain_ms": 1000, "keep": "subscribed"}
    assert shown["groups"]["g"]["order"] == "strict"
    assert settings("topic.settings", {"name": "t"})["retain_ms"] == 1000
    assert Retry(3, "dead", (5,)).max_attempts == 3


WRONG = [
    ("topic.set", {"name": "t", "retain_ms": -1}),
    ("topic.set", {"name": "t", "queue": "q"}),
    ("topic.set", {"name": "t", "retain": 1}),
    ("topic.set", {"name": "t", "dedup_count": 1 << 30}),
    ("topic.group", {"name": "t", "group": "g", "order": "some"}),
    ("topic.group", {"name": "t", "group": "g", "filter": "a ||", "kind": "sql"}),
    ("topic.group", {"name": "t", "group": "g", "retry": {"max_attempts": 3}}),
    ("topic.group", {"name": "t", "group": "a b", "order": "key"}),
]


@pytest.mark.parametrize(("do", "fields"), WRONG)
def test_what_cannot_be_set_is_refused_and_changes_nothing(
    later: LaterTopics, do: str, fields: dict[str, Any]
) -> None:
    before = later.topics.show("t")
    with pytest.raises(BrokerError) as refused:
        TopicSettings(later.topics)(do, fields)
    assert refused.value.kind is Kind.INVALID
    assert later.topics.show("t") == before


def test_a_topic_that_is_not_there_has_no_settings(later: LaterTopics) -> None:
    for do in ("topic.set", "topic.settings", "topic.group"):
        with pytest.raises(BrokerError) as refused:
            TopicSettings(later.topics)(do, {"name": "none", "retain_ms": 1} if do == "topic.set"
                                        else {"name": "none"})
        assert refused.value.kind is Kind.NOT_FOUND
    with pytest.raises(BrokerError):
        later.send("none", b"", delay_ms=1000)
    with pytest.raises(BrokerError, match="not both"):
        later.send("t", b"", delay_ms=1000, due_us=1)


def resting(later: LaterTopics) -> tuple[threading.Thread, threading.Event]:
    """A thread that rests, and what it sets when it is woken."""
    woken = threading.Event()

    def rest() -> None:
        later.rest(60_000)
        woken.set()

    thread = threading.Thread(target=rest)
    thread.start()
    return thread, woken


def test_who_rests_is_woken_by_what_is_due_and_by_nothing_else(
    later: LaterTopics, store: Store
) -> None:
    later.topics.subscribe("t", "q")
    later.send("t", b"due", delay_ms=1000)
    assert later.turn() == 0
    thread, woken = resting(later)
    for _ in range(50):
        store.queue("other").append(b"not of a topic")
    assert not woken.wait(0.1)
    store._clock(2 * SECOND)
    while store.pending._keep():
        pass
    assert woken.wait(60)
    thread.join()
    assert later.turn() == 1


def test_who_rests_is_woken_when_a_topic_first_has_something_that_waits(
    later: LaterTopics, store: Store
) -> None:
    assert later.turn() == 0
    thread, woken = resting(later)
    later_of(store).send("t", b"first", delay_ms=1000)
    assert woken.wait(60)
    thread.join()
    assert passed(later, 2) == 1


def test_a_topic_in_trouble_holds_up_no_other_and_gives_nobody_a_turn_at_once(
    later: LaterTopics, monkeypatch: pytest.MonkeyPatch
) -> None:
    later.topics.create("u")
    real = later.fan_out

    def failing(name: str, consumer: Consumer) -> int:
        if name == "t":
            raise BrokerError(Kind.BUSY, "not now")
        return real(name, consumer)

    monkeypatch.setattr(later, "fan_out", failing)
    for name in ("t", "u"):
        later.send(name, b"due", delay_ms=1000)
    assert passed(later, 2) == 1
    awaited = []
    monkeypatch.setattr(topic_later, "await_ready", lambda _, groups, *__: awaited.append(groups))
    later.rest(0)
    assert awaited == [[later.groups["u"]]]
    monkeypatch.setattr(later, "fan_out", real)
    assert later.turn() == 1
    later.rest(0)
    assert awaited[1:] == [[later.groups["t"], later.groups["u"]]]
