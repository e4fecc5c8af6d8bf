"""The frames that a real CMQ client was seen to send, and the replies it takes, byte by byte."""

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from cmq_wire import (
    AUTH,
    BATCH_PULL,
    CONFIRM,
    DELETE,
    HEARTBEAT,
    PUBLISH,
    PULL,
    QUERY,
    SEND,
    Cmq,
    Fields,
    Reply,
    control,
    framed,
    packed,
    request,
    signed,
    unpacked,
)
from server_process import Server

from penstock.server._wire import proto_field, proto_fields
from penstock.server.broker.access import Key

QUEUE = b"jt1a1fd77239dq"
HALVES = b"rx4997237"
BODY = "hello 世界 TCP".encode()
ID, HANDLE = 30119360123109761, 30119360123109762

# Captured: what, its hex, and the same said in fields.
SENT: dict[str, tuple[str, bytes]] = {
    "auth": (
        "00005f000000 0802 10fc07 ba0c51 0a08414b494474657374"
        "122c33566b51634d3156515978696f4b6f784e4f66352b774c6162664977456253414155"
        "6f544e6a78417a43513d"
        "1a0b31302e37372e302e39406d 220a486d6163534841323536",
        request(2, AUTH, signed("AKIDtest", "testkey", "10.77.0.9@m")),
    ),
    "send": (
        "000032000000 0801 10fd07 5001 c20c22 0a0e6a74316131666437373233396471"
        "121068656c6c6f20e4b896e7958c20544350",
        request(1, SEND, [(1, QUEUE), (2, BODY)], (10, 1)),
    ),
    "pull": (
        "000020000000 0803 10ff07 d20c12 0a0e6a74316131666437373233396471 1003",
        request(3, PULL, [(1, QUEUE), (2, 3)]),
    ),
    "delete": (
        "000027000000 0804 108108 f20c19 0a0e6a74316131666437373233396471 1082838088e0acc035",
        request(4, DELETE, [(1, QUEUE), (2, HANDLE)]),
    ),
    "batch pull": (
        "000022000000 080a 108008 e20c14 0a0e6a74316131666437373233396471 1010 1800",
        request(10, BATCH_PULL, [(1, QUEUE), (2, 16), (3, 0)]),
    ),
    "heartbeat": ("00000b000000 0829 109008", request(41, HEARTBEAT, None)),
    "publish": (
        "00002d000000 088701 108308 5036 820d1c 0a0e6a7431613166643737323339647412"
        "056d2d7265641a03726564",
        request(135, PUBLISH, [(1, b"jt1a1fd77239dt"), (2, b"m-red"), (3, b"red")], (10, 54)),
    ),
    "confirm": (
        "000027000000 089c01 109108 ea0d18 0a09727834393937323337 120b 08a9848088e0acc035 1001",
        request(156, CONFIRM, [(1, HALVES), (2, packed([(1, 30119360123109929), (2, 1)]))]),
    ),
}

RECEIVED: dict[str, tuple[str, bytes]] = {
    "auth": (
        "000016000000 0802 10fc07 1800 509dbfedb5e1989803",
        framed(packed([(1, 2), (2, AUTH), (3, 0), (10, 1795253761433501)])),
    ),
    "send": (
        "000020000000 0801 10fd07 1800 509ebfedb5e1989803 e80181838088e0acc035",
        framed(packed([(1, 1), (2, SEND), (3, 0), (10, 1795253761433502), (29, ID)])),
    ),
    "pull": (
        "000051000000 0803 10ff07 1800 50a0bfedb5e1989803 d20138 0881838088e0acc035"
        "1882838088e0acc035 221068656c6c6f20e4b896e7958c20544350 28aecc85d806 30b0cc85d806"
        "38aecc85d806 4001",
        framed(packed([(1, 3), (2, PULL), (3, 0), (10, 1795253761433504), (26, packed([
            (1, ID), (3, HANDLE), (4, BODY), (5, 1795253806), (6, 1795253808), (7, 1795253806),
            (8, 1)]))])),
    ),
    "delete": (
        "000016000000 0804 108108 1800 50a1bfedb5e1989803",
        framed(packed([(1, 4), (2, DELETE), (3, 0), (10, 1795253761433505)])),
    ),
    "empty": (
        "00002a000000 080a 108008 18d84f 2211 283130323030296e6f206d657373616765"
        "50a7bfedb5e1989803",
        framed(packed([(1, 10), (2, BATCH_PULL), (3, 10200), (4, b"(10200)no message"),
                       (10, 1795253761433511)])),
    ),
    "query": (
        "000029000000 08ad848088e0acc035 109208 fa0d14 0a09727834393937323337"
        "10ac848088e0acc035",
        request(30119360123109933, QUERY, [(1, HALVES), (2, 30119360123109932)]),
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("golden")
    with Server(data, cmq_tcp="127.0.0.1:0") as running:
        with control(data) as at:
            at.queue(QUEUE.decode(), visibility_s=2)
            at.queue(HALVES.decode(), transaction=True, first_query_s=1)
            at.topics.topics.create("jt1a1fd77239dt")
            # The pair that the captured signature was made with.
            at.keys._note("AKIDtest", msgspec.json.encode(Key("testkey")))
        yield running


@pytest.mark.parametrize("name", SENT)
def test_our_own_tables_make_the_bytes_that_a_client_sent(name: str) -> None:
    captured, made = SENT[name]
    assert made == bytes.fromhex(captured)


@pytest.mark.parametrize("name", RECEIVED)
def test_our_own_tables_make_the_bytes_that_a_client_took(name: str) -> None:
    captured, made = RECEIVED[name]
    assert made == bytes.fromhex(captured)


def bytes_of(found: Reply) -> bytes:
    return framed(packed(found.fields))


def replay(port: int, step: int) -> list[Reply]:
    """The captured session, so many bytes at a time."""
    with Cmq(port, admit=False) as cmq:
        found = []
        for name in ("auth", "send", "pull", "heartbeat", "batch pull", "publish"):
            stream = bytes.fromhex(SENT[name][0])
            for at in range(0, len(stream), step):
                cmq.socket.sendall(stream[at:at + step])
            found.append(cmq.read())
        [message] = found[2].messages
        cmq.send(DELETE, [(1, QUEUE), (2, message[3])])
        return [*found, cmq.read()]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000])
def test_a_captured_session_is_answered_in_the_shape_that_was_captured(
    server: Server, step: int
) -> None:
    auth, send, pull, beat, empty, publish, delete = replay(server.cmq, step)
    [message] = pull.messages
    assert bytes_of(auth) == framed(packed([(1, 2), (2, AUTH), (3, 0), (10, auth.request_id)]))
    assert bytes_of(send) == framed(
        packed([(1, 1), (2, SEND), (3, 0), (10, send.request_id), (29, send.ids[0])]))
    assert bytes_of(pull) == framed(packed([
        (1, 3), (2, PULL), (3, 0), (10, pull.request_id), (26, packed([
            (1, send.ids[0]), (3, message[3]), (4, BODY), (5, message[5]), (6, message[6]),
            (7, message[7]), (8, 1)]))]))
    assert message[6] - message[7] == 2
    assert bytes_of(beat) == framed(
        packed([(1, 41), (2, HEARTBEAT), (3, 0), (10, beat.request_id)]))
    assert bytes_of(empty) == framed(packed([
        (1, 10), (2, BATCH_PULL), (3, 10200), (4, b"(10200)no message"), (10, empty.request_id)]))
    assert bytes_of(publish) == framed(packed(
        [(1, 135), (2, PUBLISH), (3, 0), (10, publish.request_id), (29, publish.ids[0])]))
    assert bytes_of(delete) == framed(
        packed([(1, 1), (2, DELETE), (3, 0), (10, delete.request_id)]))


FIELDS: Fields = [(1, 0), (2, 127), (3, 128), (4, (1 << 64) - 1), (5, b""), (6, bytes(200)),
                  ((1 << 29) - 1, 5)]


def test_the_codec_of_the_server_and_that_of_the_tests_agree() -> None:
    assert b"".join(proto_field(number, value) for number, value in FIELDS) == packed(FIELDS)
    assert proto_fields(packed(FIELDS)) == FIELDS == unpacked(packed(FIELDS))
    for cut in range(1, len(packed(FIELDS[5:6]))):
        with pytest.raises(ValueError):
            proto_fields(packed(FIELDS[5:6])[:cut])


def test_the_signature_of_the_captured_auth_is_that_of_its_key() -> None:
    assert signed("AKIDtest", "testkey", "10.77.0.9@m")[1] == (
        2, b"3VkQcM1VQYxioKoxNOf5+wLabfIwEbSAAUoTNjxAzCQ=")
