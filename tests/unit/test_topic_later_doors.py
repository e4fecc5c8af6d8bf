"""Messages that wait for a topic, its settings, long lists, numbered atomic sends: every door."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire
from test_http_door import ask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store"), workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        yield client


def received(client: penstock.Client, queue: str, count: int = 1) -> list[bytes]:
    got: list[bytes] = []
    opened = client.queue(queue, create=False)
    while len(got) < count:
        found = opened.receive(count, wait=20)
        assert found, f"{queue} has {got}"
        client.confirm(found)
        got += [message.body for message in found]
    return got


def cli(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    from penstock.server import cli as command

    assert command.main([*words, "--server", f"127.0.0.1:{server.tcp}", "-o", "json"]) == 0
    said = capsys.readouterr().out
    return json.loads(said) if said else None


def test_the_clients_delay_move_and_cancel(server: Server, client: penstock.Client) -> None:
    topic = client.topic("client")
    topic.create(2)
    topic.subscribe("client-q", kind="tag", source="a")
    began = time.time()
    sent = topic.send(b"soon", delay=0.3, tag="a")
    assert sent["waits"] and sent["partition"] is None and sent["offset"] is None
    late = topic.send(b"late", at=time.time() + 3600, tag="a")
    gone = topic.send(b"gone", delay=3600, tag="a")
    listed = client.pending(topic="client")["messages"]
    assert {row["id"] for row in listed} >= {late["id"], gone["id"]}
    assert client.cancel(gone["id"])["cancelled"]
    client.move(late["id"], delay=0.1)
    assert sorted(received(client, "client-q", 2)) == [b"late", b"soon"]
    assert time.time() - began >= 0.3
    with pytest.raises(penstock.QueueNotFoundError):
        client.pending_message(gone["id"])
    with pytest.raises(penstock.InvalidError):
        topic.send(b"", delay=1e12)

    async def other() -> None:
        async with penstock.AsyncClient(f"127.0.0.1:{server.tcp}") as one:
            told = await one.topic("client").send(b"async", delay=0.1, tag="a")
            assert told["waits"]
            await one.topic("client").configure(retain_ms=86_400_000)
            set_ = await one.topic("client").group("g", order="key")
            assert set_["order"] == "key"

    asyncio.run(other())
    assert received(client, "client-q") == [b"async"]
    shown = topic.show()
    assert shown["settings"] == {"retain_ms": 86_400_000} and "g" in shown["groups"]


def test_http(server: Server, client: penstock.Client) -> None:
    assert ask(server, "PUT", "/v1/topics/web")[0] == 201
    assert ask(server, "PUT", "/v1/topics/web/subscriptions/web-q", {})[0] == 201
    path = "/v1/topics/web/messages"
    status, sent, _ = ask(server, "POST", path, {"body": "x", "delay_ms": 200})
    assert status == 201 and sent["waits"] and sent["offset"] is None
    status, other, _ = ask(server, "POST", path, {"body": "y", "delay_ms": 3_600_000})
    [row] = ask(server, "GET", f"/v1/pending?topic=web&since_us={other_due(server, other)}")[1][
        "messages"]
    assert row["id"] == other["id"] and row["topic"] == "web"
    assert ask(server, "DELETE", f"/v1/pending/{other['id']}")[0] == 200
    status, half, _ = ask(server, "POST", path, {"body": "h", "half": True})
    assert status == 201 and half["waits"]
    assert ask(server, "POST", f"/v1/pending/{half['id']}/commit")[0] == 200
    assert sorted(received(client, "web-q", 2)) == [b"h", b"x"]
    status, told, _ = ask(server, "PUT", "/v1/topics/web/settings", {"dedup_ms": 60_000})
    assert (status, told["dedup_ms"]) == (200, 60_000)
    assert ask(server, "GET", "/v1/topics/web/settings")[1]["dedup_ms"] == 60_000
    status, told, _ = ask(server, "PUT", "/v1/topics/web/groups/g", {"order": "strict"})
    assert (status, told["order"]) == (200, "strict")
    assert ask(server, "GET", "/v1/topics/web/groups/g")[1]["order"] == "strict"
    for body in ({"order": "some"}, {"name": "x"}, {"group": "x"}, [1]):
        assert ask(server, "PUT", "/v1/topics/web/groups/g", body)[0] == 400
    assert ask(server, "PUT", "/v1/topics/none/settings", {"dedup_ms": 1})[0] == 404
    body = {"body": "once", "message_id": "1"}
    assert [ask(server, "POST", path, body)[1].get("duplicate", False) for _ in range(3)] == [
        False, True, True]


def other_due(server: Server, sent: dict[str, Any]) -> int:
    due: int = ask(server, "GET", f"/v1/pending/{sent['id']}")[1]["due_us"]
    return due


def test_the_command_line(
    server: Server, client: penstock.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    cli(server, capsys, "topic", "create", "shell")
    cli(server, capsys, "topic", "subscribe", "shell", "shell-q")
    [sent] = cli(server, capsys, "topic", "send", "shell", "x", "--delay", "1h")
    assert sent["waits"] is True
    [row] = cli(server, capsys, "pending", "list", "--topic", "shell")
    assert row["id"] == sent["id"]
    cli(server, capsys, "pending", "move", sent["id"], "--delay", "0.1")
    assert received(client, "shell-q") == [b"x"]
    [told] = cli(server, capsys, "topic", "set", "shell", "--dedup-ms", "1000", "--keep", "all")
    assert told["dedup_ms"] == 1000
    [told] = cli(server, capsys, "topic", "group", "shell", "g", "--order", "key", "--attempts",
                 "3", "--dead-letter", "shell-dead")
    assert told["order"] == "key" and told["retry"]["dead_letter"] == "shell-dead"
    assert cli(server, capsys, "topic", "group", "shell", "g")[0]["order"] == "key"


def test_lists_go_on_with_a_cursor(
    server: Server, client: penstock.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"many-{at:02}" for at in range(25)]
    for name in names:
        client.queue(name)
    page = client.admin("queue.list", prefix="many-", limit=10)
    assert page == {"queues": names[:10], "next": names[9]}
    page = client.admin("queue.list", prefix="many-", limit=10, cursor=names[19])
    assert page == {"queues": names[20:], "next": None}
    assert client.list("many-")["queues"] == names
    got, cursor = [], ""
    while cursor is not None:
        status, page, _ = ask(
            server, "GET", f"/v1/queues?prefix=many-&limit=7&cursor={cursor}")
        assert status == 200 and len(page["queues"]) <= 7
        got, cursor = got + page["queues"], page["next"]
    assert got == names
    for query in ("limit=0", "limit=10001", "limit=x", "since=1"):
        assert ask(server, "GET", f"/v1/queues?{query}")[0] == 400
    with pytest.raises(penstock.InvalidError):
        client.admin("queue.list", limit=0)
    rows = cli(server, capsys, "queue", "list", "--prefix", "many-")
    assert [row["queue"] for row in rows] == names

    async def other() -> None:
        async with penstock.AsyncClient(f"127.0.0.1:{server.tcp}") as one:
            assert (await one.list("many-"))["queues"] == names

    asyncio.run(other())
    for name in ("list-a", "list-b", "list-c"):
        client.topic(name).create()
    page = client.admin("topic.list", prefix="list-", limit=2)
    assert page == {"topics": ["list-a", "list-b"], "next": "list-b"}
    page = ask(server, "GET", "/v1/topics?prefix=list-&limit=2&cursor=list-b")[1]
    assert page == {"topics": ["list-c"], "next": None}


def test_an_atomic_send_that_comes_again_is_one(server: Server, client: penstock.Client) -> None:
    red, blue = client.queue("atomic-red"), client.queue("atomic-blue")
    with Wire(server.tcp, producer=77) as wire:
        numbers = [wire.open(name) for name in ("atomic-red", "atomic-blue")]
        rows = b"".join(
            number.to_bytes(4, "little") + bytes(4) + (1).to_bytes(4, "little") + b"x"
            for number in numbers)
        payload = bytes([1, 1, 0, 0]) + (2).to_bytes(4, "little") + (5).to_bytes(8, "little") + rows
        first = wire.call(18, payload)
        again = wire.call(18, payload)
        assert first[0] == again[0] == 0
        told = [int.from_bytes(first[1][at:at + 8], "little") for at in (8, 24)]
        assert [int.from_bytes(again[1][at:at + 8], "little") for at in (8, 24)] == told
        assert [again[1][at] for at in (20, 36)] == [1, 1] and first[1][20] == 0
        # The flag without the number, and a flag that nobody knows.
        assert wire.call(18, payload[:12])[0] == 9
        assert wire.call(18, bytes([1, 2]) + payload[2:])[0] == 9
    assert len(red.peek(max_messages=9)) == len(blue.peek(max_messages=9)) == 1
    body = {"messages": [
        {"queue": name, "body": "h"} for name in ("atomic-red", "atomic-blue")]}
    head = {"Penstock-Producer": "78", "Penstock-Sequence": "1"}
    replies = [ask(server, "POST", "/v1/atomic", body, **head)[1]["receipts"] for _ in range(2)]
    assert [one["offset"] for one in replies[0]] == [one["offset"] for one in replies[1]] == [1, 1]
    assert all(one["duplicate"] for one in replies[1])
