"""A group's filter through every door: HTTP, the native protocol with both clients, commands."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncClient, Client, ExistsError, InvalidError, QueueNotFoundError
from penstock.server import cli

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import ask

GROUP = "/v1/queues/red/groups/g"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("red")
        for at in range(4):
            queue.send(b"%d" % at, tag="ab"[at % 2], properties={"price": str(at)})
        yield client
        client.delete("red")


def bodies(server: Server, **asked: Any) -> list[str]:
    status, told, _ = ask(server, "POST", "/v1/queues/red/receive",
                          {"group": "g", "max_messages": 10, **asked})
    assert status == 200, told
    return [one["body"] for one in told["messages"]]


def test_a_filter_is_set_and_told_over_http(server: Server, client: Client) -> None:
    status, told, _ = ask(server, "PUT", GROUP, {"filter": "b"})
    assert (status, told["kind"], told["filter"]) == (200, "tag", "b") and told["generation"]
    assert ask(server, "GET", GROUP)[1] == told == client.group_settings("red", "g")
    assert bodies(server) == ["1", "3"]
    status, told, _ = ask(server, "PUT", GROUP, {"filter": "price > 1", "kind": "sql"})
    assert (status, told["kind"], told["filter"]) == (200, "sql", "price > 1")
    assert ask(server, "PUT", GROUP, {"filter": None})[1]["kind"] is None
    assert ask(server, "PUT", "/v1/queues/red/groups/", {"filter": "a"})[1]["group"] == ""
    assert ask(server, "GET", "/v1/queues/red/groups/")[1]["filter"] == "a"


def test_the_clients_set_what_a_group_gets(server: Server, client: Client) -> None:
    told = client.set_filter("red", "g", "price BETWEEN 1 AND 2", kind="sql")
    assert (told["kind"], told["cursor"]) == ("sql", 0)
    group = client.queue("red").group("g")
    assert [message.body for message in group.receive(10, wait=2)] == [b"1", b"2"]
    assert client.explain("red", 0, group="g")["reason"] == "filtered"
    assert not client.explain("red", 3, group="g")["deliverable"]

    async def other() -> Any:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as beside:
            await beside.set_filter("red", "h", "a")
            return await beside.group_settings("red", "h")

    assert asyncio.run(other())["filter"] == "a"


def test_a_member_with_another_filter_is_refused(server: Server, client: Client) -> None:
    assert client.join_group("red", "g", "a || b")["filter"] == "a || b"
    assert client.join_group("red", "g", "a || b")["kind"] == "tag"
    for wrong in ({"filter": "a"}, {"filter": ""}, {"filter": "a || b", "kind": "routing"}):
        with pytest.raises(ExistsError, match="has the tag filter 'a || b', not"):
            client.join_group("red", "g", **wrong)
        status, problem, _ = ask(server, "POST", "/v1/queues/red/receive", {"group": "g", **wrong})
        assert status == 409 and "members share one" in problem["detail"]
    assert bodies(server, filter="a || b") == ["0", "1", "2", "3"]
    with pytest.raises(InvalidError, match="column 1"):
        client.join_group("red", "unborn", "|| x")
    with pytest.raises(QueueNotFoundError):
        client.group_settings("red", "unborn")


def test_what_is_no_filter_is_refused_with_its_column(server: Server, client: Client) -> None:
    with pytest.raises(InvalidError, match="column 9: a value expected"):
        client.set_filter("red", "g", "price > ", kind="sql")
    for wrong in ({"filter": "price >", "kind": "sql"}, {"kind": "x"}, {"colour": 1}, {"filter": 5},
                  {"queue": "blue", "filter": "a"}, {"filter": "x" * 5000}):
        status, problem, _ = ask(server, "PUT", GROUP, wrong)
        assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid"), wrong
    for body in (b"[]", b"{", b"1"):
        assert ask(server, "PUT", GROUP, body, Content_Type="application/json")[0] == 400
    assert ask(server, "GET", "/v1/queues/none/groups/g")[0] == 404
    assert ask(server, "GET", "/v1/queues/red/groups/none")[0] == 404
    assert ask(server, "GET", "/v1/queues/red/groups")[0] == 404
    assert ask(server, "GET", f"{GROUP}/more")[0] == 404
    assert ask(server, "PUT", "/v1/queues/red/groups/groups", {})[0] == 200
    assert ask(server, "PATCH", GROUP)[0] == 405


def test_the_command_line_shows_and_sets(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str) -> Any:
        server_at = ("--server", f"127.0.0.1:{server.tcp}", "-o", "json")
        assert cli.main([*words, *server_at]) == cli.EXIT_OK
        return json.loads(capsys.readouterr().out)[0]

    routing = told("group", "red", "g", "--filter", "order.#", "--kind", "routing")
    assert routing["kind"] == "routing"
    assert told("group", "red", "g")["filter"] == "order.#"
    assert told("group", "red", "g", "--filter", "")["kind"] is None
    assert told("group", "red")["group"] == ""


def test_a_parked_receiver_is_woken_behind_many_it_does_not_want(
    server: Server, client: Client
) -> None:
    client.set_filter("red", "far", "TAGS = 'z'", kind="sql")
    queue = client.queue("red")
    for _ in range(10):
        queue.send_many([b""] * 10_000, durability="kernel")
    queue.send(b"found", tag="z")
    [message] = queue.group("far").receive(1, wait=20)
    assert message.body == b"found"
