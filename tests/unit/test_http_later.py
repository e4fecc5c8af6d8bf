"""HTTP on what waits: fields and header fields of a send, /v1/pending, checks by long poll."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import Server

HOUR_MS = 3_600_000
DECADE_MS = 11 * 366 * 24 * HOUR_MS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("http-later") / "s") as running:
        yield running


@pytest.fixture
def queue(server: Server, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name).replace("[", ".").replace("]", "")[:100]
    assert ask(server, "PUT", f"/v1/queues/{name}")[0] in (200, 201)
    return name


def ask(
    server: Server, method: str, path: str, body: Any = None, **fields: Any
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.http, timeout=30)
    head = {name.replace("_", "-"): str(value) for name, value in fields.items()}
    if isinstance(body, bytes):
        head.setdefault("Content-Type", "application/octet-stream")
    elif body is not None:
        body = json.dumps(body).encode()
        head["Content-Type"] = "application/json"
    connection.request(method, path, body, head)
    reply = connection.getresponse()
    data = reply.read()
    connection.close()
    return reply.status, json.loads(data) if data else None


def send(server: Server, queue: str, body: Any, **fields: Any) -> tuple[int, Any]:
    return ask(server, "POST", f"/v1/queues/{queue}/messages", body, **fields)


def received(server: Server, queue: str, wait_ms: int = 0) -> list[str]:
    status, reply = ask(
        server, "POST", f"/v1/queues/{queue}/receive", {"max_messages": 10, "wait_ms": wait_ms})
    assert status == 200
    return [message["body"] for message in reply["messages"]]


def test_a_delay_in_json_and_in_header_fields(server: Server, queue: str) -> None:
    due_us = (int(time.time()) + 3600) * 1_000_000
    for body, fields, tag in (
        ({"body": "x", "tag": "t", "delay_ms": HOUR_MS}, {}, "t"),
        ({"body": "x", "due_us": due_us}, {}, None),
        (b"x", {"Penstock_Delay": HOUR_MS, "Penstock_Tag": "t"}, "t"),
        (b"x", {"Penstock_Due": due_us}, None),
    ):
        status, sent = send(server, queue, body, **fields)
        assert (status, sent["waits"], sent["offset"]) == (201, True, None)
        status, shown = ask(server, "GET", f"/v1/pending/{sent['id']}")
        assert (status, shown["queue"], shown["body"], shown.get("tag")) == (200, queue, "x", tag)
        assert abs(shown["due_us"] - due_us) < 60_000_000
    status, listed = ask(server, "GET", f"/v1/pending?queue={queue}&state=delayed&limit=3")
    assert status == 200 and len(listed["messages"]) == 3
    status, rest = ask(server, "GET", f"/v1/pending?queue={queue}&cursor={listed['next']}")
    assert len(rest["messages"]) == 1 and rest["next"] is None
    assert received(server, queue) == []


def test_a_plain_send_after_one_that_waits_is_plain(server: Server, queue: str) -> None:
    for _ in range(3):
        assert send(server, queue, b"later", Penstock_Delay=HOUR_MS)[1]["waits"]
        sent = send(server, queue, b"now")[1]
        assert "waits" not in sent
    assert received(server, queue) == ["now"] * 3


def test_what_waits_is_moved_and_cancelled(server: Server, queue: str) -> None:
    gone, moved = (send(server, queue, {"body": body, "delay_ms": HOUR_MS})[1]["id"]
                   for body in ("gone", "moved"))
    assert ask(server, "DELETE", f"/v1/pending/{gone}") == (200, {"id": gone, "cancelled": True})
    assert ask(server, "DELETE", f"/v1/pending/{gone}")[1]["cancelled"] is False
    assert ask(server, "PATCH", f"/v1/pending/{gone}", {"delay_ms": 1})[0] == 409
    status, told = ask(server, "PATCH", f"/v1/pending/{moved}", {"delay_ms": 10})
    assert status == 200 and told["due_us"]
    assert received(server, queue, 10_000) == ["moved"]
    assert ask(server, "GET", f"/v1/pending/{moved}")[0] == 404
    assert ask(server, "DELETE", f"/v1/pending/{moved}")[0] == 409


def test_a_batch_waits_as_one(server: Server, queue: str) -> None:
    lines = b"\n".join(json.dumps({"body": str(at), "delay_ms": 50}).encode() for at in range(3))
    status, sent = send(server, queue, lines, Content_Type="application/x-ndjson")
    assert (status, sent["count"], sent["waits"]) == (201, 3, True)
    got: list[str] = []
    while len(got) < 3:
        got += received(server, queue, 10_000)
    assert got == ["0", "1", "2"]
    lines += b"\n" + json.dumps({"body": "now"}).encode()
    assert send(server, queue, lines, Content_Type="application/x-ndjson")[0] == 400


def test_halves_are_committed_and_rolled_back(server: Server, queue: str) -> None:
    yes = send(server, queue, {"body": "yes", "half": True, "key": "k"})[1]["id"]
    no = send(server, queue, b"no", Penstock_Half=1, Penstock_First_Check=60_000)[1]["id"]
    assert received(server, queue) == []
    status, first = ask(server, "POST", f"/v1/pending/{yes}/commit")
    assert (status, first["offset"]) == (200, 0)
    again = ask(server, "POST", f"/v1/pending/{yes}/commit")[1]
    assert again == {**first, "duplicate": True}
    for new in (True, False):
        assert ask(server, "POST", f"/v1/pending/{no}/rollback") == (
            200, {"id": no, "rolled_back": new})
    assert ask(server, "POST", f"/v1/pending/{yes}/rollback")[0] == 409
    assert ask(server, "POST", f"/v1/pending/{no}/commit")[0] == 409
    later = send(server, queue, {"body": "later", "half": True, "delay_ms": HOUR_MS})[1]["id"]
    assert ask(server, "POST", f"/v1/pending/{later}/commit")[1]["waits"] is True
    assert received(server, queue) == ["yes"]


def test_a_producer_is_asked_by_long_poll(server: Server, queue: str) -> None:
    replies: list[Any] = []
    poll = threading.Thread(target=lambda: replies.append(
        ask(server, "POST", "/v1/checks", {"group": "bank", "max_messages": 1})))
    poll.start()
    id = send(server, queue, {
        "body": "pay", "half": True, "producer_group": "bank", "first_check_ms": 0,
        "check_interval_ms": 100, "tag": "t"})[1]["id"]
    poll.join(30)
    [(status, reply)] = replies
    [check] = reply["checks"]
    assert status == 200 and (check["id"], check["queue"], check["body"], check["tag"]) == (
        id, queue, "pay", "t")
    assert (check["checks"], check["group"]) == (0, "bank")
    # Not answered: asked again, of whoever polls next.
    asked = {"group": "bank", "max_messages": 1}
    [again] = ask(server, "POST", "/v1/checks", asked)[1]["checks"]
    assert (again["id"], again["checks"]) == (id, 1)
    assert ask(server, "POST", f"/v1/pending/{id}/commit")[0] == 200
    assert received(server, queue, 10_000) == ["pay"]
    assert ask(server, "POST", "/v1/checks", {"group": "bank", "wait_ms": 0}) == (
        200, {"checks": []})


def test_an_atomic_send_is_in_all_queues_or_in_none(server: Server, queue: str) -> None:
    other = queue + ".other"
    ask(server, "PUT", f"/v1/queues/{other}")
    status, reply = ask(server, "POST", "/v1/atomic", {"messages": [
        {"queue": queue, "body": "a", "tag": "t"}, {"queue": other, "body": "b"},
        {"queue": other, "body_base64": "bGF0ZXI=", "delay_ms": HOUR_MS}]})
    assert status == 201
    assert [(one["offset"], one.get("waits", False)) for one in reply["receipts"]] == [
        (0, False), (0, False), (None, True)]
    assert received(server, queue) == ["a"] and received(server, other) == ["b"]
    one = {"queue": queue, "body": "never"}
    for messages, expected in (
        ([one, {"queue": "none", "body": "x"}], 404), ([], 400), ([{"body": "x"}], 400),
        ([{**one, "half": True}], 400), ([{**one, "delay_ms": 1, "due_us": 1}], 400),
        ([one, {"queue": queue}], 400), ([{**one, "colour": 1}], 400), ([one] * 1025, 413),
    ):
        status, problem = ask(server, "POST", "/v1/atomic", {"messages": messages})
        assert status == expected, problem
        assert problem["type"].startswith("urn:penstock:problem:")
    assert received(server, queue) == []


SENDS: list[tuple[Any, dict[str, Any]]] = [
    ({"body": "x", "delay_ms": -1}, {}),
    ({"body": "x", "delay_ms": 1, "due_us": 1}, {}),
    ({"body": "x", "delay_ms": DECADE_MS}, {}),
    ({"body": "x", "due_us": 1 << 62}, {}),
    ({"body": "x", "delay_ms": 1.5}, {}),
    ({"body": "x", "producer_group": "g"}, {}),
    ({"body": "x", "checks": 5}, {}),
    ({"body": "x", "half": True, "checks": 0}, {}),
    ({"body": "x", "half": True, "checks": 256}, {}),
    ({"body": "x", "half": True, "check_interval_ms": 5}, {}),
    ({"body": "x", "half": True, "first_check_ms": 13 * HOUR_MS}, {}),
    ({"body": "x", "half": True, "producer_group": "g" * 256}, {}),
    (b"x", {"Penstock_Delay": "soon"}),
    (b"x", {"Penstock_Delay": "-1"}),
    (b"x", {"Penstock_Delay": "1", "Penstock_Due": "1"}),
    (b"x", {"Penstock_Due": "9" * 18}),
    (b"x", {"Penstock_Due": "9" * 19}),
    (b"x", {"Penstock_Checks": "3"}),
    (b"x", {"Penstock_Later": "1"}),
]


@pytest.mark.parametrize(("body", "fields"), SENDS)
def test_a_send_that_cannot_wait_so_is_refused(
    server: Server, queue: str, body: Any, fields: dict[str, Any]
) -> None:
    # The second time the target is known to the hot path.
    send(server, queue, b"warm")
    status, problem = send(server, queue, body, **fields)
    assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid"), problem
    assert received(server, queue) == ["warm"]
    assert ask(server, "GET", f"/v1/pending?queue={queue}")[1]["messages"] == []


WAITS = "00000001-p000000000000001"
ASKS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/pending?queue=none", None, 404),
    ("GET", "/v1/pending?limit=0", None, 400),
    ("GET", "/v1/pending?limit=many", None, 400),
    ("GET", "/v1/pending?state=dead", None, 400),
    ("GET", "/v1/pending?cursor=x", None, 400),
    ("GET", "/v1/pending?colour=red", None, 400),
    ("POST", "/v1/pending", {}, 405),
    ("GET", "/v1/pending/7", None, 400),
    ("GET", f"/v1/pending/{WAITS}", None, 404),
    ("DELETE", f"/v1/pending/{WAITS}", None, 404),
    ("PATCH", f"/v1/pending/{WAITS}", {"delay_ms": 1}, 404),
    ("PATCH", f"/v1/pending/{WAITS}", {}, 400),
    ("PATCH", f"/v1/pending/{WAITS}", {"delay_ms": -1}, 400),
    ("PATCH", f"/v1/pending/{WAITS}", {"delay_ms": 1, "due_us": 1}, 400),
    ("POST", f"/v1/pending/{WAITS}", {}, 405),
    ("POST", f"/v1/pending/{WAITS}/commit", None, 404),
    ("POST", f"/v1/pending/{WAITS}/rollback", None, 404),
    ("GET", f"/v1/pending/{WAITS}/commit", None, 405),
    ("POST", "/v1/pending/x/commit", None, 400),
    ("POST", f"/v1/pending/{WAITS}/forget", None, 404),
    ("POST", f"/v1/pending/{WAITS}/commit/now", None, 404),
    ("GET", "/v1/checks", None, 405),
    ("POST", "/v1/checks", {"group": "g" * 256}, 400),
    ("POST", "/v1/checks", {"wait_ms": 600_001}, 400),
    ("POST", "/v1/checks", {"max_messages": 0}, 400),
    ("POST", "/v1/checks/x", {}, 404),
    ("POST", "/v1/atomic", {"messages": 1}, 400),
]


@pytest.mark.parametrize(("method", "path", "body", "expected"), ASKS)
def test_asks_that_make_no_sense_are_named(
    server: Server, method: str, path: str, body: Any, expected: int
) -> None:
    status, problem = ask(server, method, path, body)
    assert (status, problem["status"]) == (expected, expected), problem


def test_a_partition_is_a_queue_for_which_messages_wait(server: Server) -> None:
    ask(server, "PUT", "/v1/topics/t")
    assert send(server, "t%230", {"body": "x", "delay_ms": HOUR_MS})[0] == 201


def test_a_schedule_lives_and_fires(server: Server, queue: str) -> None:
    plan = {"cron": "*/5 * * * *", "queue": queue, "body": "{{name}}", "zone": "Europe/Berlin"}
    status, told = ask(server, "PUT", "/v1/schedules/five", plan)
    assert status == 200 and len(told["next"]) == 5
    assert ask(server, "GET", "/v1/schedules/five") == (200, told)
    assert [one["name"] for one in ask(server, "GET", "/v1/schedules")[1]["schedules"]] == ["five"]
    assert ask(server, "POST", "/v1/schedules/five/pause")[1]["next"] == []
    assert ask(server, "POST", "/v1/schedules/five/resume")[1]["next"] == told["next"]
    for body, expected in (
        ({**plan, "cron": "soon"}, 400), ({**plan, "queue": "none"}, 404), ([], 400),
        ({**plan, "name": "x"}, 400), ({**plan, "zone": "Mars"}, 400),
    ):
        assert ask(server, "PUT", "/v1/schedules/other", body)[0] == expected
    assert ask(server, "DELETE", "/v1/schedules/five") == (204, None)
    for method, path in (("GET", "five"), ("DELETE", "five"), ("POST", "five/pause")):
        assert ask(server, method, f"/v1/schedules/{path}")[0] == 404
    assert ask(server, "POST", "/v1/schedules")[0] == 405


def test_the_document_tells_all_of_it(server: Server) -> None:
    document = ask(server, "GET", "/openapi.json")[1]
    for path in ("/v1/pending", "/v1/pending/{id}", "/v1/pending/{id}/commit", "/v1/checks",
                 "/v1/atomic"):
        assert path in document["paths"]
    fields = document["components"]["schemas"]["SendRequest"]["properties"]
    assert {"delay_ms", "due_us", "half", "producer_group"} <= fields.keys()
    names = [one["name"] for one in document["paths"]["/v1/pending"]["get"]["parameters"]]
    assert {"queue", "state", "since_us", "until_us", "limit", "cursor"} <= set(names)
