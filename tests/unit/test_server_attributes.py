"""What a message carries goes in and comes out at every door."""

import base64
import http.client
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock
from penstock import attributes as client_attributes
from penstock.engine import Attributes
from penstock.engine.attributes import unpack
from penstock.server.protocols.http import carried

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire

ALL: dict[str, Any] = {
    "tag": "paid", "key": "42", "routing_key": "a.b.c", "message_id": "my own",
    "reply_to": "answers", "correlation": "ü%41 x",
    "properties": {"amount": "12.5", "empty": "", "Naïve name\r\n": " \r\n% "},
}  # fmt: skip

texts = st.text(max_size=30)
properties = st.dictionaries(st.text(min_size=1, max_size=20), texts, max_size=4)
carrying = st.fixed_dictionaries(
    {}, optional={**{name: texts for name in client_attributes.KINDS}, "properties": properties}
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as connected:
        yield connected


def post(server: Server, path: str, body: Any, **head: str) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=10)
    if not isinstance(body, bytes):
        body, head = json.dumps(body).encode(), {"Content-Type": "application/json", **head}
    connection.request("POST", path, body, head)
    reply = connection.getresponse()
    data, fields = reply.read(), dict(reply.getheaders())
    connection.close()
    return reply.status, json.loads(data) if "json" in fields["Content-Type"] else data, fields


OCTETS = {"Content-Type": "application/octet-stream"}


@given(carrying)
def test_the_client_and_the_engine_write_the_same_bytes(given_: dict[str, Any]) -> None:
    packed = client_attributes.pack(given_)  # type: ignore[arg-type]
    renamed = {("id" if name == "message_id" else name): value for name, value in given_.items()}
    assert unpack(packed) == Attributes(**renamed)
    assert client_attributes.unpack(packed) == client_attributes.Attributes(**given_)


@given(st.binary(max_size=60))
def test_any_bytes_are_attributes_or_a_protocol_error(packed: bytes) -> None:
    try:
        client_attributes.unpack(packed)
    except penstock.ProtocolError:
        pass


@given(carrying)
def test_header_fields_say_the_same_back(given_: dict[str, Any]) -> None:
    renamed = {("id" if name == "message_id" else name): value for name, value in given_.items()}
    lines = carried.into_fields(Attributes(**renamed)).decode("ascii").split("\r\n")
    fields = []
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        assert line.isprintable() and name.isascii()
        # A property keeps its case here; a client's parser may fold it.
        name = name[9:] if name.startswith("Penstock-Property-") else name[9:].lower()
        name = name.replace("Property-", "property-", 1)
        fields.append((name.encode(), value.strip(" ").encode()))
    assert carried.from_fields(fields) == Attributes(**renamed)


def test_the_native_door_keeps_what_a_message_carries(client: penstock.Client) -> None:
    queue = client.queue("native")
    queue.send(b"one", **ALL)
    queue.send(b"raw", ext=b"\xff\xfe")
    each: Any = [{"tag": "t"}, None, ALL]
    queue.send_many([b"a", b"", b"c"], attributes=each)
    got = queue.receive(10)
    assert [one.body for one in got] == [b"one", b"raw", b"a", b"", b"c"]
    assert got[0].attributes == got[4].attributes == client_attributes.Attributes(**ALL)
    assert (got[0].tag, got[0].key, got[0].properties["amount"]) == ("paid", "42", "12.5")
    assert got[1].ext == b"\xff\xfe"
    assert got[1].attributes == got[3].attributes == client_attributes.NOTHING
    assert got[2].tag == "t" and got[2].properties == {}
    with pytest.raises(penstock.InvalidError):
        queue.send(b"both", ext=b"e", tag="t")
    with pytest.raises(penstock.InvalidError):
        queue.send_many([b"a"], attributes=[])
    with pytest.raises(penstock.TooLargeError):
        queue.send(b"big", tag="x" * 65536)


ONE = struct.pack("<BBH1s", 1, 0, 1, b"a")
BROKEN = [
    b"\x01", ONE[:-1], ONE + ONE, struct.pack("<BBH2s", 1, 1, 1, b"na"),
    struct.pack("<BBH", 3, 0, 0), struct.pack("<BBH1s", 1, 0, 1, b"\xff"),
    struct.pack("<BBH2s", 1, 0, 2, b"\xc0\x80"), struct.pack("<BBH3s", 1, 0, 3, b"\xed\xa0\x80"),
    struct.pack("<BBH4s", 1, 0, 4, b"\xf5\x80\x80\x80"),
    struct.pack("<BBH2s", 1, 0, 2, b"\xe2\x82"),
    struct.pack("<BBH1s", 3, 1, 0, b"\x80"),
]  # fmt: skip


@pytest.mark.parametrize("ext", BROKEN, ids=bytes.hex)
def test_what_no_receiver_could_read_is_refused(server: Server, ext: bytes) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("broken")
        one = struct.pack("<IBBHQ", queue, 1, 1, len(ext), 0) + ext + b"body"
        assert wire.call(3, one)[0] == 9
        batch = struct.pack("<IBBHQIIII", queue, 1, 1, 0, 0, 1, 0, 4, len(ext)) + ext + b"body"
        assert wire.call(4, batch)[0] == 9
        assert wire.call(3, struct.pack("<IBBHQ", queue, 1, 0, len(ext), 0) + ext)[0] == 0
        assert wire.call(3, struct.pack("<IBBHQ", queue, 1, 16, 0, 0))[0] == 9


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=20), cut=st.integers(0, 40), byte=st.integers(0, 255))
def test_the_door_knows_utf8_as_well_as_python(
    server: Server, text: str, cut: int, byte: int
) -> None:
    raw = text.encode()
    raw = raw[:cut] + bytes([byte]) + raw[cut:]
    try:
        raw.decode()
        expected = 0
    except UnicodeDecodeError:
        expected = 9
    with Wire(server.tcp) as wire:
        queue = wire.open("text")
        ext = struct.pack("<BBH", 1, 0, len(raw)) + raw
        payload = struct.pack("<IBBHQ", queue, 0, 1, len(ext), 0) + ext
        assert wire.call(3, payload)[0] == expected


def test_sizes_of_a_batch_with_attributes_must_add_up(server: Server) -> None:
    with Wire(server.tcp) as wire:
        queue = wire.open("sizes")
        batch = struct.pack("<IBBHQIIII", queue, 1, 1, 0, 0, 1, 0, 4, 70000) + bytes(70004)
        assert wire.call(4, batch)[0] == 5
        for body, ext in ((4, 6), (0xFFFFFFFF, 5), (4, 0xFFFFFFFF)):
            with Wire(server.tcp) as other:
                head = struct.pack("<IBBHQIIII", queue, 1, 1, 0, 0, 1, 0, body, ext)
                assert other.call(4, head + ONE + b"body")[0] == 1


def test_json_says_what_a_message_carries(server: Server, client: penstock.Client) -> None:
    queue = client.queue("json")
    path = "/v1/queues/json"
    assert post(server, f"{path}/messages", {"body": "one", **ALL})[0] == 201
    lines = json.dumps({"body": "two", "tag": "t"}) + "\n" + json.dumps({"body": "three"})
    kind = {"Content-Type": "application/x-ndjson"}
    assert post(server, f"{path}/messages", lines.encode(), **kind)[0] == 201
    assert [one.tag for one in queue.peek(max_messages=5)] == ["paid", "t", ""]
    assert queue.peek(offset=0)[0].attributes == client_attributes.Attributes(**ALL)
    one, two, three = post(server, f"{path}/receive", {"max_messages": 5})[1]["messages"]
    assert {name: one[name] for name in ALL} == ALL and one["id"].endswith("-" + "0" * 16)
    assert two["tag"] == "t" and not ALL.keys() & three.keys()
    for wrong in ({"tag": 5}, {"properties": {"": "x"}}, {"properties": {"a": 1}}, {"tga": "x"}):
        assert post(server, f"{path}/messages", {"body": "x", **wrong})[0] == 400
    assert post(server, f"{path}/messages", {"body": "x", "tag": "y" * 70000})[0] == 413


def test_header_fields_say_it_beside_octets_on_each_path(
    server: Server, client: penstock.Client
) -> None:
    queue = client.queue("octets")
    path = "/v1/queues/octets"
    head = {
        "Penstock-Tag": "paid", "penstock-KEY": "%C3%BC%25", "Penstock-Property-Amount": "5",
        "Penstock-Message-Id": "mine",
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=10)
    # The door, the parser's way into the lane, and the head that is not parsed again.
    for _ in range(4):
        connection.request("POST", f"{path}/messages", b"\xff", {**OCTETS, **head})
        assert json.loads(connection.getresponse().read())["durability"] == "disk"
    connection.request("POST", f"{path}/messages", b"\xff", OCTETS)
    connection.getresponse().read()
    connection.close()
    *said, silent = queue.peek(max_messages=10)
    expected = client_attributes.Attributes(
        tag="paid", key="ü%", message_id="mine", properties={"amount": "5"}
    )
    assert [one.attributes for one in said] == [expected] * 4
    assert silent.attributes == client_attributes.NOTHING
    status, body, fields = post(
        server, f"{path}/receive", {}, Accept="application/octet-stream"
    )
    assert (status, body, fields["Penstock-Tag"]) == (200, b"\xff", "paid")
    assert (fields["Penstock-Key"], fields["Penstock-Property-amount"]) == ("%C3%BC%25", "5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Penstock-Tga", "x"),
        ("Penstock-Tag", "%FF"),
        ("Penstock-Property-", "x"),
        ("Penstock-Property-%FF", "x"),
    ],
)
def test_header_fields_that_say_nothing_are_refused(server: Server, name: str, value: str) -> None:
    for _ in range(2):
        head = {**OCTETS, name: value}
        status, problem, _ = post(server, "/v1/queues/octets/messages", b"x", **head)
        assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid")


def test_hostile_attributes_cannot_split_a_reply(server: Server, client: penstock.Client) -> None:
    client.queue("split").send(b"x", tag="a\r\nSet-Cookie: b", properties={"n:\r\nEvil: 1": "\x00"})
    _, _, fields = post(server, "/v1/queues/split/receive", {}, Accept="application/octet-stream")
    assert fields["Penstock-Tag"] == "a%0D%0ASet-Cookie: b"
    assert not {"Set-Cookie", "Evil"} & fields.keys()
    assert base64.urlsafe_b64decode(fields["Penstock-Receipt"])
