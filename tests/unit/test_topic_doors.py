"""Topics through the native protocol: both clients and the command line."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.server import cli

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def address(server: Server) -> str:
    return f"127.0.0.1:{server.tcp}"


def test_a_topic_through_the_client(server: Server) -> None:
    with penstock.connect(address(server)) as client:
        topic = client.topic("orders")
        assert topic.create(2)["new"] and topic.grow(3)["partitions"] == 3
        topic.send(b"old", tag="paid", partition=0)
        topic.subscribe("paid", kind="tag", source="paid", start="earliest")
        sent = topic.send(b"new", 0, tag="paid", properties={"n": "1"})
        assert (sent["partition"], sent["offset"], sent["queues"]) == (0, 1, 1)
        assert topic.send(b"other", tag="x")["queues"] == 0
        got = client.queue("paid").receive(9)
        assert [bytes(one.body) for one in got] == [b"old", b"new"]
        assert got[1].tag == "paid" and dict(got[1].properties) == {"n": "1"}
        for group in ("one", "two"):
            partition = client.queue(topic.partition(0), group=group, create=False)
            messages = partition.receive(9)
            assert [bytes(one.body) for one in messages][:2] == [b"old", b"new"]
            client.confirm(messages)
            # A cursor of one's own: the group goes back to an offset and reads on from there.
            partition.seek(offset=1)
            assert bytes(partition.receive(1)[0].body) == b"new"
        topic.unsubscribe("paid")
        assert topic.show()["subscriptions"] == []
        topic.delete()
        with pytest.raises(penstock.QueueNotFoundError):
            topic.show()


def test_a_topic_through_the_asyncio_client(server: Server) -> None:
    async def run() -> None:
        async with penstock.AsyncClient(address(server)) as client:
            topic = client.topic("async")
            await topic.create()
            await topic.subscribe("async-queue")
            assert (await topic.send(b"x"))["queues"] == 1
            [one] = await (await client.queue("async-queue")).receive()
            assert bytes(one.body) == b"x"

    asyncio.run(run())


@pytest.mark.parametrize(("do", "fields"), [
    ("topic.create", {"name": "a#b"}), ("topic.create", {"name": "t", "partitions": "2"}),
    ("topic.create", {"name": "t", "partitions": True}), ("topic.create", {"name": 5}),
    ("topic.send", {"name": "bad", "body": "%"}), ("topic.send", {"name": "bad", "body": 5}),
    ("topic.send", {"name": "bad", "body": "", "attributes": "AQ=="}),
    ("topic.send", {"name": "bad", "durability": "none"}),
    ("topic.send", {"name": "bad", "partition": 9}),
    ("topic.send", {"name": "bad", "partition": -1}),
    ("topic.subscribe", {"name": "bad", "queue": "q", "kind": 5}),
    ("topic.subscribe", {"name": "bad", "queue": "q", "kind": "sql", "source": "a >"}),
    ("topic.subscribe", {"name": "bad", "queue": "q", "start": -1}),
    ("topic.subscribe", {"name": "bad", "queue": "bad#0"}),
    ("topic.nothing", {"name": "bad"}), ("queue.delete", {"name": "bad#0"}),
    ("queue.purge", {"name": "bad#0"}),
])
def test_bad_input_is_refused(server: Server, do: str, fields: dict[str, Any]) -> None:
    with penstock.connect(address(server)) as client:
        client.topic("bad").create()
        with pytest.raises(penstock.InvalidError):
            client.admin(do, **fields)
        with pytest.raises(penstock.InvalidError):
            client.queue("made#0", create=True)


def test_a_topic_on_the_command_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> Any:
        code = cli.main([*words, "-o", "json", "--server", address(server)])
        text = capsys.readouterr().out
        return code, json.loads(text) if text else None

    assert run("topic", "create", "shell", "--partitions", "2")[1][0]["partitions"] == 2
    assert run("topic", "subscribe", "shell", "shell-q", "--kind", "tag", "--filter", "a")[0] == 0
    assert run("topic", "send", "shell", "hello", "--tag", "a")[1][0]["queues"] == 1
    assert {"topic": "shell"} in run("topic", "list")[1]
    assert run("topic", "grow", "shell", "--partitions", "3")[1][0]["partitions"] == 3
    assert run("topic", "unsubscribe", "shell", "shell-q")[0] == 0
    assert run("topic", "delete", "shell")[0] == 0
    assert run("topic", "show", "shell")[0] == cli.EXIT_NOT_FOUND
