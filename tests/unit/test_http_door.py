"""The HTTP door, from outside: verbs, batches, problems and the shapes that are refused."""

import base64
import http.client
import json
import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def ask(
    server: Server, method: str, path: str, body: bytes | Any = None, **head: str
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=10)
    if body is not None and not isinstance(body, bytes):
        body, head = json.dumps(body).encode(), {"Content-Type": "application/json", **head}
    connection.request(method, path, body, {k.replace("_", "-"): v for k, v in head.items()})
    reply = connection.getresponse()
    data = reply.read()
    fields = dict(reply.getheaders())
    connection.close()
    if "json" in fields.get("Content-Type", ""):
        return reply.status, json.loads(data), fields
    return reply.status, data, fields


OCTETS = {"Content_Type": "application/octet-stream"}


def test_a_queue_lives_and_dies(server: Server) -> None:
    assert ask(server, "GET", "/v1/queues/life")[0] == 404
    assert ask(server, "PUT", "/v1/queues/life")[0] == 201
    assert ask(server, "PUT", "/v1/queues/life")[0] == 200
    assert "life" in ask(server, "GET", "/v1/queues")[1]["queues"]
    assert ask(server, "GET", "/v1/queues/life")[1]["next"] == 0
    assert ask(server, "DELETE", "/v1/queues/life")[0] == 204
    assert ask(server, "GET", "/v1/queues/life")[0] == 404


def test_octets_go_through_on_both_paths(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/octets")
    for offset in range(4):
        status, sent, _ = ask(
            server, "POST", "/v1/queues/octets/messages", b"\xff%d" % offset, **OCTETS
        )
        assert (status, sent["offset"], sent["durability"]) == (201, offset, "disk")
        assert sent["id"].endswith(f"-{offset:016x}")
    status, got, _ = ask(server, "POST", "/v1/queues/octets/receive", {"max_messages": 10})
    bodies = [base64.b64decode(one["body_base64"]) for one in got["messages"]]
    assert bodies == [b"\xff0", b"\xff1", b"\xff2", b"\xff3"]
    receipts = [one["receipt"] for one in got["messages"]]
    confirm = ask(server, "POST", "/v1/queues/octets/confirm", {"receipts": receipts})[1]
    assert confirm == {"verdicts": ["done"] * 4}
    again = ask(server, "POST", "/v1/queues/octets/confirm", {"receipts": receipts[:1]})[1]
    assert again == {"verdicts": ["stale"]}
    status, moved, _ = ask(server, "POST", "/v1/queues/octets/rewind", {"to": "earliest"})
    assert (moved["offset"], moved["messages"], moved["again"]) == (0, 4, 4)
    peeked = ask(server, "GET", "/v1/queues/octets/peek?offset=2&max=5")[1]["messages"]
    assert [one["offset"] for one in peeked] == [2, 3]
    status, body, fields = ask(
        server, "POST", "/v1/queues/octets/receive", {}, Accept="application/octet-stream"
    )
    assert (status, body) == (200, b"\xff0") and "Penstock-Receipt" in fields


def test_json_and_batches(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/batches")
    path = "/v1/queues/batches/messages"
    assert ask(server, "POST", path, {"body": "text"})[1]["offset"] == 0
    assert ask(server, "POST", path, {"body_base64": "/w=="})[1]["offset"] == 1
    lines = b'{"body": "a"}\n{"body": "b"}\n'
    sent = ask(server, "POST", path, lines, Content_Type="application/x-ndjson")[1]
    assert (sent["offset"], sent["count"]) == (2, 2)
    packed = struct.pack("<I1sI2s", 1, b"x", 2, b"yz")
    kind = "application/vnd.penstock.batch"
    sent = ask(server, "POST", path, packed, Content_Type=kind)[1]
    assert (sent["offset"], sent["count"]) == (4, 2)
    assert ask(server, "POST", path, packed[:-1], Content_Type=kind)[0] == 400
    assert ask(server, "POST", path, {"body": "a", "body_base64": ""})[0] == 400
    assert ask(server, "POST", path, {"boody": "a"})[0] == 400
    got = ask(server, "GET", "/v1/queues/batches/peek")[1]["messages"]
    assert [one.get("body") for one in got] == ["text", None, "a", "b", "x", "yz"]


def test_a_long_poll_ends_with_the_send_or_the_time(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/poll")
    began = time.monotonic()
    got = ask(server, "POST", "/v1/queues/poll/receive", {"wait_ms": 200})[1]
    assert got == {"messages": []} and 0.15 < time.monotonic() - began < 1.5
    waiting = socket.create_connection(("127.0.0.1", server.http), timeout=5)
    waiting.sendall(request("POST", "/v1/queues/poll/receive", b'{"wait_ms": 4000}'))
    time.sleep(0.1)
    ask(server, "POST", "/v1/queues/poll/messages", b"late", **OCTETS)
    assert b'"body":"late"' in waiting.recv(65536)
    waiting.close()


def test_release_and_extend(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/lease")
    ask(server, "POST", "/v1/queues/lease/messages", b"m", **OCTETS)
    receive = "/v1/queues/lease/receive"
    [one] = ask(server, "POST", receive, {})[1]["messages"]
    receipts = {"receipts": [one["receipt"]]}
    extended = ask(server, "POST", "/v1/queues/lease/extend", {**receipts, "lease_ms": 60000})[1]
    assert extended == {"verdicts": ["done"]}
    assert ask(server, "POST", receive, {})[1]["messages"] == []
    assert ask(server, "POST", "/v1/queues/lease/release", receipts)[1] == {"verdicts": ["done"]}
    [one] = ask(server, "POST", receive, {})[1]["messages"]
    assert one["attempts"] == 2


def test_problems_are_problems(server: Server) -> None:
    status, body, fields = ask(server, "POST", "/v1/queues/none/messages", b"m", **OCTETS)
    assert (status, body["type"]) == (404, "urn:penstock:problem:not-found")
    assert fields["Content-Type"] == "application/problem+json"
    status, _, fields = ask(server, "PATCH", "/v1/queues/none")
    assert status == 405 and "PUT" in fields["Allow"]


HOSTILE = [
    "a%2Fb%2Fc", "%2Fb", "a%2F", "a%2F" + "x" * 127, "%C3%BC", "a%20b", "x" * 129, "a%0A", "%00",
    ".%2E%2F",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(server: Server, name: str) -> None:
    assert ask(server, "PUT", f"/v1/queues/{name}")[0] in (400, 404)


def test_what_observers_ask(server: Server) -> None:
    assert ask(server, "GET", "/livez")[0] == ask(server, "GET", "/readyz")[0] == 200
    text = ask(server, "GET", "/metrics")[1].decode()
    assert "\npenstock_worker_connections " in text
    document = ask(server, "GET", "/openapi.json")[1]
    assert document["openapi"] == "3.1.0"
    assert "max_messages" in document["components"]["schemas"]["ReceiveRequest"]["properties"]


def request(method: str, path: str, body: bytes = b"", head: str = "") -> bytes:
    lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    return lines.encode() + body


def exchange(server: Server, data: bytes, step: int = 0) -> bytes:
    """Everything the server says until it closes."""
    with socket.create_connection(("127.0.0.1", server.http), timeout=5) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(data), step or len(data)):
            raw.sendall(data[begin : begin + (step or len(data))])
        got = b""
        while more := raw.recv(65536):
            got += more
    return got


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    octets = "Content-Type: application/octet-stream\r\n"
    send = request("POST", "/v1/queues/pipe/messages", b"m", octets)
    stream = request("PUT", "/v1/queues/pipe") + send * 20 + request("GET", "/v1/queues/pipe")
    stream += send * 3 + request("GET", "/livez", head="Connection: close\r\n")
    whole = exchange(server, stream)
    offsets = [int(one.split(b",")[0]) for one in whole.split(b'"offset":')[1:]]
    assert offsets == list(range(23))
    assert whole.index(b'"next":20') < whole.index(b'-0000000000000014"')
    assert whole.rstrip().endswith(b"alive")
    bytewise = exchange(server, stream, 1)
    offsets = [int(one.split(b",")[0]) for one in bytewise.split(b'"offset":')[1:]]
    assert offsets == list(range(23, 46))


HEAD = "POST /v1/queues/shape/messages HTTP/1.1\r\nHost: x\r\n"
SHAPES: list[tuple[str, int]] = [
    ("GET /livez HTTP/1.1\r\n\r\n", 400),
    ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET /livez HTTP/2.0\r\nHost: x\r\n\r\n", 0),
    ("GET /livez\r\n\r\n", 400),
    ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("GET /" + "a" * 9000 + " HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    ("GET /livez HTTP/1.1\r\nHost: x\r\n" + "A: b\r\n" * 70 + "\r\n", 431),
    ("GET /livez HTTP/1.1\r\nHost: x\r\nA: " + "b" * 20000 + "\r\n\r\n", 431),
    (HEAD + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HEAD + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (HEAD + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    (HEAD + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    (HEAD + "Content-Length: -1\r\n\r\n", 400),
    (HEAD + "Content-Length: 5, 5\r\n\r\nhello", 400),
    (HEAD + "Content-Length: 99999999999999\r\n\r\n", 413),
    (HEAD + "Content-Length : 5\r\n\r\nhello", 400),
    (HEAD + "Bad\x00Name: 5\r\n\r\n", 400),
    (HEAD + " folded: 1\r\n\r\n", 400),
    (HEAD + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (HEAD + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX", 400),
    ("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 400),
    ("CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    ("\r\n" * 2000, 400),
]


@pytest.mark.parametrize(("text", "status"), SHAPES)
def test_shapes_that_are_refused(server: Server, text: str, status: int) -> None:
    reply = exchange(server, text.encode("latin-1"))
    assert reply.startswith(b"HTTP/1.1 ")
    got = int(reply[9:12])
    assert got == status or (status == 0 and got >= 400), reply
    assert b"\r\nConnection: close\r\n" in reply and b"problem+json" in reply


def test_half_a_head_and_chunk_extensions_end(server: Server) -> None:
    endless = HEAD + "A: "
    with socket.create_connection(("127.0.0.1", server.http), timeout=5) as raw:
        raw.sendall(endless.encode())
        for _ in range(40):
            time.sleep(0.002)
            raw.sendall(b"b" * 1000)
            if _ > 25:
                break
        assert raw.recv(12) == b"HTTP/1.1 431"
    with socket.create_connection(("127.0.0.1", server.http), timeout=5) as raw:
        raw.sendall((HEAD + "Transfer-Encoding: chunked\r\n\r\n1;").encode())
        for _ in range(26):
            time.sleep(0.002)
            raw.sendall(b"e" * 1000)
        assert raw.recv(12) == b"HTTP/1.1 400"


def test_a_close_is_honoured_and_old_http_served(server: Server) -> None:
    reply = exchange(server, b"GET /livez HTTP/1.0\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 200") and b"Connection: close" in reply


def test_a_named_group_is_rewound_and_the_others_stand(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/rewound")
    for number in range(3):
        ask(server, "POST", "/v1/queues/rewound/messages", b"%d" % number, **OCTETS)
    for group in ("", "audit"):
        asked = {"max_messages": 10, "group": group}
        assert len(ask(server, "POST", "/v1/queues/rewound/receive", asked)[1]["messages"]) == 3
    moved = ask(server, "POST", "/v1/queues/rewound/rewind", {"offset": 1, "group": "audit"})[1]
    assert (moved["offset"], moved["messages"], moved["skipped"]) == (1, 2, 1)
    for group, count in (("", 0), ("audit", 2)):
        asked = {"max_messages": 10, "group": group}
        got = ask(server, "POST", "/v1/queues/rewound/receive", asked)[1]["messages"]
        assert len(got) == count


def test_what_is_no_request_is_told_so_after_the_owed_replies(server: Server) -> None:
    octets = "Content-Type: application/octet-stream\r\n"
    send = request("POST", "/v1/queues/owed/messages", b"m", octets)
    ask(server, "PUT", "/v1/queues/owed")
    ask(server, "POST", "/v1/queues/owed/messages", b"first", **OCTETS)
    show = request("GET", "/v1/queues/owed")
    for owed in (send * 5, show + send, send + request("GET", "/livez")):
        got = exchange(server, owed + b"\x00garbage\r\n\r\n" + send)
        statuses = [int(one[:3]) for one in got.split(b"HTTP/1.1 ")[1:]]
        assert statuses[-1] == 400 and set(statuses[:-1]) <= {200, 201}
        assert len(statuses) == owed.count(b"HTTP/1.1\r\n") + 1
        assert got.count(b"Connection: close") == 1


def test_a_head_that_comes_again_means_the_same(server: Server) -> None:
    """The second equal head is not parsed; what follows is cut at the same place all the same."""
    ask(server, "PUT", "/v1/queues/again")
    ask(server, "POST", "/v1/queues/again/messages", b"0", **OCTETS)
    head = (
        b"POST /v1/queues/again/messages HTTP/1.1\r\nHost: h\r\n"
        b"Content-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    )
    six = head % 6
    # Blank lines may stand between requests: before a body that begins like one, a head
    # could seem longer.
    writes = [
        (1, six + b"\r\nfirs" + b"\r\n"),
        (2, six + b"\r\nhalf" + six + b"\r\nlast" + six[:20]),
        (1, six[20:] + b"\r\npart"),
        (1, six + b"\r\nwhol"),
        (1, head % 3 + b"new"),
        (3, head % 3 + b"two" + head % 3 + b"tri" + six + b"\r\nsixs"),
        (1, b"\r\n" + head % 3 + b"crl"),
        (1, (head % 3).replace(b"again", b"nobody") + b"not"),
    ]
    bodies = [b"\r\nfirs", b"\r\nhalf", b"\r\nlast", b"\r\npart", b"\r\nwhol", b"new", b"two",
              b"tri", b"\r\nsixs", b"crl"]
    with socket.create_connection(("127.0.0.1", server.http), 10) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        replies = b""
        owed = 0
        for count, write in writes:
            link.sendall(write)
            owed += count
            while replies.count(b"HTTP/1.1 ") < owed:
                more = link.recv(65536)
                assert more, replies
                replies += more
    assert replies.count(b"HTTP/1.1 201 ") == len(bodies)
    assert replies.count(b"HTTP/1.1 404 ") == 1
    got = ask(server, "GET", "/v1/queues/again/peek?max=100")[1]["messages"]
    assert [one["body"].encode() for one in got] == [b"0", *bodies]


def test_a_queue_that_is_made_again_is_received_from_anew(server: Server) -> None:
    """What a worker has looked up once it finds again only while that is there."""
    path = "/v1/queues/anew"
    for body in (b"first", b"second"):
        assert ask(server, "PUT", path)[0] == 201
        for group in ("", "g"):
            # A group begins where the queue stands when it is made.
            ask(server, "POST", f"{path}/receive", {"group": group})
        ask(server, "POST", f"{path}/messages", body, **OCTETS)
        for group in ("", "g"):
            _, told, _ = ask(server, "POST", f"{path}/receive", {"group": group})
            assert [one["body"] for one in told["messages"]] == [body.decode()]
            receipts = {"group": group, "receipts": [told["messages"][0]["receipt"]]}
            for again, verdict in ((False, "done"), (False, "stale"), (True, "done")):
                told = ask(server, "POST", f"{path}/confirm", {**receipts, "again": again})[1]
                assert told == {"verdicts": [verdict]}
        assert ask(server, "DELETE", path)[0] == 204
        assert ask(server, "POST", f"{path}/receive", {})[0] == 404
        assert ask(server, "POST", f"{path}/confirm", receipts)[0] == 404


def test_a_group_that_was_deleted_is_made_again_by_a_receive(server: Server) -> None:
    path = "/v1/queues/regrouped"
    ask(server, "PUT", path)
    ask(server, "POST", f"{path}/messages", b"kept", **OCTETS)
    for _ in range(2):
        assert ask(server, "PUT", f"{path}/groups/g", {})[0] == 200
        ask(server, "PUT", f"{path}/offsets/g", {"offset": 0})
        told = ask(server, "POST", f"{path}/receive", {"group": "g"})[1]
        assert len(told["messages"]) == 1
        assert ask(server, "DELETE", f"{path}/groups/g")[0] in (200, 204)
    assert ask(server, "POST", f"{path}/receive", {"group": "g"})[0] == 200
