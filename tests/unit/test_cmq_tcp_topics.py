"""Publishing over CMQ's TCP, one by one and in batches, while subscriptions come and go."""

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_inside import Inside, play
from cmq_wire import BATCH_PUBLISH, PUBLISH, Cmq, Door, control, request
from penstock.server.broker.cmq.attributes import Rules
from server_process import Wire

ID, BODY = 1, 4
COMMIT, WITHIN_S = 2, 60


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("cmq"))
    with door.server:
        yield door


@pytest.fixture
def cmq(door: Door) -> Iterator[Cmq]:
    with door.connect() as wire:
        yield wire


def test_a_published_message_reaches_the_queues_that_want_it(door: Door, cmq: Cmq) -> None:
    red, every = door.queue("red"), door.queue("every")
    with control(door.data) as at:
        at.topics.topics.create("news")
        at.topics.topics.subscribe("news", red, kind="tag", source="red")
        at.topics.topics.subscribe("news", every)
    tagged = cmq.call(PUBLISH, [(1, b"news"), (2, b"m-red"), (3, b"red")])
    plain = cmq.call(BATCH_PUBLISH, [(1, b"news"), (2, b"1"), (2, b"2")])
    assert tagged.result == plain.result == 0 and len(plain.ids) == 2
    assert [(one[ID], one[BODY]) for one in cmq.take_many(red)] == [(tagged.ids[0], b"m-red")]
    assert [one[BODY] for one in cmq.take_many(every)] == [b"m-red", b"1", b"2"]
    missing = cmq.call(PUBLISH, [(1, b"nowhere"), (2, b"x")])
    assert (missing.result, missing.text) == (10600, "(10600)topic is not existed, or deleted")


def test_a_published_batch_is_one_frame_of_the_log_and_has_ids_in_order(
    door: Door, cmq: Cmq
) -> None:
    queue = door.queue("published")
    with control(door.data) as at:
        at.topics.topics.create("batches")
        at.topics.topics.subscribe("batches", queue, kind="tag", source="red")
        bodies = [b"%d" % number for number in range(16)]
        member = [(1, b"batches"), *((2, body) for body in bodies), (3, b"red")]
        sent = []
        for _ in range(3):
            before = at.broker.store.stat()["frames"]
            found = cmq.call(BATCH_PUBLISH, member)
            assert found.result == 0 and at.broker.store.stat()["frames"] == before + 1
            sent.append(found.ids)
        # The way is forgotten when any note changes, and found anew.
        at.queue("elsewhere")
        sent.append(cmq.call(BATCH_PUBLISH, member).ids)
    got = [cmq.take_many(queue) for _ in range(4)]
    assert [[one[ID] for one in batch] for batch in got] == sent
    assert [[one[BODY] for one in batch] for batch in got] == [bodies] * 4
    assert len({one for batch in sent for one in batch}) == 64
    refused = [(BATCH_PUBLISH, [(1, b"batches"), *[(2, b"x")] * 17], 10370),
               (BATCH_PUBLISH, [(1, b"batches"), (2, b"x"), (2, b"")], 10120),
               (BATCH_PUBLISH, [(1, b"batches"), *[(2, bytes(300_000))] * 15], 10300)]
    for command, fields, result in refused:
        assert cmq.call(command, fields).result == result
    assert cmq.take_many(queue) == []


def test_a_batch_that_is_published_while_subscriptions_change_is_whole(
    door: Door, cmq: Cmq
) -> None:
    queue = door.queue("whole")
    with control(door.data) as at:
        at.topics.topics.create("moving")
        at.topics.topics.subscribe("moving", queue)
        member = [(1, b"moving"), *((2, b"%d" % number) for number in range(16))]
        frames = b"".join(request(number, BATCH_PUBLISH, member) for number in range(10, 210))
        sending = threading.Thread(target=cmq.socket.sendall, args=(frames,))
        sending.start()
        for number in range(50):
            at.broker.store.note(f"some/{number}", b"x")
        sending.join()
        replies = [cmq.read() for _ in range(200)]
        assert {(one.result, len(one.ids)) for one in replies} == {(0, 16)}
        stat = at.broker.open(queue, create=False).stat()
        assert stat["visible"] - stat["first"] == 3200
        assert len({id for one in replies for id in one.ids}) == 3200


def test_a_subscription_that_begins_early_misses_nothing_that_is_published_meanwhile(
    door: Door, cmq: Cmq
) -> None:
    published = 3000
    with control(door.data) as at:
        at.topics.topics.create("stream")
        frames = b"".join(
            request(number, PUBLISH, [(1, b"stream"), (2, b"%d" % number), (3, b"t")])
            for number in range(10, 10 + published))
        sending = threading.Thread(target=cmq.socket.sendall, args=(frames,))
        reading = threading.Thread(
            target=lambda: results.extend(cmq.read().result for _ in range(published)))
        results: list[int] = []
        sending.start()
        reading.start()
        late = [f"late-{number}" for number in range(8)]
        for name in late:
            at.queue(name)
            at.topics.topics.subscribe("stream", name, start="earliest")
        sending.join()
        reading.join()
        assert set(results) == {0} and len(results) == published
        for name in late:
            stat = at.broker.open(name, create=False).stat()
            assert stat["visible"] - stat["first"] == published


def test_what_is_published_goes_by_the_subscriptions_that_stand_when_it_is_stored(
    tmp_path: Path
) -> None:
    def scene(doors: Inside) -> None:
        with control(tmp_path / "store") as at, Cmq(doors.tcp) as cmq:
            for name in ("old", "new"):
                at.queue(name)
            at.topics.topics.create("news")
            at.topics.topics.subscribe("news", "old")
            assert cmq.call(PUBLISH, [(1, b"news"), (2, b"1")]).result == 0
            doors.lane._hold(COMMIT, True)
            asked = cmq.send(BATCH_PUBLISH, [(1, b"news"), (2, b"2"), (2, b"3")])
            end = time.monotonic() + WITHIN_S
            while not doors.lane._holding(COMMIT):
                assert time.monotonic() < end
                time.sleep(0.001)
            at.topics.topics.subscribe("news", "new")
            doors.lane._hold(COMMIT, False)
            assert cmq.reply(asked).result == 0
            doors.store._flush()
            assert [one[BODY] for one in cmq.take_many("old")] == [b"1", b"2", b"3"]
            assert [one[BODY] for one in cmq.take_many("new")] == [b"2", b"3"]

    play(tmp_path / "store", Rules(), scene)


def test_a_subscribed_queue_that_is_made_again_gets_what_is_published_then(
    door: Door, cmq: Cmq
) -> None:
    with control(door.data) as at, Wire(door.server.tcp) as native:
        native.open("reborn")
        at.topics.topics.create("turns")
        at.topics.topics.subscribe("turns", "reborn")
        assert cmq.call(PUBLISH, [(1, b"turns"), (2, b"1")]).result == 0
        native.call(12, b'{"do": "queue.delete", "name": "reborn"}')
        assert cmq.call(PUBLISH, [(1, b"turns"), (2, b"2")]).result == 0
        native.open("reborn")
        assert cmq.call(PUBLISH, [(1, b"turns"), (2, b"3")]).result == 0
        assert [one[BODY] for one in cmq.take_many("reborn")] == [b"3"]
