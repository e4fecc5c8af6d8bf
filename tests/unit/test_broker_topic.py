"""Topics: partitions for groups, and queues that get what they asked for."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import crashed, messages, opened

from penstock.engine import Attributes, Store
from penstock.engine.check import check
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.topic import Topics


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "s") as store:
        yield store
    assert check(tmp_path / "s").problems == []


def topics_of(store: Store) -> Topics:
    return Topics(Broker(store, Limits()))


@pytest.fixture
def topics(store: Store) -> Topics:
    return topics_of(store)


def bodies(store: Store, queue: str) -> list[bytes]:
    return list(messages(store.queue(queue)).values())


def test_every_group_gets_every_message(topics: Topics) -> None:
    assert topics.create("t", 2)[1] and not topics.create("t", 3)[1]
    for n in range(6):
        topics.send("t", b"%d" % n)
    for group in ("one", "two"):
        got = []
        while (found := topics.receive("t", group, 10)) is not None:
            got += found[1].tolist()
        assert sorted(got) == [b"%d" % n for n in range(6)]


def test_a_key_keeps_its_partition_and_others_go_in_turn(topics: Topics) -> None:
    topics.create("t", 4)
    keyed = {topics.send("t", b"", Attributes(key="k")).partition for _ in range(9)}
    turns = [topics.send("t", b"").partition for _ in range(8)]
    assert len(keyed) == 1 and turns == [0, 1, 2, 3] * 2
    assert topics.send("t", b"", partition=3).partition == 3
    with pytest.raises(BrokerError, match="0 to 3") as refused:
        topics.send("t", b"", partition=4)
    assert refused.value.kind is Kind.INVALID


def test_partitions_can_be_added_and_are_hidden(store: Store, topics: Topics) -> None:
    topics.create("t", 1)
    assert topics.grow("t", 3)["partitions"] == 3
    assert [topics.send("t", b"").partition for _ in range(3)] == [0, 1, 2]
    with pytest.raises(BrokerError, match="fewer"):
        topics.grow("t", 2)
    assert topics.broker.names() == [] and topics.names() == ["t"]
    assert topics.broker.open("t#0", create=False).stat()["next"] == 1
    for refused in (topics.broker.delete, topics.broker.purge, topics.broker.create):
        with pytest.raises(BrokerError):
            refused("t#7")
    with pytest.raises(BrokerError):
        topics.broker.delete("t#0")


def test_a_queue_gets_what_its_subscription_wants(store: Store, topics: Topics) -> None:
    topics.create("t")
    topics.subscribe("t", "paid", kind="tag", source="paid || refunded")
    topics.subscribe("t", "eu", kind="routing", source="order.*.eu")
    topics.subscribe("t", "large", kind="sql", source="amount > 100")
    topics.subscribe("t", "all")
    before = store.stat()["bytes_written"]
    sent = topics.send("t", bytes(50_000), Attributes(
        tag="paid", routing_key="order.7.eu", properties={"amount": "150"}))
    assert sent.queues == 4 and sent.offset == 0
    assert store.stat()["bytes_written"] - before < 51_000
    topics.send("t", b"small", Attributes(tag="new", properties={"amount": "5"}))
    assert [len(bodies(store, name)) for name in ("paid", "eu", "large", "all")] == [1, 1, 1, 2]
    with pytest.raises(BrokerError) as refused:
        topics.subscribe("t", "bad", kind="sql", source="amount >")
    assert refused.value.kind is Kind.INVALID
    with pytest.raises(BrokerError) as refused:
        topics.subscribe("t", "all")
    assert refused.value.kind is Kind.EXISTS
    topics.unsubscribe("t", "all")
    topics.send("t", b"later")
    assert len(bodies(store, "all")) == 2


def test_messages_wait_until_the_recipient_is_back(tmp_path: Path, store: Store) -> None:
    topics = topics_of(store)
    topics.create("t")
    topics.subscribe("t", "q")
    topics.send("t", b"one")
    with opened(crashed(store, tmp_path / "crash")) as after:
        again = topics_of(after)
        again.send("t", b"two")
        assert after.queue("q").group().receive(9).tolist() == [b"one", b"two"]
        assert again.show("t")["subscriptions"] == [{"queue": "q", "kind": None, "source": ""}]


def test_a_subscription_may_begin_in_the_past(store: Store, topics: Topics) -> None:
    topics.create("t", 2)
    for n in range(1500):
        topics.store.fanout(topics.partitions("t")[n % 2:n % 2 + 1], b"%d" % n,
                            attributes=Attributes(tag="even" if n % 2 == 0 else "odd"),
                            durability="kernel")
    store._flush()
    written = store.stat()["bytes_written"]
    topics.subscribe("t", "all", start="earliest")
    topics.subscribe("t", "even", kind="tag", source="even", start="earliest")
    middle = int(topics.partitions("t")[0].index()["stored_us"][300])
    topics.subscribe("t", "late", start=middle)
    topics.subscribe("t", "new")
    for never in (-1, 1 << 63, "noon"):
        with pytest.raises(BrokerError, match="start is latest, earliest or a time"):
            topics.subscribe("t", "never", start=never)
    assert store.stat()["bytes_written"] - written < 4000 * 70
    topics.send("t", b"last", Attributes(tag="even"))
    assert sorted(bodies(store, "all")) == sorted([b"%d" % n for n in range(1500)] + [b"last"])
    assert bodies(store, "even") == [b"%d" % n for n in range(0, 1500, 2)] + [b"last"]
    assert 0 < len(bodies(store, "late")) < 1501 and bodies(store, "new") == [b"last"]
    assert b"600" in bodies(store, "late") and b"0" not in bodies(store, "late")


def test_nothing_is_lost_or_doubled_while_somebody_sends(store: Store, topics: Topics) -> None:
    """The moment of a subscription is one position in the log."""
    topics.create("t", 2)
    done = threading.Event()

    def send(own: Topics) -> None:
        n = 0
        while not done.is_set():
            own.send("t", b"%d %d" % (id(own), n), durability="kernel")
            n += 1

    threads = [threading.Thread(target=send, args=(topics_of(store),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(10):
        topics.subscribe("t", f"q{at}", start="earliest")
    done.set()
    for thread in threads:
        thread.join()
    store._flush()
    everything = sorted(body for p in topics.partitions("t") for body in messages(p).values())
    for at in range(10):
        assert sorted(bodies(store, f"q{at}")) == everything


def test_a_deleted_queue_is_left_out_and_a_deleted_topic_is_gone(
    store: Store, topics: Topics
) -> None:
    topics.create("t")
    topics.subscribe("t", "gone")
    topics.subscribe("t", "kept")
    store.delete("gone")
    assert topics.send("t", b"x").queues == 1
    topics.delete("t")
    assert topics.names() == [] and store.notes() == {} and store.queues() == ["kept"]
    for call in (lambda: topics.send("t", b""), lambda: topics.show("t")):
        with pytest.raises(BrokerError) as refused:
            call()
        assert refused.value.kind is Kind.NOT_FOUND


def test_a_repetition_is_stored_once(store: Store, topics: Topics) -> None:
    topics.create("t")
    topics.subscribe("t", "q")
    first = topics.send("t", b"x", producer=3, sequence=1)
    again = topics.send("t", b"x", producer=3, sequence=1)
    assert again.duplicate and (again.id, again.offset) == (first.id, first.offset)
    assert bodies(store, "q") == [b"x"]


def test_names_and_numbers_are_bounded(topics: Topics) -> None:
    for name in ("", "a#b", "a:b", "x" * 121):
        with pytest.raises(BrokerError):
            topics.create(name)
    for partitions in (0, 257):
        with pytest.raises(BrokerError):
            topics.create("t", partitions)
