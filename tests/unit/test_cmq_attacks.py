"""CMQ over TCP as nobody should speak it: refused by name, and nobody else is hurt."""

import random
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_wire import (
    AUTH,
    BATCH_PUBLISH,
    BATCH_PULL,
    BATCH_SEND,
    CONFIRM,
    DELETE,
    HEARTBEAT,
    PUBLISH,
    PULL,
    SEND,
    Cmq,
    Door,
    control,
    framed,
    packed,
    request,
    signed,
)
from server_process import Server


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door(tmp_path_factory.mktemp("attacked"))
    with door.server:
        yield door


@pytest.fixture
def cmq(door: Door) -> Iterator[Cmq]:
    with door.connect() as wire:
        yield wire


REFUSED = [
    (SEND, [(1, b"none"), (2, b"x")], 10100),
    (SEND, [(1, b"n" * 200), (2, b"x")], 10020),
    (SEND, [(1, b"\xff\xfe"), (2, b"x")], 10420),
    (SEND, [(2, b"x")], 10010),
    (SEND, [(1, b"bad"), (2, b"")], 10120),
    (SEND, [(1, b"bad")], 10120),
    (SEND, [(1, b"bad"), (2, b"x"), (3, 1 << 40)], 10692),
    (SEND, [(1, b"bad"), (2, b"x"), (4, 7)], 10350),
    (SEND, [(1, b"bad"), (2, bytes(2000))], 10230),
    (SEND, None, 10010),
    (BATCH_SEND, [(1, b"bad"), *[(2, b"x")] * 17], 10370),
    (BATCH_SEND, [(1, b"bad"), (2, b"x"), (2, b"")], 10120),
    (PULL, [(2, 1)], 10010),
    (PULL, [(1, b"none")], 10100),
    (PULL, [(1, b"bad"), (3, 1 << 30)], 10350),
    (BATCH_PULL, [(1, b"bad")], 10010),
    (BATCH_PULL, [(1, b"bad"), (2, 0)], 10370),
    (BATCH_PULL, [(1, b"bad"), (2, 17)], 10370),
    (DELETE, [(1, b"bad")], 10010),
    (DELETE, [(1, b"bad"), (2, 1), (2, 2)], 10370),
    (DELETE, [(1, b"bad"), (2, (1 << 64) - 1)], 10260),
    (DELETE, [(1, b"none"), (2, 1)], 10100),
    (PUBLISH, [(2, b"x")], 10010),
    (PUBLISH, [(1, b"t"), (2, b"")], 10120),
    (BATCH_PUBLISH, [(1, b"t"), *[(2, b"x")] * 17], 10370),
    (CONFIRM, [(1, b"bad")], 10010),
    (CONFIRM, [(1, b"bad"), (2, packed([(1, 5), (2, 3)]))], 10350),
    (CONFIRM, [(1, b"bad"), (2, packed([(1, 5), (2, 1)]))], 10770),
    (CONFIRM, [(1, b"bad"), (2, b"\xff")], 10420),
    (1005, [(1, b"bad"), (2, b"x")], 10430),
    (1100, None, 10430),
    (7, None, 10430),
]


@pytest.mark.parametrize("command, member, result", REFUSED)
def test_what_cannot_be_is_refused_by_its_code_and_the_connection_goes_on(
    door: Door, cmq: Cmq, command: int, member: list[tuple[int, int | bytes]] | None, result: int
) -> None:
    with control(door.data) as at:
        if "bad" not in at.broker.names():
            at.queue("bad", max_size=1024)
    found = cmq.call(command, member)
    assert (found.command, found.result) == (command, result), found.text
    assert found.text.startswith(f"({result})")
    assert cmq.call(HEARTBEAT).result == 0


def test_only_an_auth_that_is_signed_gets_in(tmp_path: Path) -> None:
    with Server(tmp_path, cmq_tcp="127.0.0.1:0") as server:
        with control(tmp_path) as at:
            pair = at.key()
        client = "10.77.0.9@m"
        for method in ("HmacSHA1", "HmacSHA256"):
            good = signed(pair.id, pair.secret, client, method)
            with Cmq(server.cmq, auth=good) as cmq:
                assert cmq.call(AUTH, good).result == 307
                assert cmq.put("none", b"x").result == 10100
            for number, wrong, result in (
                (1, b"AKIDother", 10270), (2, b"AAAA", 10030), (3, b"other", 10030),
                (4, b"HmacMD5", 10030),
            ):
                bad = [(n, wrong if n == number else value) for n, value in good]
                with Cmq(server.cmq, admit=False) as cmq:
                    assert cmq.call(AUTH, bad).result == result
                    with pytest.raises(ConnectionError):
                        cmq.read()
            with Cmq(server.cmq, admit=False) as cmq:
                assert cmq.call(AUTH, good[:3]).result == 10010


def test_nothing_is_done_before_the_auth(door: Door) -> None:
    for command in (SEND, PULL, CONFIRM, PUBLISH, 1005, 4711):
        with Cmq(door.server.cmq, admit=False) as cmq:
            assert cmq.call(HEARTBEAT).result == 0
            found = cmq.call(command, [(1, b"through"), (2, b"x")])
            assert (found.result, found.text) == (306, "(10031)connection not authenticated")
            with pytest.raises(ConnectionError):
                cmq.read()


def test_requests_behind_the_auth_need_not_wait_for_it(door: Door) -> None:
    queue = door.queue("eager")
    stream = request(2, AUTH, signed("AKID", "any", "c")) + b"".join(
        request(number, SEND, [(1, queue.encode()), (2, b"%d" % number)]) for number in range(3, 9))
    for step in (len(stream), 1, 7):
        with Cmq(door.server.cmq, admit=False) as cmq:
            for at in range(0, len(stream), step):
                cmq.socket.sendall(stream[at:at + step])
            for number in range(2, 9):
                assert cmq.reply(number).result == 0


BROKEN = {
    "magic": b"\1\0" + struct.pack("<I", 20) + bytes(14),
    "short": b"\0\0" + struct.pack("<I", 5),
    "huge": b"\0\0" + struct.pack("<I", 1 << 31),
    "no number": framed(packed([(2, SEND)])),
    "no command": framed(packed([(1, 5)])),
    "cut varint": framed(b"\x08\xff"),
    "long varint": framed(b"\x08" + b"\xff" * 10 + b"\x01"),
    "lying length": framed(packed([(1, 5), (2, SEND)]) + b"\xc2\x0c\x7f\x0a"),
    "group": framed(packed([(1, 5), (2, SEND)]) + b"\x0b"),
    "wrong kind": framed(packed([(1, b"5"), (2, SEND)])),
    "empty": framed(b""),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_frame_is_told_so_once_and_ends_the_connection(door: Door, name: str) -> None:
    with door.connect() as cmq:
        cmq.socket.sendall(BROKEN[name])
        found = cmq.read()
        assert found.result == 10420
        with pytest.raises(ConnectionError):
            cmq.read()


def test_a_frame_that_announces_more_than_may_be_is_refused_before_it_comes(door: Door) -> None:
    before = door.server.rss_kib()
    with door.connect() as cmq:
        cmq.socket.sendall(b"\0\0" + struct.pack("<I", (8 << 20) + 1))
        assert cmq.read().result == 10420
    assert door.server.rss_kib() - before < 8 << 10


def test_who_is_not_authenticated_may_say_little(door: Door) -> None:
    with Cmq(door.server.cmq, admit=False) as cmq:
        cmq.socket.sendall(b"\0\0" + struct.pack("<I", 5000))
        assert cmq.read().result == 10420


def test_a_peer_that_does_not_read_keeps_the_messages_of_nobody(door: Door) -> None:
    queue = door.queue("slow", visibility_s=3600)
    body = bytes(500_000)
    with door.connect() as slow, door.connect() as quick:
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for _ in range(60):
            quick.put(queue, body)
        for _ in range(60):
            slow.send(PULL, [(1, queue.encode()), (2, 0)])
        with control(door.data) as at:
            while not at.queues.describe(queue)["inactive"]:
                time.sleep(0.01)
        found = [one for _ in range(20) for one in quick.take(queue)]
        assert found, "all messages are leased to a peer that takes none of them"
        assert quick.call(HEARTBEAT).result == 0


SESSION = [
    (SEND, [(1, b"fuzzed"), (2, b"body"), (3, 1)]),
    (SEND, [(1, b"fuzzed"), (2, b"half"), (4, 1), (5, 5)]),
    (BATCH_SEND, [(1, b"fuzzed"), (2, b"one"), (2, b"two")]),
    (PULL, [(1, b"fuzzed"), (2, 0), (3, 1)]),
    (BATCH_PULL, [(1, b"fuzzed"), (2, 16), (3, 0)]),
    (DELETE, [(1, b"fuzzed"), (2, 12345)]),
    (1026, [(1, b"fuzzed"), (2, 1), (2, 2)]),
    (PUBLISH, [(1, b"fuzzed"), (2, b"m"), (3, b"tag"), (4, b"a.b")]),
    (CONFIRM, [(1, b"fuzzed"), (2, packed([(1, 9), (2, 1)]))]),
    (HEARTBEAT, None),
    (AUTH, signed("AKID", "any", "c")),
]


def mutated(random: random.Random, frame: bytes) -> bytes:
    """The frame with some bytes of it wrong, its length right half of the time."""
    raw = bytearray(frame)
    for _ in range(random.randrange(1, 6)):
        kind, at = random.randrange(4), random.randrange(6, len(raw))
        if kind == 0:
            raw[at] = random.randrange(256)
        elif kind == 1:
            raw[at:at + random.randrange(8)] = b""
        elif kind == 2:
            raw[at:at] = random.randbytes(random.randrange(12))
        else:
            raw[at:at] = b"\xff" * random.randrange(12)
        if len(raw) <= 7:
            raw += b"\0\0"
    if random.random() < 0.5:
        raw[2:6] = struct.pack("<I", len(raw))
    return bytes(raw)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_comes_is_answered_or_ends_that_connection_alone(door: Door, seed: int) -> None:
    chance = random.Random(seed)
    if seed == 0:
        door.queue("fuzzed", transaction=True)
    with door.connect() as other:
        for _ in range(60):
            wire = door.connect()
            with wire:
                wire.socket.settimeout(0.05)
                stream = b"".join(
                    mutated(chance, request(number, *chance.choice(SESSION)))
                    for number in range(chance.randrange(1, 12)))
                step = chance.choice((len(stream), 1, 5, 64))
                try:
                    for at in range(0, len(stream), step):
                        wire.socket.sendall(stream[at:at + step])
                    while True:
                        wire.read()
                except OSError:
                    pass
        assert other.call(HEARTBEAT).result == 0
        assert other.put("still-there", b"x").result == 10100


def test_many_connections_that_announce_much_cost_little(tmp_path: Path) -> None:
    with Server(tmp_path, cmq_tcp="127.0.0.1:0") as server, Cmq(server.cmq) as good:
        before = server.rss_kib()
        announced = b"\0\0" + struct.pack("<I", 1 << 31)
        half = b"\0\0" + struct.pack("<I", 4000) + bytes(100)
        wires = []
        for number in range(800):
            wire = socket.create_connection(("127.0.0.1", server.cmq))
            wire.sendall(announced if number % 2 else half)
            wires.append(wire)
        assert good.call(HEARTBEAT).result == 0
        assert server.rss_kib() - before < 24 << 10
        for wire in wires:
            wire.close()
        assert good.call(HEARTBEAT).result == 0
