"""Looking through every door: HTTP, the native protocol with both clients, the command line."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncClient, Client, InvalidError, QueueNotFoundError
from penstock.server import cli

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import OCTETS, ask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("red")
        queue.send_many([b"body %d" % at for at in range(20)])
        [first, second, _] = queue.receive(3)
        client.confirm([first])
        client.release([second], 3600)
        yield client


def test_http_says_what_the_clients_hear(server: Server, client: Client) -> None:
    for at, reason in ((0, "confirmed"), (1, "waiting"), (2, "leased"), (3, "fresh")):
        status, told, _ = ask(server, "GET", f"/v1/queues/red/explain?offset={at}")
        assert (status, told["reason"]) == (200, reason)
        assert client.explain("red", at)["reason"] == reason
        assert client.explain(id=told["id"])["reason"] == reason
    status, found, _ = ask(server, "GET", "/v1/queues/red/messages?text=body+1&limit=3")
    assert [one["offset"] for one in found["messages"]] == [1, 10, 11]
    assert found == client.find("red", text="body 1", limit=3)
    assert found["next"] == 12
    status, traced, _ = ask(server, "GET", "/v1/queues/red/trace?offset=0")
    assert [one["what"] for one in traced["events"]] == ["sent", "visible", "confirmed"]
    assert traced == client.trace("red", 0)
    for path in ("/v1/queues/red/lag", "/v1/lag", "/v1/queues/red/lag?group="):
        [row] = ask(server, "GET", path)[1]["groups"]
        assert (row["queue"], row["lag"], row["in_flight"]) == ("red", 19, 2)
    assert client.lag("red", "")["groups"][0]["lag"] == 19


def test_the_async_client_asks_the_same(server: Server, client: Client) -> None:
    async def look() -> tuple[Any, Any]:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as other:
            tried = await other.rewind("red", to="earliest", dry_run=True)
            return await other.explain("red", 0), tried

    explained, tried = asyncio.run(look())
    assert explained["reason"] == "confirmed" and tried["again"] == 1
    assert client.explain("red", 0)["reason"] == "confirmed"


def test_what_is_refused_has_its_name_on_every_door(server: Server, client: Client) -> None:
    for query in ("", "offset=x", "offset=1&more=1", "offset=-1", "offset=0&queue=blue"):
        status, problem, _ = ask(server, "GET", f"/v1/queues/red/explain?{query}")
        assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid"), query
    assert ask(server, "GET", "/v1/queues/none/trace?offset=0")[0] == 404
    assert ask(server, "POST", "/v1/queues/red/explain", {})[0] == 405
    assert ask(server, "POST", "/v1/lag", {})[0] == 405
    assert ask(server, "GET", "/v1/queues/red/messages?property.=1")[0] == 400
    for body in (b"[]", b"{", b'{"queue": "blue"}', b"1"):
        reply = ask(server, "POST", "/v1/queues/red/rewind", body, Content_Type="application/json")
        assert reply[0] == 400
    with pytest.raises(InvalidError, match="exactly one of id and offset"):
        client.explain("red")
    with pytest.raises(QueueNotFoundError):
        client.explain("none", 0)
    with pytest.raises(InvalidError, match="unknown field"):
        client.find("red", colour="blue")


def test_the_document_names_what_can_be_asked(server: Server) -> None:
    paths = ask(server, "GET", "/openapi.json")[1]["paths"]
    asked = {one["name"] for one in paths["/v1/queues/{queue}/messages"]["get"]["parameters"]}
    assert {"queue", "tag", "key", "text", "since_us", "cursor"} <= asked


def run(server: Server, *words: str) -> int:
    return cli.main([*words, "--server", f"127.0.0.1:{server.tcp}"])


def test_the_command_line_looks(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(*words: str) -> Any:
        assert run(server, *words, "-o", "json") == cli.EXIT_OK
        return json.loads(capsys.readouterr().out)

    assert run(server, "explain", "red", "1") == cli.EXIT_OK
    assert "given back with a delay" in capsys.readouterr().out
    [told] = rows("explain", "red", "0")
    assert told["reason"] == rows("explain", told["id"])[0]["reason"] == "confirmed"
    assert [one["what"] for one in rows("trace", "red", "0")] == ["sent", "visible", "confirmed"]
    assert [one["offset"] for one in rows("find", "red", "--text", "body 1", "-n", "2")] == [1, 10]
    run(server, "find", "red", "--text", "body 1", "-n", "2")
    assert "searched 11 of 20 messages, more: --cursor 11" in capsys.readouterr().err
    [row] = rows("lag", "red")
    assert row["lag"] == 19
    [tried] = rows("rewind", "red", "--dry-run")
    assert (tried["offset"], tried["again"]) == (0, 1)
    assert rows("rewind", "red", "--relative", "2", "--shadow", "beside")[0]["messages"] == 19
    assert rows("rewind", "red", "--relative=+5", "--dry-run")[0]["offset"] == 8
    assert run(server, "find", "red", "--property", "x") == cli.EXIT_USAGE
    assert run(server, "explain", "none", "0") == cli.EXIT_NOT_FOUND


def test_attributes_are_found_from_outside(server: Server) -> None:
    ask(server, "PUT", "/v1/queues/carried")
    ask(server, "POST", "/v1/queues/carried/messages", b"plain", **OCTETS)
    sent = {"body": "m", "tag": "a", "key": "k", "properties": {"p": "1"}}
    assert ask(server, "POST", "/v1/queues/carried/messages", sent)[0] == 201
    for query in ("tag=a", "key=k", "property.p=1", "tag=a&property.p=1"):
        found = ask(server, "GET", f"/v1/queues/carried/messages?{query}")[1]["messages"]
        assert [one["offset"] for one in found] == [1]
    assert found[0]["tag"] == "a" and found[0]["properties"] == {"p": "1"}
    assert ask(server, "GET", "/v1/queues/carried/messages?tag=b")[1]["messages"] == []
