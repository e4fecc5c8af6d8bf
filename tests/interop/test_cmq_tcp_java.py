"""CMQ over TCP with the real Java client, unmodified: each thing that it can do."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]
from cmq_wire import control
from java_driver import Driver, packed, require_driver
from server_process import Server, Wire, messages_of, receive_payload, send_payload

from penstock.server.broker.cmq.topics import TopicFacts

PLAIN, ASYNC = "", "async "
each_way = pytest.mark.parametrize("way", [PLAIN, ASYNC], ids=["sync", "async"])


class World:
    """A server, the client, and what an operator does in between."""

    def __init__(self, data: Path, method: str) -> None:
        self.data = data
        self.server = Server(data, cmq_tcp="127.0.0.1:0")
        with control(data) as at:
            pair = at.key()
        self.driver = Driver(self.server.http, pair.id, pair.secret, method)

    def queue(self, name: str, **given: object) -> str:
        with control(self.data) as at:
            at.queue(name, **given)
        return name


@pytest.fixture(scope="module", params=["HmacSHA256", "HmacSHA1"])
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[World]:
    require_driver()
    world = World(tmp_path_factory.mktemp("java"), request.param)
    with world.server, world.driver:
        yield world


@pytest.fixture
def java(world: World) -> Driver:
    return world.driver


def until(look: Callable[[], object]) -> None:
    """Wait until something is so, for the client's own threads."""
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


@each_way
def test_a_message_is_sent_received_and_deleted(world: World, java: Driver, way: str) -> None:
    queue = world.queue(f"one-{bool(way)}")
    sent = java.do(f"{way}send", queue, packed("hello 世界 TCP"), 0)
    assert sent.code == 0
    got = java.do(f"{way}receive", queue, 3)
    assert got.code == 0 and got.messages[0][::2] == (sent.ids[0], "hello 世界 TCP")
    assert java.do(f"{way}delete", queue, got.messages[0].handle).code == 0
    assert java.do(f"{way}delete", queue, got.messages[0].handle).code == 10260
    empty = java.do(f"{way}receive", queue, 0)
    assert (empty.code, empty.text) == (10200, "(10200)no message")


@each_way
def test_a_batch_is_sent_received_and_deleted(world: World, java: Driver, way: str) -> None:
    queue = world.queue(f"many-{bool(way)}")
    bodies = [f"body {number}" for number in range(16)]
    sent = java.do(f"{way}batch send", queue, 0, *map(packed, bodies))
    assert sent.code == 0 and len(sent.ids) == 16
    got = java.do(f"{way}batch receive", queue, 16, 3)
    assert [(one.id, one.body) for one in got.messages] == list(
        zip(sent.ids, bodies, strict=True))
    handles = [one.handle for one in got.messages]
    some = java.do(f"{way}batch delete", queue, *handles[:8], 77)
    assert some.code == 10150 and some.ids == [77]
    assert java.do(f"{way}batch delete", queue, *handles[8:]).code == 0
    none = java.do(f"{way}batch delete", queue, *handles)
    assert none.code == 10290 and none.ids == handles
    assert java.do(f"{way}batch receive", queue, 16, 0).code == 10200


@each_way
def test_what_is_refused_is_told_by_its_code(world: World, java: Driver, way: str) -> None:
    queue = world.queue(f"refusing-{bool(way)}", max_size=1024)
    large = java.do(f"{way}send", queue, packed("x" * 1025), 0)
    assert large.code == 10230 and large.text.startswith("(10230)")
    late = java.do(f"{way}send", queue, packed("x"), (1 << 31) - 1)
    assert (late.code or late.raised) and java.do(f"{way}receive", queue, 0).code == 10200


@each_way
def test_each_request_that_is_refused_says_why(world: World, java: Driver, way: str) -> None:
    queue = world.queue(f"saying-{bool(way)}", max_size=1024)
    topic, routes = f"strict-{bool(way)}", f"keyed-{bool(way)}"
    with control(world.data) as at:
        at.topics.create(topic, TopicFacts(max_size=1024))
        at.topics.create(routes, TopicFacts(filter_type=2))
    large = packed("x" * 1025)
    refusals = [
        (("batch send", queue, 0, packed("x"), large), 10230),
        (("batch send", queue, 0, *[packed("x")] * 17), 10370),
        (("batch receive", queue, 17, 0), 10370),
        (("delete", queue, 12345), 10260),
        (("batch delete", queue, 12345, 12346), 10290),
        (("publish by tags", topic, large, packed("t")), 10230),
        (("batch publish by tag", topic, "t", packed("x"), large), 10230),
        (("batch publish by tag", topic, "t", *[packed("x")] * 17), 10370),
        (("publish by key", routes, packed("x"), "." * 16), 10691),
        (("batch publish by key", routes, "." * 16, packed("x")), 10691),
    ]
    for (command, *words), code in refusals:
        found = java.do(way + command, *words)
        # The client refuses some of them itself.
        assert found.code == code or found.raised == "MQClientException", (command, found)
    with control(world.data) as at:
        at.queues.delete(queue)
    # The client has asked for the way to it before, so it asks the server itself.
    for command, *words in (("send", packed("x"), 0), ("batch send", 0, packed("x")),
                            ("receive", 0), ("batch receive", 16, 0), ("delete", 1),
                            ("batch delete", 1, 2)):
        found = java.do(way + command, queue, *words)
        assert found.code == 10100, (command, found)


def test_a_queue_that_is_not_there_has_no_route(java: Driver) -> None:
    found = java.do("send", "nowhere", packed("x"), 0)
    assert (found.raised, found.code) == ("MQServerException", 4040)


@each_way
def test_a_delayed_message_comes_when_it_is_time(world: World, java: Driver, way: str) -> None:
    queue = world.queue(f"delayed-{bool(way)}")
    sent = java.do(f"{way}send", queue, packed("later"), 2)
    assert java.do(f"{way}receive", queue, 0).code == 10200
    got = java.do(f"{way}receive", queue, 20)
    assert [(one.id, one.body) for one in got.messages] == [(sent.ids[0], "later")]


def test_a_message_that_is_not_deleted_comes_again_and_dies_after_some_times(
    world: World, java: Driver
) -> None:
    dead = world.queue("dead")
    queue = world.queue("again", visibility_s=1, dead_letter=dead, max_receive=2)
    java.do("send", queue, packed("poison"), 0)
    first = java.do("receive", queue, 10).messages[0]
    second = java.do("receive", queue, 10).messages[0]
    assert second.id == first.id and second.handle != first.handle
    assert java.do("delete", queue, first.handle).code == 10260
    java.tell("receive", queue, 15)
    assert java.do("receive", dead, 20).messages[0].body == "poison"


@each_way
def test_a_published_message_reaches_the_queues_that_want_it(
    world: World, java: Driver, way: str
) -> None:
    mark = bool(way)
    red, every = world.queue(f"red-{mark}"), world.queue(f"every-{mark}")
    with control(world.data) as at:
        at.topics.create(f"news-{mark}", TopicFacts())
        at.topics.create(f"routes-{mark}", TopicFacts(filter_type=2))
    topic, routes = f"news-{mark}", f"routes-{mark}"
    assert java.do("create subscription", topic, "red", red, "red", "").value
    assert java.do("create subscription", topic, "every", every, "", "").value
    assert java.do("create subscription", routes, "few", red, "", "1.*.0,2.#").value
    assert java.do(f"{way}publish by tags", topic, packed("m-red"), packed("red")).code == 0
    assert java.do(f"{way}publish by tags", topic, packed("m-blue"), packed("blue")).code == 0
    batch = java.do(f"{way}batch publish by tag", topic, "red", packed("b1"), packed("b2"))
    assert batch.code == 0 and len(batch.ids) == 2
    keyed = java.do(f"{way}batch publish by key", routes, "2.b", packed("b3"), packed("b4"))
    assert keyed.code == 0 and len(keyed.ids) == 2
    for key, body in (("1.x.0", "k1"), ("1.0", "no"), ("2.a.b.c", "k2")):
        assert java.do(f"{way}publish by key", routes, packed(body), key).code == 0

    def bodies(queue: str) -> list[str]:
        got = java.do("batch receive", queue, 16, 2)
        java.do("batch delete", queue, *(one.handle for one in got.messages))
        return sorted(one.body for one in got.messages)

    assert bodies(red) == ["b1", "b2", "b3", "b4", "k1", "k2", "m-red"]
    assert bodies(every) == ["b1", "b2", "m-blue", "m-red"]
    assert java.do("delete subscription", topic, "red").code == 0
    again = java.do("delete subscription", topic, "red")
    assert again.raised and again.code in (4440, 10600)
    assert java.do(f"{way}publish by tags", topic, packed("late"), packed("red")).code == 0
    assert bodies(red) == [] and bodies(every) == ["late"]


def test_a_listener_gets_everything_and_acknowledges_it(world: World, java: Driver) -> None:
    queue = world.queue("listening", visibility_s=2)
    assert java.do("subscribe", queue).code == 0
    sent = []
    for turn in range(10):
        sent += java.do("batch send", queue, 0, *(packed(f"{turn}-{n}") for n in range(16))).ids
    until(lambda: len({one.id for one in java.do("heard", queue).messages}) == 160)
    assert {one.id for one in java.do("heard", queue).messages} == set(sent)
    with Wire(world.server.tcp) as native:
        number = native.open(queue)
        until(lambda: facts(native, queue)["floor"] == 160)
        assert messages_of(native.call(5, receive_payload(number))[1]) == []
    assert java.do("unsubscribe", queue).code == 0


def facts(native: Wire, queue: str) -> dict[str, int]:
    status, payload = native.call(12, json.dumps({"do": "queue.show", "name": queue}).encode())
    assert status == 0
    found: dict[str, int] = json.loads(payload)
    return found


@pytest.mark.parametrize("local, checker, comes", [
    ("SUCCESS", "", True), ("FAIL", "", False),
    ("UN_KNOW", "SUCCESS", True), ("UN_KNOW", "FAIL", False),
])  # fmt: skip
def test_a_transaction_ends_as_its_work_or_its_checker_says(
    world: World, java: Driver, local: str, checker: str, comes: bool
) -> None:
    queue = world.queue(f"tx-{local[:2]}-{checker or 'none'}", transaction=True)
    sent = java.do("transaction", queue, packed("half"), local, checker, 1)
    assert sent.code == 0 and sent.more == local
    if checker:
        until(lambda: str(sent.ids[0]) in java.do("asked").value.split(","))
    got = java.do("receive", queue, 10 if comes else 2)
    assert [(one.id, one.body) for one in got.messages] == (
        [(sent.ids[0], "half")] if comes else [])


def test_a_batch_of_transactions_ends_each_as_its_work_says(world: World, java: Driver) -> None:
    queue = world.queue("tx-many", transaction=True)
    sent = java.do("transactions", queue, "SUCCESS", 1, packed("yes"), "SUCCESS", packed("no"),
                   "FAIL", packed("asked"), "UN_KNOW")
    assert sent.code == 0 and len(sent.ids) == 3
    until(lambda: str(sent.ids[2]) in java.do("asked").value.split(","))
    found: dict[int, str] = {}
    while len(found) < 2:
        for one in java.do("batch receive", queue, 16, 10).messages:
            found[one.id] = one.body
    assert found == {sent.ids[0]: "yes", sent.ids[2]: "asked"}


def test_a_queue_without_transactions_says_so(world: World, java: Driver) -> None:
    queue = world.queue("tx-plain")
    found = java.do("transaction", queue, packed("half"), "SUCCESS", "", 1)
    assert found.code == 10790 or "10790" in found.text


def test_messages_cross_to_the_native_client_and_back(world: World, java: Driver) -> None:
    queue = world.queue("crossing")
    with Wire(world.server.tcp) as native:
        number = native.open(queue)
        native.call(3, send_payload(number, "von hier".encode()))
        assert java.do("receive", queue, 3).messages[0].body == "von hier"
        java.do("send", queue, packed("from java"), 0)
        [(_, body)] = messages_of(native.call(5, receive_payload(number, wait_ms=5000))[1])
        assert body == b"from java"


def test_queues_are_managed_over_the_same_client(world: World, java: Driver) -> None:
    assert java.do("create queue", "managed", 40, 5).value
    again = java.do("create queue", "managed", 40, 5)
    assert again.raised and again.code in (4460, 4000, 10210)
    visibility, polling, size, rewind, active, inactive = map(
        int, java.do("attributes", "managed").value.split(","))
    assert (visibility, polling, size, rewind, active, inactive) == (40, 5, 65536, 3600, 0, 0)
    java.do("send", "managed", packed("x"), 0)
    assert java.do("attributes", "managed").value.split(",")[4] == "1"
    assert java.do("list queues", "manage").value == "managed"
    assert int(java.do("count queues", "manage").value) == 1
    assert java.do("delete queue", "managed").code == 0
    assert java.do("list queues", "manage").value == ""


def test_a_server_that_starts_again_in_the_middle_loses_nothing(tmp_path: Path) -> None:
    require_driver()
    world = World(tmp_path, "HmacSHA256")
    with world.driver as java:
        queue = world.queue("restarted", visibility_s=2)
        sent = {java.do("send", queue, packed("before"), 0).ids[0]}
        with world.server:
            world.server.process.send_signal(signal.SIGKILL)
            world.server.process.wait(20)
        same = {
            name: f"127.0.0.1:{getattr(world.server, name)}" for name in ("tcp", "http")}
        world.server = Server(tmp_path, **same, cmq_tcp=f"127.0.0.1:{world.server.cmq}")
        with world.server:
            until(lambda: (found := java.do("send", queue, packed("after"), 0)).code == 0
                  and not found.raised and sent.add(found.ids[0]) is None)
            found: dict[int, str] = {}
            while len(found) < 2:
                for one in java.do("batch receive", queue, 16, 5).messages:
                    found[one.id] = one.body
            assert set(found) == sent and set(found.values()) == {"before", "after"}
