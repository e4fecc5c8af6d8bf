"""Quotas of what waits, of access keys, and of topics."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock
from penstock.engine import Store
from penstock.server._wire import Gates
from penstock.server.broker.access import key_number
from penstock.server.broker.broker import Broker
from penstock.server.broker.limits import Limits
from penstock.server.broker.throttle import Quota, Quotas
from penstock.server.broker.topic import Topics

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import ask
from test_throttle import START, rule, until


@pytest.fixture
def quotas(tmp_path: Path) -> Iterator[Quotas]:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        yield Quotas(Broker(store, Limits()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store"), workers=2) as running:
        yield running


def test_what_waits_has_a_room_of_its_own(quotas: Quotas) -> None:
    store = quotas.store
    queue, other = store.queue("a/q"), store.queue("a/other")
    quotas.set("queue", "a/q", Quota(pending=5))
    quotas.set("namespace", "a", Quota(pending=10))
    ids = [queue.append(b"", due_us=1 << 52).pending for _ in range(3)]
    other.prepare(b"")
    assert [room[3] for room in quotas.plan().rooms] == [6, 2]
    for id in ids[:2]:
        store.pending.cancel(id)
    store.pending.move(ids[2], 1 << 51)
    assert [room[3] for room in quotas.plan().rooms] == [8, 4]
    made = Gates(bytearray(4096))
    made.replace([(8, 0, 0, 0, 1.0, False, False, True, 0, 0)], [(7, 0, -1)])
    made.leave_room(8, None, None, 2)
    assert [made.admit(7, 1, 0, START, waits=True) for _ in range(3)] == [0, 0, 500]
    assert made.admit(7, 1, 0, START) == 0


def test_the_rate_of_a_key_is_beside_those_of_queue_and_namespace(quotas: Quotas) -> None:
    made = Gates(bytearray(4096))
    made.replace([rule(8, 1, receives=1), rule(16, 5)], [(7, 1, -1)], [(key_number("AKID1"), 0)])
    mine, other = key_number("AKID1"), key_number("AKID2")
    assert made.count == 2
    # One of the burst and one on credit; another key goes on, until the queue's own rate ends.
    assert [made.admit(7, 1, 0, START, key=mine) for _ in range(3)] == [0, 0, 1001]
    assert [made.admit(7, 1, 0, START, key=other) for _ in range(5)] == [0] * 4 + [201]
    # In a queue that has no quota the key's counts all the same.
    assert made.admit(9, 1, 0, START, key=mine) == 1001
    assert made.admit(9, 1, 0, START, key=other) == made.admit(9, 1, 0, START) == 0
    for _ in range(2):
        assert made.may_receive(quotas.store, 9, 0, 5, START, key=mine) == (5, 0)
        made.received(9, 1, START, key=mine)
    assert made.may_receive(quotas.store, 9, 0, 5, START, key=mine) == (0, 1001)
    assert made.may_receive(quotas.store, 9, 0, 5, START, key=other) == (5, 0)
    quotas.set("key", "AKID1", Quota(messages_per_s=1))
    plan = quotas.plan()
    assert plan.keys == [(mine, 0)] and plan.members == [] and len(plan.rules) == 1


def test_a_quota_of_a_topic_is_for_its_partitions_together(quotas: Quotas) -> None:
    topics = Topics(quotas.broker)
    topics.create("n/t", 2)
    quotas.set("queue", "n/t", Quota(messages=10))
    for _ in range(3):
        topics.send("n/t", b"x")
    plan = quotas.plan()
    assert sorted(plan.members) == sorted((queue.id, 0, -1) for queue in topics.partitions("n/t"))
    assert [room[1] for room in plan.rooms] == [7]


def test_every_door_says_when_too_much_waits(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("later/q")
        client.topic("later/t").create()
        client.admin("quota.set", scope="namespace", name="later", quota={"pending": 2})
        queue.send(b"x", delay=1000)

        def refused(call: Callable[[], object]) -> bool:
            try:
                call()
            except penstock.ThrottledError as error:
                return error.retry_after_ms == 500
            return False

        def atomic() -> None:
            with client.atomic() as all_:
                all_.send(queue, b"x", delay=1000)

        path = "/v1/queues/later%2Fq/messages"
        body = {"body": "x", "delay_ms": 1000_000}
        until(lambda: all(ask(server, "POST", path, body)[0] == 429 for _ in range(8)))
        assert ask(server, "POST", path, {"body": "x", "half": True})[0] == 429
        part = {"messages": [{**body, "queue": "later/q"}]}
        assert ask(server, "POST", "/v1/atomic", part)[0] == 429
        assert refused(lambda: queue.send(b"x", delay=1000))
        assert refused(lambda: queue.send_many([b"x"], delay=1000))
        assert refused(queue.transaction(b"x").__enter__)
        assert refused(atomic)
        # What does not wait is not bound by it.
        queue.send(b"x")
        assert client.show("later/q")["pending"] >= 2
        for row in client.pending("later/q", limit=1000)["messages"]:
            client.cancel(row["id"])
        until(lambda: not refused(lambda: client.cancel(queue.send(b"x", delay=1000))))


def test_what_is_sent_to_a_topic_counts(server: Server) -> None:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        topic = client.topic("counted")
        topic.create(2)
        slow = {"messages_per_s": 0.01, "burst_s": 100}
        client.admin("quota.set", scope="queue", name="counted", quota=slow)

        def refused() -> bool:
            try:
                topic.send(b"x")
            except penstock.ThrottledError as error:
                return error.retry_after_ms > 0
            return False

        path = "/v1/topics/counted/messages"
        until(refused)
        until(lambda: all(ask(server, "POST", path, {"body": "x"})[0] == 429 for _ in range(8)))
