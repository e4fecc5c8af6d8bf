"""Sends to topics that are numbered or are halves, through each door."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock

sys.path.insert(0, str(Path(__file__).parent))
from cutting_relay import Relay
from server_process import Server, Wire
from test_http_door import ask
from test_throttle import until

ADMIN = 12


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store"), workers=2) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        yield client


def bodies(client: penstock.Client, queue: str) -> list[bytes]:
    return [one.body for one in client.queue(queue).peek(max_messages=99)]


def made(client: penstock.Client, name: str, partitions: int = 3) -> Any:
    topic = client.topic(name)
    topic.create(partitions)
    topic.subscribe(f"{name}-q")
    return topic


def admin(wire: Wire, **fields: Any) -> tuple[int, Any]:
    status, payload = wire.call(ADMIN, json.dumps(fields).encode())
    return status, json.loads(payload) if status == 0 else payload[4:].decode()


def test_a_numbered_send_is_stored_once_wherever_its_turn_would_be(
    server: Server, client: penstock.Client
) -> None:
    made(client, "once")
    text = base64.b64encode(b"x").decode()
    sends = {"do": "topic.send", "name": "once", "body": text, "sequence": 1}
    told = []
    for _ in range(3):
        # Another connection, perhaps to another worker.
        with Wire(server.tcp, producer=4711) as wire:
            status, answer = admin(wire, **sends)
            assert status == 0
            told.append(answer)
    assert [one["duplicate"] for one in told] == [False, True, True]
    places = {(one["id"], one["partition"], one["offset"], one["queues"]) for one in told}
    assert len(places) == 1
    assert bodies(client, "once-q") == [b"x"]
    with Wire(server.tcp, producer=4711) as wire:
        status, answer = admin(wire, **{**sends, "sequence": 2, "delay_ms": 3_600_000})
        assert status == 0 and answer["waits"] and not answer["duplicate"]
        status, again = admin(wire, **{**sends, "sequence": 2, "delay_ms": 3_600_000})
        assert status == 0 and again["duplicate"] and again["id"] == answer["id"]


def test_a_client_whose_connection_breaks_during_a_send_asks_again(
    server: Server, client: penstock.Client
) -> None:
    made(client, "broken")
    relay = Relay(server.tcp)
    with penstock.connect(f"127.0.0.1:{relay.port}") as other:
        topic = other.topic("broken")
        assert not topic.send(b"1")["duplicate"]
        relay.armed = True
        told = topic.send(b"2")
        assert told["duplicate"] and relay.cuts == 1
        relay.armed = True
        topic.transaction(b"half").prepare()
        assert relay.cuts == 2

    async def again() -> None:
        async with penstock.AsyncClient(f"127.0.0.1:{relay.port}") as other:
            await other.ping()
            relay.armed = True
            assert (await other.topic("broken").send(b"3"))["duplicate"]

    asyncio.run(again())
    relay.close()
    assert relay.cuts == 3 and bodies(client, "broken-q") == [b"1", b"2", b"3"]
    assert len(client.pending(topic="broken")["messages"]) == 1


def test_the_same_over_http(server: Server, client: penstock.Client) -> None:
    made(client, "web")
    head = {"Penstock-Producer": "4712", "Penstock-Sequence": "1"}
    told = [ask(server, "POST", "/v1/topics/web/messages", {"body": "x"}, **head)[1]
            for _ in range(3)]
    assert [one["duplicate"] for one in told] == [False, True, True]
    assert len({(one["id"], one["partition"], one["offset"]) for one in told}) == 1
    assert bodies(client, "web-q") == [b"x"]


def test_a_half_to_a_topic_comes_when_it_is_committed(
    server: Server, client: penstock.Client
) -> None:
    topic = made(client, "half")
    with topic.transaction(b"paid", tag="a") as half:
        [row] = client.pending(topic="half")["messages"]
        assert row["state"] == "half" and bodies(client, "half-q") == []
    assert half.receipt is not None
    with pytest.raises(ZeroDivisionError), topic.transaction(b"failed"):
        raise ZeroDivisionError
    with topic.transaction(b"by hand") as half:
        half.rollback()
    assert client.queue("half-q").receive(9, wait=20)[0].body == b"paid"

    async def other() -> None:
        async with penstock.AsyncClient(f"127.0.0.1:{server.tcp}") as one:
            async with one.topic("half").transaction(b"async"):
                pass

    asyncio.run(other())
    assert client.queue("half-q").receive(9, wait=20)[0].body == b"async"
    assert bodies(client, "half-q") == [b"paid", b"async"]
    assert client.pending(topic="half")["messages"] == []


def test_a_producer_is_asked_about_a_half_to_a_topic_by_the_topics_name(
    client: penstock.Client
) -> None:
    topic = made(client, "asked")
    heard = []

    def answer(check: penstock.Check) -> bool:
        heard.append((check.queue, check.body))
        return True

    client.on_check("bank", answer)
    topic.transaction(b"x", producer_group="bank", first_check=0).prepare()
    assert client.queue("asked-q").receive(1, wait=20)[0].body == b"x"
    assert heard == [("asked", b"x")]


def test_the_same_by_long_poll(server: Server, client: penstock.Client) -> None:
    made(client, "poll")
    half = {"body": "x", "half": True, "producer_group": "poll-bank", "first_check_ms": 0}
    id = ask(server, "POST", "/v1/topics/poll/messages", half)[1]["id"]
    asked = {"group": "poll-bank", "wait_ms": 20_000}
    [check] = ask(server, "POST", "/v1/checks", asked)[1]["checks"]
    assert (check["id"], check["queue"], check["body"]) == (id, "poll", "x")
    assert ask(server, "POST", f"/v1/pending/{id}/commit")[0] == 200
    assert client.queue("poll-q").receive(1, wait=20)[0].body == b"x"


@pytest.mark.parametrize("fields", [
    {"sequence": -1}, {"sequence": 1 << 64}, {"sequence": "1"}, {"sequence": True},
    {"half": 1}, {"half": True, "producer_group": 5}, {"producer_group": "g"}, {"checks": 3},
    {"half": True, "checks": 0}, {"half": True, "checks": 256},
    {"half": True, "check_interval_ms": 1}, {"half": True, "first_check_ms": -1},
    {"half": True, "producer_group": "g" * 256}, {"half": True, "due_us": 5, "delay_ms": 5},
])
def test_what_cannot_be_is_refused(
    server: Server, client: penstock.Client, fields: dict[str, Any]
) -> None:
    client.topic("bad").create()
    with Wire(server.tcp, producer=1) as wire:
        assert admin(wire, do="topic.send", name="bad", body="", **fields)[0] == 9
    assert client.topic("bad").show()["messages"][0]["next"] == 0


def test_a_number_without_a_producer_is_refused(server: Server, client: penstock.Client) -> None:
    client.topic("bad").create()
    with Wire(server.tcp) as wire:
        status, text = admin(wire, do="topic.send", name="bad", body="", sequence=1)
        assert status == 9 and "HELLO" in text


def test_what_is_too_large_for_a_topic_is_refused(server: Server, client: penstock.Client) -> None:
    client.topic("large").create()
    with pytest.raises(penstock.TooLargeError):
        client.topic("large").send(bytes((4 << 20) + 1))


def test_halves_on_the_command_line(
    server: Server, client: penstock.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.server import cli

    def run(*words: str) -> Any:
        code = cli.main([*words, "--server", f"127.0.0.1:{server.tcp}", "-o", "json"])
        said = capsys.readouterr().out
        return json.loads(said) if code == 0 else code

    made(client, "shell")
    for words in (("topic", "send", "shell", "x"), ("send", "shell-q", "y")):
        [sent] = run(*words, "--half", "--producer-group", "bank", "--tag", "a")
        assert sent["half"] and run("pending", "list", "--state", "half")
        assert run("pending", "commit", sent["id"])[0]["duplicate"] is False
    got = []
    while len(got) < 2:
        got += client.queue("shell-q").receive(9, wait=20)
    assert sorted(one.body for one in got) == [b"x", b"y"] and {one.tag for one in got} == {"a"}
    assert run("send", "shell-q", "x", "y", "--half") == cli.EXIT_USAGE


def test_a_subscription_begins_at_an_offset_through_each_door(
    server: Server, client: penstock.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    from penstock.server import cli

    topic = client.topic("past")
    topic.create(2)
    for at in range(6):
        topic.send(b"%d" % at, partition=at % 2)
    topic.subscribe("past-1", offset=1)
    assert ask(server, "PUT", "/v1/topics/past/subscriptions/past-2", {"offset": 2})[0] == 201
    assert cli.main(["topic", "subscribe", "past", "past-3", "--offset", "3",
                     "--server", f"127.0.0.1:{server.tcp}"]) == 0
    capsys.readouterr()
    topic.send(b"new")
    assert sorted(bodies(client, "past-1")) == [b"2", b"3", b"4", b"5", b"new"]
    assert sorted(bodies(client, "past-2")) == [b"4", b"5", b"new"]
    assert bodies(client, "past-3") == [b"new"]
    for wrong in ({"offset": -1}, {"offset": 1 << 63}, {"offset": 1, "start": "earliest"}):
        with pytest.raises(penstock.InvalidError):
            topic.subscribe("past-4", **wrong)
        path = "/v1/topics/past/subscriptions/past-4"
        assert ask(server, "PUT", path, wrong)[0] == 400
    assert [one["queue"] for one in topic.show()["subscriptions"]] == ["past-1", "past-2", "past-3"]


def test_receiving_from_a_topic_over_http_is_bound_by_quotas_and_by_the_filter(
    server: Server, client: penstock.Client
) -> None:
    topic = client.topic("bound")
    topic.create(2)
    topic.group("g", filter="a")
    for at in range(8):
        topic.send(b"%d" % at, tag="a", partition=at % 2)
    client.admin("quota.set", scope="queue", name="bound",
                 quota={"in_flight": 1, "receives_per_s": 1000})
    path = "/v1/topics/bound/receive"
    probe = {"group": "probe", "max_messages": 9}
    until(lambda: all(ask(server, "POST", path, probe)[0] == 429 for _ in range(8)))
    # One of each partition is out, and no more come.
    for _ in range(8):
        status, told, _ = ask(server, "POST", path, {"group": "g", "max_messages": 9})
        assert status == 429 or len(told["messages"]) == 1
    assert ask(server, "POST", path, {"group": "g", "wait_ms": 60})[0] == 429
    leased = [client.group_settings(topic.partition(number), "g")["in_flight"] for number in (0, 1)]
    assert leased == [1, 1]
    status, problem, _ = ask(server, "POST", path, {"group": "g", "filter": "b"})
    assert status == 409, problem
    assert ask(server, "POST", path, {"group": "g", "filter": "a"})[0] == 429
