"""The native door, from outside: a server process and raw frames."""

import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire, frame, messages_of, receive_payload, send_payload


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def test_a_message_goes_through_and_is_gone_when_confirmed(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("through")
        status, payload = wire.call(3, send_payload(queue, b"hello"))
        assert (status, payload) == (0, struct.pack("<QBBH", 0, 1, 0, 0))
        status, payload = wire.call(5, receive_payload(queue))
        [(receipt, body)] = messages_of(payload)
        assert body == b"hello" and receipt[:8] == bytes(8)
        assert wire.call(6, struct.pack("<I", 1) + receipt) == (0, struct.pack("<IB", 1, 0))
        assert wire.call(6, struct.pack("<I", 1) + receipt) == (0, struct.pack("<IB", 1, 1))
        assert messages_of(wire.call(5, receive_payload(queue))[1]) == []


def test_a_batch_and_a_read_that_does_not_consume(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("batch")
        bodies = [b"a", b"", b"ccc"]
        payload = struct.pack("<IBBHQII3I", queue, 1, 0, 0, 0, 3, 0, 1, 0, 3) + b"".join(bodies)
        assert wire.call(4, payload) == (0, struct.pack("<QBBHI", 0, 1, 0, 0, 3))
        places = [(0, 1, bodies[1:]), (2, 0, bodies), (3, 0, []), (1, 1, bodies)]
        for kind, value, expected in places:
            read = struct.pack("<IIQIIII", queue, kind, value, 10, 1 << 20, 0, 0)
            status, payload = wire.call(10, read)
            assert status == 0, payload
            assert [body for _, body in messages_of(payload)] == expected


def test_a_producer_that_repeats_itself_appends_once(server: Server) -> None:
    with Wire(server.tcp, producer=77) as wire:
        queue = wire.open("once")
        first = wire.call(3, send_payload(queue, b"x", sequence=1))
        again = wire.call(3, send_payload(queue, b"x", sequence=1))
        assert first == (0, struct.pack("<QBBH", 0, 1, 0, 0))
        assert again == (0, struct.pack("<QBBH", 0, 1, 1, 0))


def test_a_waiting_receiver_is_served_by_a_later_send(server: Server) -> None:
    with Wire(server.tcp) as waiting, Wire(server.tcp) as sending:
        queue = waiting.open("waiting")
        waiting.send(5, receive_payload(queue, wait_ms=5000))
        time.sleep(0.05)
        began = time.monotonic()
        sending.call(3, send_payload(queue, b"late"))
        assert [body for _, body in messages_of(waiting.reply()[3])] == [b"late"]
        assert time.monotonic() - began < 1


def test_a_waiting_receiver_gets_nothing_when_its_time_is_up(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("nothing")
        began = time.monotonic()
        assert wire.call(5, receive_payload(queue, wait_ms=200)) == (0, bytes(8))
        assert 0.15 < time.monotonic() - began < 1


def test_a_lease_that_runs_out_serves_who_waits(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("lease")
        wire.call(3, send_payload(queue, b"twice"))
        wire.call(5, receive_payload(queue, lease_ms=300))
        began = time.monotonic()
        status, payload = wire.call(5, receive_payload(queue, wait_ms=5000))
        assert [body for _, body in messages_of(payload)] == [b"twice"]
        assert time.monotonic() - began < 1.5


def test_a_release_serves_who_waits_and_extend_keeps(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("release")
        wire.call(3, send_payload(queue, b"back"))
        [(receipt, _)] = messages_of(wire.call(5, receive_payload(queue))[1])
        extend = struct.pack("<II", 1, 60000) + receipt
        assert wire.call(8, extend) == (0, struct.pack("<IB", 1, 0))
        wire.send(5, receive_payload(queue, wait_ms=5000))
        wire.send(7, struct.pack("<II", 1, 0) + receipt)
        replies = {reply[0]: reply for reply in (wire.reply(), wire.reply())}
        assert replies[0x87][3] == struct.pack("<IB", 1, 0)
        assert [body for _, body in messages_of(replies[0x85][3])] == [b"back"]


def test_seek_group_and_admin(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("seek")
        for body in (b"0", b"1", b"2"):
            wire.call(3, send_payload(queue, body))
        status, group = wire.call(11, struct.pack("<II", queue, 0) + b"audit")
        assert status == 0
        number = int.from_bytes(group, "little")
        receive = struct.pack("<IIIIII", queue, number, 10, 1 << 20, 30000, 0)
        assert len(messages_of(wire.call(5, receive)[1])) == 3
        status, payload = wire.call(9, struct.pack("<IIIIQ", queue, 0, 0, 0, 1))
        assert (status, struct.unpack("<QQ", payload)) == (0, (1, 2))
        status, payload = wire.call(12, json.dumps({"do": "queue.list"}).encode())
        assert status == 0 and "seek" in json.loads(payload)["queues"]
        status, payload = wire.call(12, json.dumps({"do": "queue.show", "name": "seek"}).encode())
        assert json.loads(payload)["next"] == 3


def session(queue: int) -> bytes:
    """Frames that cover the ordinary verbs, one after another."""
    batch = struct.pack("<IBBHQII2I", queue, 1, 0, 0, 0, 2, 0, 2, 1) + b"aab"
    return b"".join(
        [
            frame(1, 1, struct.pack("<4sHHQ", b"PNST", 1, 0, 0)),
            frame(13, 2, b"ping"),
            frame(3, 3, send_payload(queue, b"body")),
            frame(4, 4, batch),
            frame(99, 5, b"?"),
            frame(3, 6, send_payload(12345678, b"nowhere")),
            frame(13, 7, b"pong" * 100),
        ]
    )


def replies_to(server: Server, stream: bytes, step: int) -> list[tuple[int, int, int, int]]:
    with Wire(server.tcp, hello=False) as wire:
        wire.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(stream), step):
            wire.socket.sendall(stream[begin : begin + step])
        got = [wire.reply() for _ in range(7)]
    return sorted((tag, verb, status, len(payload)) for verb, status, tag, payload in got)


def test_whole_frames_and_single_bytes_get_the_same_answers(server: Server) -> None:
    with Wire(server.tcp) as wire:
        stream = session(wire.open("bytes"))
    whole = replies_to(server, stream, len(stream))
    assert whole == replies_to(server, stream, 1) == replies_to(server, stream, 7)
    assert [(tag, status) for tag, _, status, _ in whole] == [
        (1, 0), (2, 0), (3, 0), (4, 0), (5, 2), (6, 3), (7, 0),
    ]  # fmt: skip


HOSTILE = [
    (struct.pack("<I", 11) + bytes(12), 1),
    (struct.pack("<I", 1 << 31), 5),
    (frame(3, 1, b""), 1),
    (frame(1, 1, b"HTTP" + bytes(12)), 1),
    (b"GET / HTTP/1.1\r\n\r\n", 5),
    (struct.pack("<IBBHII", 12, 1, 1, 0, 0, 0), 1),
]


@pytest.mark.parametrize(("data", "expected"), HOSTILE)
def test_what_is_no_request_is_answered_once_and_closed(
    server: Server, data: bytes, expected: int
) -> None:
    with Wire(server.tcp, hello=False) as wire:
        wire.socket.sendall(data)
        assert wire.reply()[1] == expected
        assert wire.socket.recv(1) == b""


@pytest.mark.parametrize("verb", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 7, 8, 15, 16, 24, 32, 64])
def test_payloads_of_every_size_harm_nobody(server: Server, verb: int, size: int) -> None:
    with Wire(server.tcp) as wire:
        wire.send(verb, b"\xff" * size)
        assert wire.reply()[1] != 0


HOSTILE = ["", "a/b/c", "/b", "a/", "ü", "a b", "x" * 129, "a\n", "../etc", ".", "..", "a/.."]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_invalid(server: Server, name: str) -> None:
    with Wire(server.tcp) as wire:
        assert wire.call(2, struct.pack("<I", 1) + name.encode())[0] == 9


def test_connections_that_announce_much_cost_little(server: Server) -> None:
    before = server.rss_kib()
    connections = []
    for _ in range(800):
        wire = Wire(server.tcp)
        wire.socket.sendall(struct.pack("<IBBHII", 8 << 20, 3, 0, 0, 1, 0))
        connections.append(wire)
    time.sleep(0.2)
    grown = server.rss_kib() - before
    for wire in connections:
        wire.close()
    assert grown < 800 * 16


def test_a_slow_reader_does_not_grow_the_server(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("slow")
        for _ in range(8):
            wire.call(3, send_payload(queue, bytes(1 << 20), durability=0))
        before = server.rss_kib()
        read = struct.pack("<IIQIIII", queue, 0, 0, 100, 8 << 20, 0, 0)
        stream = b"".join(frame(10, tag, read) for tag in range(500))
        writer = threading.Thread(target=wire.socket.sendall, args=(stream,))
        writer.start()
        time.sleep(0.5)
        grown = server.rss_kib() - before
        for _ in range(500):
            assert len(wire.reply()[3]) > 1 << 20
        writer.join()
    assert grown < 64 << 10


def test_sigterm_answers_what_is_in_flight_and_keeps_it(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        with Wire(server.tcp) as wire:
            queue = wire.open("kept")
            waiting = Wire(server.tcp)
            waiting.send(5, receive_payload(wire.open("empty"), wait_ms=60000))
            time.sleep(0.05)
            for _ in range(100):
                wire.send(3, send_payload(queue, b"kept"))
            assert [wire.reply()[1] for _ in range(100)] == [0] * 100
            assert server.stop() == 0
            assert waiting.reply()[3] == bytes(8)
            waiting.close()
    with Server(tmp_path) as server, Wire(server.tcp) as wire:
        queue = wire.open("kept", create=False)
        assert len(messages_of(wire.call(5, receive_payload(queue, count=1000))[1])) == 100


def test_workers_share_one_store(tmp_path: Path) -> None:
    with Server(tmp_path, workers=2) as server:
        wires = [Wire(server.tcp) for _ in range(16)]
        queue = wires[0].open("shared")
        wires[0].send(5, receive_payload(queue, wait_ms=5000))
        for wire in wires[1:]:
            assert wire.call(3, send_payload(queue, b"m"))[0] == 0
        got = len(messages_of(wires[0].reply()[3]))
        while got < 15:
            got += len(messages_of(wires[3].call(5, receive_payload(queue, wait_ms=1000))[1]))
        for wire in wires:
            wire.close()
        assert server.stop() == 0


def test_a_named_group_is_moved_by_its_number(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue, other = wire.open("moved"), wire.open("moved-not")
        for body in (b"0", b"1", b"2"):
            wire.call(3, send_payload(queue, body))
        number = int.from_bytes(wire.call(11, struct.pack("<II", queue, 0) + b"audit")[1], "little")
        receive = struct.pack("<IIIIII", queue, number, 10, 1 << 20, 30000, 0)
        assert len(messages_of(wire.call(5, receive)[1])) == 3
        status, payload = wire.call(9, struct.pack("<IIIIQ", queue, number, 0, 0, 1))
        assert (status, struct.unpack("<QQ", payload)) == (0, (1, 2))
        assert [body for _, body in messages_of(wire.call(5, receive)[1])] == [b"1", b"2"]
        # The queue's own group stood still, and another queue has no group of that number.
        assert len(messages_of(wire.call(5, receive_payload(queue))[1])) == 3
        assert wire.call(9, struct.pack("<IIIIQ", other, number, 0, 0, 1))[0] == 3
        assert wire.call(9, struct.pack("<IIIIQ", queue, 0xFFFFFFFF, 0, 0, 1))[0] == 3


@pytest.mark.parametrize("group", [b"", b"audit"])
def test_a_delayed_release_wakes_who_waits_on_time(server: Server, group: bytes) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open(f"delayed-{group.decode()}")
        number = 0
        if group:
            named = wire.call(11, struct.pack("<II", queue, 0) + group)[1]
            number = int.from_bytes(named, "little")
        wire.call(3, send_payload(queue, b"back"))
        receive = struct.pack("<IIIII", queue, number, 10, 1 << 20, 30000)
        took = []
        for _ in range(3):
            payload = wire.call(5, receive + struct.pack("<I", 5000))[1]
            [(receipt, _)] = messages_of(payload)
            began = time.monotonic()
            assert wire.call(7, struct.pack("<II", 1, 30) + receipt)[0] == 0
            payload = wire.call(5, receive + struct.pack("<I", 5000))[1]
            took.append(time.monotonic() - began)
            [(receipt, body)] = messages_of(payload)
            assert body == b"back"
            wire.call(7, struct.pack("<II", 1, 0) + receipt)
        assert 0.025 < min(took) < 0.15
