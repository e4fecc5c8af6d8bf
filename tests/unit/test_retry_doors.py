"""Order, retries and dead letters through every door: HTTP, native with both clients, commands."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncClient, Client, InvalidError, QueueNotFoundError
from penstock.moved import Origin
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
            queue.send(b"%d" % at, key="ab"[at % 2], tag="xy"[at // 2])
        yield client
        for name in client.list()["queues"]:
            client.delete(name)


def told(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    at = ("--server", f"127.0.0.1:{server.tcp}", "-o", "json")
    assert cli.main([*words, *at]) == cli.EXIT_OK
    return json.loads(capsys.readouterr().out)


def fail(client: Client, reason: str = "", group: str = "g", count: int = 10) -> list[bytes]:
    """Take what there is and give it back."""
    messages = client.queue("red", group=group).receive(count)
    client.release(messages, reason=reason)
    return [message.body for message in messages]


def dead(client: Client, count: int, name: str = "dead") -> list[Any]:
    """So many dead letters; a move is seen once it is on disk, which nobody waits for."""
    found: list[Any] = []
    queue = client.queue(name, create=False)
    while len(found) < count:
        found += queue.peek(offset=found[-1].offset + 1 if found else 0, max_messages=10, wait=10)
    return found


def test_what_fails_too_often_is_a_dead_letter_with_its_story(
    server: Server, client: Client
) -> None:
    set_ = client.set_retry("red", "g", attempts=2, dead_letter="dead", backoff=[0])
    assert set_["retry"] == {"max_attempts": 2, "dead_letter": "dead", "backoff_ms": [0]}
    assert fail(client) == fail(client, "no such account") == [b"0", b"1", b"2", b"3"]
    letters = dead(client, 4)
    assert [one.body for one in letters] == [b"0", b"1", b"2", b"3"]
    origin = letters[1].origin
    assert isinstance(origin, Origin) and letters[1].key == "b"
    assert (origin.queue, origin.offset, origin.attempts) == ("red", 1, 2)
    assert (origin.reason, origin.text) == ("given back for the last time", "no such account")
    assert 0 < origin.sent_us < letters[1].stored_us
    assert client.explain(id=origin.id, group="g")["reason"] == "confirmed"
    [one] = ask(server, "GET", "/v1/queues/dead/peek?offset=1&max=1")[1]["messages"]
    assert one["origin"] == {
        "queue": "red", "id": origin.id, "offset": 1, "sent_us": origin.sent_us, "attempts": 2,
        "reason": origin.reason, "text": origin.text}
    status, _, head = ask(server, "POST", "/v1/queues/dead/receive", {},
                          Accept="application/octet-stream")
    assert status == 200 and head["Penstock-Origin-Queue"] == "red"
    assert head["Penstock-Origin-Text"] == "no such account"
    assert "origin" not in ask(server, "GET", "/v1/queues/red/peek")[1]["messages"][0]
    client.delete("red")
    assert dead(client, 4)[0].origin.queue == ""
    client.queue("red")


def test_retries_over_http(server: Server, client: Client) -> None:
    asked = {"retry": {"max_attempts": 1, "dead_letter": "dead"}, "order": "key", "filter": "x"}
    status, shown, _ = ask(server, "PUT", GROUP, asked)
    assert status == 200, shown
    assert (shown["order"], shown["filter"]) == ("key", "x")
    assert shown["retry"]["max_attempts"] == 1 and len(shown["retry"]["backoff_ms"]) == 11
    assert client.group_settings("red", "g") == shown
    receipts = [one["receipt"] for one in ask(
        server, "POST", "/v1/queues/red/receive", {"group": "g", "max_messages": 9})[1]["messages"]]
    assert len(receipts) == 2
    status, answer, _ = ask(server, "POST", "/v1/queues/red/release",
                            {"group": "g", "receipts": receipts, "reason": "läuft nicht"})
    assert (status, answer["verdicts"]) == (200, ["done", "done"])
    assert [one.origin.text for one in dead(client, 2)] == ["läuft nicht"] * 2
    assert ask(server, "PUT", GROUP, {"retry": None})[1]["retry"] is None
    assert ask(server, "PUT", GROUP, {"order": "none"})[1]["order"] == "none"
    assert ask(server, "GET", GROUP)[1]["filter"] == "x"


def test_the_next_of_a_key_comes_when_the_one_before_is_confirmed(
    server: Server, client: Client
) -> None:
    assert client.set_order("red", "g", "key")["order"] == "key"
    group = client.queue("red", group="g")
    first = group.receive(10)
    assert [one.body for one in first] == [b"0", b"1"]
    assert client.explain("red", 2, group="g")["reason"] == "held"
    first[0].confirm()
    assert [one.body for one in group.receive(10)] == [b"2"]
    client.set_order("red", "h", "strict")
    assert len(client.queue("red", group="h").receive(10)) == 1


def test_a_release_says_when_or_leaves_it_to_the_group(server: Server, client: Client) -> None:
    client.set_retry("red", "g", backoff=[3600])
    assert len(fail(client)) == 4 and fail(client) == []
    assert client.explain("red", 0, group="g")["reason"] == "waiting"
    client.no_retry("red", "g")
    client.rewind("red", group="g", to="earliest")
    assert len(fail(client)) == len(fail(client)) == 4
    client.release(client.queue("red", group="g").receive(4), delay=3600)
    assert fail(client) == []


def test_dead_letters_are_redriven_by_what_they_are(server: Server, client: Client) -> None:
    client.set_retry("red", "g", attempts=1, dead_letter="dead")
    fail(client, "timed out", count=2)
    fail(client, "bad input", count=2)
    dead(client, 4)
    for wanted, count in (
        ({}, 4), ({"text": "TIMED"}, 2), ({"reason": "given back"}, 4), ({"reason": "used up"}, 0),
        ({"origin": "red"}, 4), ({"origin": "blue"}, 0), ({"since_us": 1 << 60}, 0),
        ({"until_us": 1 << 60}, 4), ({"filter": "x"}, 2),
        ({"filter": "TAGS = 'y'", "kind": "sql", "text": "bad"}, 2), ({"end": 3}, 3),
    ):
        answer = client.redrive("dead", dry_run=True, **wanted)
        assert (answer["moved"], answer["next"]) == (count, None), wanted
    assert client.redrive("dead", text="timed", limit=3) | {"end": 0} == {
        "queue": "dead", "seen": 3, "wanted": 2, "moved": 2, "next": 3, "left": 4, "end": 0,
        "dry_run": False}
    assert [one.body for one in client.queue("red").peek(offset=4, max_messages=9)] == [b"0", b"1"]
    status, answer, _ = ask(server, "POST", "/v1/queues/dead/redrive", {"to": "red", "cursor": 1})
    assert (status, answer["moved"], answer["next"]) == (200, 2, None)
    assert client.lag("dead", "")["groups"][0]["lag"] == 0


def test_a_redrive_of_any_length_ends_though_they_die_again(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.set_retry("red", "g", attempts=1, dead_letter="dead")
    client.queue("red").send_many([b"x"] * 596)
    fail(client, count=600)
    dead(client, 600)
    seen: list[int] = []

    def step(answer: dict[str, Any]) -> None:
        seen.append(answer["seen"])
        fail(client, count=1000)

    total = client.redrive_all("dead", step=step)
    assert total == {"seen": 600, "wanted": 600, "moved": 600} and len(seen) == 3
    dead(client, 1200)

    async def other() -> dict[str, int]:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as beside:
            return await beside.redrive_all("dead", dry_run=True, rate=1e6)

    assert asyncio.run(other())["moved"] == 600
    [row] = told(server, capsys, "redrive", "dead", "--to", "red", "--rate", "100000",
                 "--until", "700")
    assert (row["seen"], row["moved"]) == (100, 100)
    assert told(server, capsys, "redrive", "dead", "--dry-run")[0]["moved"] == 500
    with pytest.raises(InvalidError, match="rate"):
        client.redrive_all("dead", rate=0)


def test_the_command_line_sets_and_gives_back(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = told(server, capsys, "group", "red", "g", "--order", "key", "--attempts", "1",
                 "--dead-letter", "dead", "--backoff", "0,1.5")
    assert row["retry"] == {"max_attempts": 1, "dead_letter": "dead", "backoff_ms": [0, 1500]}
    assert row["order"] == "key"
    rows = told(server, capsys, "receive", "red", "--group", "g", "-n", "2", "--release",
                "--reason", "by hand")
    assert [one["attempts"] for one in rows] == [1, 1]
    dead(client, 2)
    row = told(server, capsys, "peek", "dead")[0]
    assert (row["origin"], row["origin_offset"], row["text"]) == ("red", 0, "by hand")
    assert told(server, capsys, "group", "red", "g", "--no-retry")[0]["retry"] is None
    assert cli.main(["group", "red", "g", "--attempts", "3", "--server",
                     f"127.0.0.1:{server.tcp}"]) == cli.EXIT_FAILED


def test_what_a_handler_raises_is_told_with_the_dead_letter(
    server: Server, client: Client
) -> None:
    client.set_retry("red", "g", attempts=1, dead_letter="dead")

    async def broken(message: Any) -> None:
        raise ValueError(f"not {message.body.decode()}")

    async def run() -> None:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as beside:
            queue = await beside.queue("red", group="g")
            task = asyncio.create_task(asyncio.wait_for(queue.consume(broken), 60))
            letters = await beside.queue("dead", create=False)
            while len(await letters.peek(max_messages=9, wait=10, offset=0)) < 4:
                await asyncio.sleep(0)
            task.cancel()

    asyncio.run(run())
    said = {one.origin.text for one in dead(client, 4)}
    assert said == {f"ValueError: not {number}" for number in range(4)}


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"order": "random"}, "order"),
    ({"order": None}, "order"),
    ({"retry": 3}, "retry"),
    ({"retry": {"max_attempts": 3}}, "needs dead_letter"),
    ({"retry": {"max_attempts": -1, "dead_letter": "dead"}}, "max_attempts"),
    ({"retry": {"max_attempts": 65536, "dead_letter": "dead"}}, "max_attempts"),
    ({"retry": {"max_attempts": 3, "dead_letter": "red"}}, "its own"),
    ({"retry": {"max_attempts": 3, "dead_letter": "no name"}}, "a name is"),
    ({"retry": {"dead_letter": "x" * 200}}, "dead_letter"),
    ({"retry": {"backoff_ms": [1] * 65}}, "backoff_ms"),
    ({"retry": {"backoff_ms": [43_200_001]}}, "backoff_ms"),
    ({"retry": {"backoff_ms": ["1"]}}, "backoff_ms"),
    ({"retry": {"tries": 3}}, "tries"),
    ({"filter": "price >", "kind": "sql", "order": "key"}, "column"),
)


@pytest.mark.parametrize(("fields", "text"), WRONG)
def test_a_setting_that_cannot_be_is_refused_and_changes_nothing(
    fields: dict[str, Any], text: str, server: Server, client: Client
) -> None:
    before = client.set_order("red", "g", "strict")
    with pytest.raises(InvalidError, match=text):
        client.admin("group.set", queue="red", group="g", **fields)
    status, problem, _ = ask(server, "PUT", GROUP, fields)
    assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid")
    assert text in problem["detail"]
    assert client.group_settings("red", "g") == before
    assert client.list()["queues"] == ["red"]


WRONG_REDRIVES: tuple[tuple[dict[str, Any], str], ...] = (
    ({"limit": 0}, "limit"), ({"limit": 1001}, "limit"), ({"cursor": -1}, "cursor"),
    ({"colour": 1}, "colour"), ({"to": "dead"}, "another queue"), ({"to": "no name"}, "a name is"),
    ({"filter": "price >", "kind": "sql"}, "column"), ({"kind": "x"}, "kind"),
    ({"since_us": "now"}, "since_us"), ({"dry_run": "yes"}, "dry_run"),
)


@pytest.mark.parametrize(("fields", "text"), WRONG_REDRIVES)
def test_a_redrive_that_cannot_be_is_refused(
    fields: dict[str, Any], text: str, server: Server, client: Client
) -> None:
    client.queue("dead").send(b"x")
    with pytest.raises(InvalidError, match=text):
        client.admin("redrive", queue="dead", **fields)
    status, problem, _ = ask(server, "POST", "/v1/queues/dead/redrive", fields)
    assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid")
    assert text in problem["detail"]


def test_what_is_not_there_is_not_found(server: Server, client: Client) -> None:
    client.queue("dead").send(b"x")
    for fields in ({"queue": "none"}, {"queue": "dead", "group": "none"},
                   {"queue": "dead", "to": "none"}):
        with pytest.raises(QueueNotFoundError):
            client.admin("redrive", **fields)
    assert ask(server, "POST", "/v1/queues/none/redrive", {})[0] == 404
    assert ask(server, "GET", "/v1/queues/dead/redrive")[0] == 405
    for body in (b"[]", b"{", b"1", b'{"queue": "x"}'):
        status, _, _ = ask(server, "POST", "/v1/queues/dead/redrive", body,
                           Content_Type="application/json")
        assert status == 400
    for wrong in ({"receipts": [], "reason": "x" * 1025}, {"receipts": [], "delay_ms": -1}):
        assert ask(server, "POST", "/v1/queues/red/release", wrong)[0] == 400
    # What has no origin stays unless it is said where to.
    assert client.redrive("dead")["moved"] == 0
    assert client.redrive("dead", "red")["moved"] == 1
