"""CMQ's topics in the broker's words: tags, routing keys, subscriptions, posts to endpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import LONG, opened

from penstock.engine import Store
from penstock.engine.attributes import Attributes
from penstock.server._wire import MessageNames
from penstock.server.broker import push
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import STRICT, Given, Rules
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.cmq.posting import post_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.subscribing import Asked
from penstock.server.broker.cmq.topics import CmqTopics, TopicFacts, push_of
from penstock.server.broker.limits import Limits

NOW_US = 1_790_000_000_000_000
TO_RED = Asked("queue", "Red", "BACKOFF_RETRY", "SIMPLIFIED", [], [])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        broker = Broker(store, Limits())
        for name in ("Red", "Blue"):
            CmqQueues(broker, Rules()).create(name, Given(), NOW_US)
        yield store


@pytest.fixture
def topics(store: Store) -> CmqTopics:
    return made(store)


def made(store: Store, rules: Rules = Rules()) -> CmqTopics:
    return CmqTopics(Broker(store, Limits()), rules, MessageNames(bytearray(16)))


def publish(topics: CmqTopics, body: bytes, tags: list[str], key: str, now_us: int) -> int:
    [found] = topics.publish("news", [body], tags, key, now_us)
    return found


def bodies(store: Store, name: str) -> list[str]:
    batch = store.queue(name).group().receive(100, lease_ms=LONG)
    return sorted(bytes(one).decode() for one in batch)


def test_a_topic_lives_and_dies(topics: CmqTopics) -> None:
    made = topics.create("news", TopicFacts(max_size=2048))
    assert topics.page("ew", 0, 10) == (1, [(made, "news")])
    with pytest.raises(CmqError) as error:
        topics.create("NEWS", TopicFacts())
    assert error.value.fault is Fault.TOPIC_EXISTS
    topics.set("news", 4096, None, NOW_US)
    assert topics.describe("news")["facts"].max_size == 4096
    assert topics.subscribe("news", "one", TO_RED, NOW_US).startswith("subsc-")
    with pytest.raises(CmqError) as error:
        topics.delete("news")
    assert error.value.fault is Fault.HAS_SUBSCRIPTIONS
    topics.unsubscribe("news", "one")
    topics.delete("news")
    for call in (topics.delete, topics.describe):
        with pytest.raises(CmqError) as error:
            call("news")
        assert error.value.fault is Fault.NO_TOPIC
    assert topics.subscriptions("news") == {}


def test_tags_are_shared_by_one_at_least(topics: CmqTopics, store: Store) -> None:
    topics.create("news", TopicFacts())
    topics.subscribe("news", "some", TO_RED._replace(tags=["it's", "b", "c"]), NOW_US)
    topics.subscribe("news", "all", TO_RED._replace(endpoint="Blue"), NOW_US)
    for tags in (["it's"], ["x", "b"], ["x"], [], ["bc"], ["x", "y", "z", "c"]):
        publish(topics, ",".join(tags).encode() or b"none", tags, "", NOW_US)
    assert bodies(store, "Red") == ["it's", "x,b", "x,y,z,c"]
    assert len(bodies(store, "Blue")) == 6
    topics.resubscribe("news", "some", {"tags": ["x"]}, NOW_US + 5)
    for tags in (["b"], ["x"], ["y", "x"]):
        publish(topics, ",".join(tags).encode(), tags, "", NOW_US)
    assert bodies(store, "Red") == ["x", "y,x"]
    topics.resubscribe("news", "some", {"tags": []}, NOW_US + 6)
    publish(topics, b"any", [], "", NOW_US)
    assert bodies(store, "Red") == ["any"]
    assert topics.subscription("news", "some").changed_us == NOW_US + 6


def test_routing_keys_are_words(topics: CmqTopics, store: Store) -> None:
    topics.create("news", TopicFacts(filter_type=2))
    topics.subscribe("news", "some", TO_RED._replace(keys=["1.#.0", "*.b"]), NOW_US)
    for key in ("1.0", "1.2.3.0", "a.b", "a.b.c", "b", "1.0.1"):
        publish(topics, key.encode(), [], key, NOW_US)
    assert bodies(store, "Red") == ["1.0", "1.2.3.0", "a.b"]
    faults = {"": Fault.ROUTING_KEY, "." * 16: Fault.DOTS, "x" * 65: Fault.OUT_OF_RANGE}
    for key, fault in faults.items():
        with pytest.raises(CmqError) as error:
            publish(topics, b"m", [], key, NOW_US)
        assert error.value.fault is fault
    with pytest.raises(CmqError) as error:
        topics.subscribe("news", "none", TO_RED._replace(endpoint="Blue"), NOW_US)
    assert error.value.fault is Fault.BINDING_KEY


def test_the_id_of_a_published_message_is_the_one_that_is_received(
    topics: CmqTopics, store: Store
) -> None:
    topics.create("news", TopicFacts())
    topics.subscribe("news", "one", TO_RED, NOW_US)
    identity = publish(topics, b"m", ["a", "b"], "", NOW_US)
    attributes = store.queue("Red").group().receive(1).attributes(0)
    assert attributes.id == str(identity) and attributes.tag == "a"


@pytest.mark.parametrize(("asked", "fault"), [
    (TO_RED._replace(protocol="smtp"), Fault.PROTOCOL),
    (TO_RED._replace(strategy="NEVER"), Fault.STRATEGY),
    (TO_RED._replace(format="XML"), Fault.FORMAT),
    (TO_RED._replace(endpoint="Gone"), Fault.ENDPOINT),
    (TO_RED._replace(endpoint="no name"), Fault.ENDPOINT_FORMAT),
    (TO_RED._replace(tags=list("abcdef")), Fault.FILTER_TAGS),
    (TO_RED._replace(tags=["a,b"]), Fault.FILTER_TAG),
    (TO_RED._replace(keys=list("abcdef")), Fault.BINDING_KEYS),
    (TO_RED._replace(keys=["." * 16]), Fault.DOTS),
    (TO_RED._replace(protocol="http", endpoint="http://a b"), Fault.BLANKS),
    (TO_RED._replace(protocol="http", endpoint="ftp://a"), Fault.ENDPOINT_FORMAT),
    (TO_RED._replace(protocol="http", endpoint="http://user@host/"), Fault.ENDPOINT),
])  # fmt: skip
def test_subscriptions_that_cannot_be(topics: CmqTopics, asked: Asked, fault: Fault) -> None:
    topics.create("news", TopicFacts())
    with pytest.raises(CmqError) as error:
        topics.subscribe("news", "one", asked, NOW_US)
    assert error.value.fault is fault and topics.subscriptions("news") == {}


def test_what_is_there_already_and_what_is_not(topics: CmqTopics) -> None:
    topics.create("news", TopicFacts())
    topics.subscribe("news", "one", TO_RED, NOW_US)
    for name, fault in (("one", Fault.SUBSCRIPTION_EXISTS), ("1", Fault.SUBSCRIPTION_NAME)):
        with pytest.raises(CmqError) as error:
            topics.subscribe("news", name, TO_RED, NOW_US)
        assert error.value.fault is fault
    for call in (topics.unsubscribe, topics.subscription):
        with pytest.raises(CmqError) as error:
            call("news", "gone")
        assert error.value.fault is Fault.NO_SUBSCRIPTION_OF_NAME


def test_a_queue_gets_once_what_any_of_its_subscriptions_wants(
    topics: CmqTopics, store: Store
) -> None:
    topics.create("news", TopicFacts())
    topics.subscribe("news", "one", TO_RED._replace(tags=["a", "b"]), NOW_US)
    topics.subscribe("news", "two", TO_RED._replace(tags=["b", "c"]), NOW_US)

    def got() -> list[str]:
        for tag in ("a", "b", "c", "d"):
            publish(topics, tag.encode(), [tag], "", NOW_US)
        found = bodies(store, "Red")
        store.queue("Red").purge()
        return found

    assert got() == ["a", "b", "c"]
    topics.resubscribe("news", "two", {"tags": ["d"]}, NOW_US)
    assert got() == ["a", "b", "d"]
    topics.resubscribe("news", "one", {"tags": []}, NOW_US)
    assert got() == ["a", "b", "c", "d"]
    topics.unsubscribe("news", "one")
    assert got() == ["d"]
    topics.unsubscribe("news", "two")
    assert got() == []


def test_who_reaches_nobody_is_told_so_only_by_the_strict(store: Store) -> None:
    strict = made(store, STRICT)
    strict.create("news", TopicFacts())
    with pytest.raises(CmqError) as error:
        publish(strict, b"m", [], "", NOW_US)
    assert error.value.fault is Fault.NO_SUBSCRIPTION
    strict.subscribe("news", "one", TO_RED._replace(tags=["a"]), NOW_US)
    with pytest.raises(CmqError) as error:
        publish(strict, b"m", ["b"], "", NOW_US)
    assert error.value.fault is Fault.NO_MATCH
    publish(made(store), b"m", ["b"], "", NOW_US)


@pytest.mark.parametrize(("body", "tags", "fault"), [
    (b"", [], Fault.EMPTY_BODY), (b"x" * 1025, [], Fault.MESSAGE_SIZE),
    (b"x", list("abcdef"), Fault.TAGS),
    (b"x", [""], Fault.OUT_OF_RANGE), (b"x", ["x" * 65], Fault.OUT_OF_RANGE),
])  # fmt: skip
def test_messages_that_cannot_be(
    topics: CmqTopics, body: bytes, tags: list[str], fault: Fault
) -> None:
    topics.create("news", TopicFacts(max_size=1024))
    with pytest.raises(CmqError) as error:
        publish(topics, body, tags, "", NOW_US)
    assert error.value.fault is fault


def test_posts_look_as_cmq_s(topics: CmqTopics, store: Store) -> None:
    topics.create("news", TopicFacts())
    asked = Asked("http", "http://127.0.0.1:9/", "EXPONENTIAL_DECAY_RETRY", "JSON", [], [])
    number = topics.subscribe("news", "one", asked, NOW_US)
    found = topics.subscription("news", "one")
    assert topics.pushes.all()[number] == push_of("news", "one", found)
    identity = publish(topics, "wörd".encode(), ["a", "b"], "", NOW_US)
    queue = store.queue(found.queue, create=False)
    batch = queue.group().receive(1)
    assert topics.waiting(found) == 1
    pushed = topics.pushes.all()[number]
    head, body = post_of(pushed, queue.id, 0, NOW_US, bytes(batch[0]), batch.attributes(0))
    assert json.loads(body) == {
        "TopicOwner": 0, "topicName": "news", "subscriptionName": "one", "msgId": str(identity),
        "msgBody": "wörd", "publishTime": NOW_US // 1_000_000}
    assert head["x-cmq-message-tag"] == "a,b" and head["Content-Type"] == "text/plain"
    topics.resubscribe("news", "one", {"format": "SIMPLIFIED"}, NOW_US)
    pushed = topics.pushes.all()[number]
    head, body = post_of(pushed, queue.id, 0, NOW_US, b"\xff", Attributes(tag="ä\r\nx"))
    assert body == b"\xff" and head["x-cmq-message-tag"] == "???x"
    topics.unsubscribe("news", "one")
    assert topics.pushes.all() == {} and found.queue not in store.queues()


def test_when_a_post_is_tried_again() -> None:
    few = push.Subscription("q", "http://h/", "", strategy="cmq-backoff", format="cmq-json")
    gaps = [push.decide(few, 500, "", at, 0, 0.0) for at in range(1, 5)]
    assert [one.verdict for one in gaps] == [push.Verdict.AGAIN] * 3 + [push.Verdict.DROP]
    assert all(19_000 <= one.delay_ms <= 29_000 for one in gaps[:3])
    decay = push.Subscription("q", "http://h/", "", strategy="cmq-decay", format="cmq-json")
    assert [push.decide(decay, 0, "x", at, 0, 9.0).delay_ms for at in (1, 2, 3)] == [
        1000, 2000, 4000]
    assert push.decide(decay, 0, "x", 30, 0, 86_399.0).verdict is push.Verdict.AGAIN
    assert push.decide(decay, 0, "x", 30, 0, 86_400.0).verdict is push.Verdict.DROP
