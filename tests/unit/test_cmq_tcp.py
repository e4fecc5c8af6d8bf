"""CMQ over TCP, from outside: a server process and raw frames."""

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_wire import (
    BATCH_PULL,
    BATCH_SEND,
    COMMIT,
    HEARTBEAT,
    PULL,
    ROLLBACK,
    SEND,
    Cmq,
    Door,
    Reply,
    control,
    packed,
)
from server_process import Server, Wire, messages_of, receive_payload, send_payload

ID, HANDLE, BODY, ENQUEUED, VISIBLE, FIRST, COUNT, ORIGIN, ORIGIN_TIME, ORIGIN_COUNT = (
    1, 3, 4, 5, 6, 7, 8, 9, 10, 11)


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("cmq"))
    with door.server:
        yield door


@pytest.fixture
def cmq(door: Door) -> Iterator[Cmq]:
    with door.connect() as wire:
        yield wire


def test_a_message_goes_through_and_is_gone_when_deleted(door: Door, cmq: Cmq) -> None:
    queue = door.queue("through", visibility_s=40)
    sent = cmq.put(queue, "hello 世界".encode())
    assert sent.result == 0 and len(sent.ids) == 1 and sent.ids[0] < 1 << 63
    [message] = cmq.take(queue)
    assert message[BODY].decode() == "hello 世界" and message[ID] == sent.ids[0]
    assert message[COUNT] == 1 and message[HANDLE] < 1 << 63
    assert 0 <= message[FIRST] - message[ENQUEUED] < 30
    assert 39 <= message[VISIBLE] - message[FIRST] <= 41
    assert ORIGIN not in message
    assert cmq.delete(queue, message[HANDLE]).result == 0
    late = cmq.delete(queue, message[HANDLE])
    assert (late.result, late.text) == (10260, "(10260)receipt handle is invalid")
    empty = cmq.call(PULL, [(1, queue.encode()), (2, 0)])
    assert (empty.result, empty.text, empty.messages) == (10200, "(10200)no message", [])


def test_a_batch_keeps_its_order_and_is_deleted_as_one(door: Door, cmq: Cmq) -> None:
    queue = door.queue("batch")
    bodies = [b"a", b"bb", b"ccc"]
    sent = cmq.call(BATCH_SEND, [(1, queue.encode()), *((2, body) for body in bodies)])
    found = cmq.take_many(queue)
    assert [one[BODY] for one in found] == bodies and [one[ID] for one in found] == sent.ids
    handles = [one[HANDLE] for one in found]
    assert len(set(handles)) == 3 and cmq.delete(queue, *handles).result == 0
    some = cmq.delete(queue, *handles)
    assert some.result == 10290
    assert [one[1] for one in some.failed] == handles
    assert {(one[2], one[3]) for one in some.failed} == {
        (10260, b"(10260)receipt handle is invalid")}


def test_a_batch_that_is_deleted_in_part_tells_which_part(door: Door, cmq: Cmq) -> None:
    queue = door.queue("part")
    cmq.call(BATCH_SEND, [(1, queue.encode()), (2, b"x"), (2, b"y")])
    one, two = (found[HANDLE] for found in cmq.take_many(queue))
    found = cmq.delete(queue, one, 12345, two)
    assert found.result == 10150 and [each[1] for each in found.failed] == [12345]
    assert cmq.take_many(queue) == []


def test_a_message_comes_again_under_another_handle_when_its_time_is_up(
    door: Door, cmq: Cmq
) -> None:
    queue = door.queue("again", visibility_s=1)
    cmq.put(queue, b"x")
    [first] = cmq.take(queue)
    [second] = cmq.take(queue, wait_s=10)
    assert (second[ID], second[COUNT]) == (first[ID], 2) and second[HANDLE] != first[HANDLE]
    assert cmq.delete(queue, first[HANDLE]).result == 10260
    assert cmq.delete(queue, second[HANDLE]).result == 0


def test_a_pull_may_say_another_visibility_than_its_queue(door: Door, cmq: Cmq) -> None:
    queue = door.queue("lease", visibility_s=3600)
    cmq.put(queue, b"x")
    [first] = cmq.take(queue, lease_s=1)
    [second] = cmq.take(queue, wait_s=10)
    assert second[ID] == first[ID]
    assert second[VISIBLE] - second[ENQUEUED] > 3000


def test_sixteen_polls_wait_on_one_connection_and_nothing_waits_for_them(
    door: Door, cmq: Cmq
) -> None:
    idle, busy = door.queue("idle"), door.queue("busy")
    parked = [cmq.send(BATCH_PULL, [(1, idle.encode()), (2, 16), (3, 20)]) for _ in range(16)]
    for turn in range(20):
        assert cmq.put(busy, b"%d" % turn).result == 0
    assert [one[BODY] for one in cmq.take_many(busy, 16)] == [b"%d" % turn for turn in range(16)]
    cmq.put(idle, b"late")
    # One of them got it; the others wait on.
    seqno = parked[0]
    assert [one[BODY] for one in cmq.reply(seqno).messages] == [b"late"]
    for seqno in parked[1:]:
        cmq.put(idle, b"%d" % seqno)
        assert [one[BODY] for one in cmq.reply(seqno).messages] == [b"%d" % seqno]


def test_a_wait_ends_with_nothing_when_its_time_is_up(door: Door, cmq: Cmq) -> None:
    queue = door.queue("nothing", polling_s=1)
    began = time.monotonic()
    # One that says nothing waits as its queue says.
    assert cmq.call(PULL, [(1, queue.encode())]).result == 10200
    assert 0.9 < time.monotonic() - began
    assert cmq.take(queue, wait_s=0) == []


def test_a_delayed_message_comes_when_its_time_is_there_under_the_id_that_was_told(
    door: Door, cmq: Cmq
) -> None:
    queue = door.queue("delayed")
    sent = cmq.put(queue, b"later", delay_s=1)
    more = cmq.call(BATCH_SEND, [(1, queue.encode()), (2, b"1"), (2, b"2"), (3, 1)])
    assert cmq.take(queue) == []
    found = []
    while len(found) < 3:
        found += cmq.take_many(queue, 16, wait_s=10)
    assert {one[ID]: one[BODY] for one in found} == dict(
        zip(sent.ids + more.ids, [b"later", b"1", b"2"], strict=True))


@pytest.mark.parametrize("state, told", [(COMMIT, [b"half"]), (ROLLBACK, [])])
def test_a_half_is_seen_when_it_is_committed_and_never_when_it_is_rolled_back(
    door: Door, cmq: Cmq, state: int, told: list[bytes]
) -> None:
    queue = door.queue(f"half-{state}", transaction=True)
    sent = cmq.put(queue, b"half", half=1, first_check=3000)
    assert sent.result == 0
    assert cmq.take(queue) == []
    assert cmq.confirm(queue, state, *sent.ids).result == 0
    found = cmq.take(queue)
    assert [one[BODY] for one in found] == told
    assert [one[ID] for one in found] == (sent.ids if told else [])


def test_a_batch_of_halves_is_decided_one_by_one(door: Door, cmq: Cmq) -> None:
    queue = door.queue("halves", transaction=True)
    bodies = [b"x" * size for size in (1, 700, 9, 8, 4000)]
    sent = cmq.call(BATCH_SEND, [(1, queue.encode()), *((2, body) for body in bodies), (4, 1)])
    assert len(sent.ids) == 5
    assert cmq.confirm(queue, COMMIT, sent.ids[1], sent.ids[4]).result == 0
    assert cmq.confirm(queue, ROLLBACK, sent.ids[0]).result == 0
    found = cmq.take_many(queue)
    assert [(one[ID], one[BODY]) for one in found] == [
        (sent.ids[1], bodies[1]), (sent.ids[4], bodies[4])]
    # Said again it is so already; said otherwise it is refused.
    assert cmq.confirm(queue, COMMIT, sent.ids[1]).result == 0
    assert cmq.confirm(queue, ROLLBACK, sent.ids[1]).result == 10750


def test_a_half_that_nobody_decides_is_asked_about_until_somebody_does(
    door: Door, cmq: Cmq
) -> None:
    queue = door.queue("asked", transaction=True, first_query_s=1)
    sent = cmq.put(queue, b"asked", half=1, first_check=1)
    seqno = cmq.send(PULL, [(1, queue.encode()), (2, 20)])
    while not cmq.asked:
        assert not cmq.early
        cmq.call(HEARTBEAT)
        time.sleep(0.05)
    assert cmq.asked == [(queue.encode(), sent.ids[0])]
    cmq.confirm(queue, COMMIT, sent.ids[0])
    assert [one[BODY] for one in cmq.reply(seqno).messages] == [b"asked"]


def test_a_confirm_after_a_restart_finds_its_half(tmp_path: Path) -> None:
    door = Door(tmp_path)
    with door.server, door.connect() as cmq:
        queue = door.queue("kept", transaction=True)
        sent = cmq.call(
            BATCH_SEND, [(1, queue.encode()), (2, b"one"), (2, b"two"), (4, 1), (5, 3600)])
        door.server.process.send_signal(signal.SIGKILL)
        door.server.process.wait(20)
    door = Door(tmp_path)
    with door.server, door.connect() as cmq:
        assert cmq.confirm(queue, COMMIT, sent.ids[1]).result == 0
        assert [(one[ID], one[BODY]) for one in cmq.take_many(queue)] == [(sent.ids[1], b"two")]
        assert cmq.confirm(queue, COMMIT, 1 << 62).result == 10770


def test_any_worker_takes_the_verdict_on_a_half_of_another(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2, cmq_tcp="127.0.0.1:0") as server, ExitStack() as stack:
        with control(tmp_path) as at:
            at.queue("shared", transaction=True, first_query_s=3600)
        # The kernel deals connections out: of so many each worker has some.
        wires = [stack.enter_context(Cmq(server.cmq)) for _ in range(12)]
        sent = [wire.put("shared", b"%d" % at, half=1) for at, wire in enumerate(wires)]
        for at, found in enumerate(sent):
            assert wires[at - 5].confirm("shared", COMMIT, *found.ids).result == 0
        told = {}
        while len(told) < len(sent):
            told |= {one[ID]: one[BODY] for one in wires[0].take_many("shared", wait_s=20)}
        assert told == {found.ids[0]: b"%d" % at for at, found in enumerate(sent)}


def test_a_queue_without_transactions_refuses_halves(door: Door, cmq: Cmq) -> None:
    queue = door.queue("plain")
    found = cmq.put(queue, b"x", half=1)
    assert (found.result, found.text) == (10790, "(10790)transaction not supported by this queue")


def test_a_dead_letter_tells_where_it_was(door: Door, cmq: Cmq) -> None:
    dead = door.queue("dead")
    queue = door.queue("dying", visibility_s=1, dead_letter=dead, max_receive=1)
    sent = cmq.put(queue, b"poison")
    [first] = cmq.take(queue)
    cmq.send(PULL, [(1, queue.encode()), (2, 20)])
    [found] = cmq.take(dead, wait_s=20)
    assert found[BODY] == b"poison" and found[ORIGIN].startswith(b"queue-")
    assert found[ORIGIN_COUNT] == 1 and found[ORIGIN_TIME] == first[ENQUEUED]
    assert sent.result == 0


def test_a_full_heap_takes_no_more_until_something_is_deleted(door: Door, cmq: Cmq) -> None:
    queue = door.queue("heap", heap=3)
    assert [cmq.put(queue, b"x").result for _ in range(5)] == [0, 0, 0, 10240, 10240]
    assert cmq.delete(queue, *(one[HANDLE] for one in cmq.take_many(queue, 2))).result == 0
    while cmq.put(queue, b"y").result:
        time.sleep(0.02)
    many = cmq.call(BATCH_SEND, [(1, queue.encode()), (2, b"1"), (2, b"2")])
    assert many.result == 10240


def test_messages_cross_to_the_native_protocol_and_back(door: Door, cmq: Cmq) -> None:
    queue = door.queue("crossing")
    with Wire(door.server.tcp) as native:
        number = native.open(queue)
        native.call(3, send_payload(number, b"from native"))
        cmq.put(queue, b"from cmq")
        [one, two] = cmq.take_many(queue)
        assert (one[BODY], two[BODY]) == (b"from native", b"from cmq")
        cmq.delete(queue, one[HANDLE])
        cmq.put(queue, b"third")
        [(_, body)] = messages_of(native.call(5, receive_payload(number))[1])
        assert body == b"third"


def test_a_queue_that_changes_is_served_as_it_is_now(door: Door, cmq: Cmq) -> None:
    queue = door.queue("changing", max_size=2000)
    assert cmq.put(queue, bytes(1500)).result == 0
    with control(door.data) as at:
        from penstock.server.broker.cmq.attributes import Given

        at.queues.set(queue, Given(max_size=1024), 2)
    assert cmq.put(queue, bytes(1500)).result == 10230
    with control(door.data) as at:
        at.queues.delete(queue)
    assert cmq.put(queue, b"x").result == 10100
    door.queue("changing")
    assert cmq.put(queue, bytes(1500)).result == 0


def test_a_server_that_stops_answers_who_waits(tmp_path: Path) -> None:
    door = Door(tmp_path)
    with door.server, door.connect() as cmq:
        queue = door.queue("stopping")
        parked = [cmq.send(PULL, [(1, queue.encode()), (2, 30)]) for _ in range(3)]
        sent = cmq.send(SEND, [(1, queue.encode()), (2, b"last")])
        assert cmq.reply(sent).result == 0
        [first, *others] = parked
        assert cmq.reply(first).result == 0
        assert door.server.stop() == 0
        assert [cmq.reply(seqno).result for seqno in others] == [10200, 10200]


def test_every_reply_has_a_number_of_its_own(cmq: Cmq) -> None:
    numbers = [cmq.call(HEARTBEAT).request_id for _ in range(10)]
    assert len(set(numbers)) == 10


def test_a_reply_is_read_as_it_was_written() -> None:
    found = Reply(packed([(1, 3), (2, SEND), (3, 0), (10, 9), (29, 5), (29, 6)]))
    assert (found.seqno, found.result, found.ids) == (3, 0, [5, 6])
