"""The command line on what waits, against a server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import Server

from penstock import Client
from penstock.server import cli


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("waiting-cli") / "s") as server:
        yield server


class Command:
    """Runs command lines, and reads what they show."""

    def __init__(self, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.capsys = capsys

    def code(self, *words: str) -> int:
        return cli.main([*words, "--server", f"127.0.0.1:{self.server.tcp}"])

    def __call__(self, *words: str) -> list[dict[str, Any]]:
        self.capsys.readouterr()
        assert self.code(*words, "-o", "ndjson") == cli.EXIT_OK
        return [json.loads(line) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def run(server: Server, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(server, capsys)


def test_what_is_sent_to_come_is_listed_moved_and_cancelled(run: Command) -> None:
    [sent] = run("send", "q", "x", "--delay", "2h", "--tag", "t")
    assert sent["waits"] and "first_offset" not in sent
    run("send", "q", "a", "b", "--at", "2031-01-31T12:00Z")
    rows = run("pending", "list", "q")
    assert [row["id"] for row in rows][0] == "0000000" + rows[0]["id"][7:] and len(rows) == 3
    assert rows[0]["id"][9:] == sent["id"][9:] and rows[1]["due"].startswith("2031-01-3")
    assert len(run("pending", "list", "--until", "2030-01-01")) == 1
    assert len(run("pending", "list", "q", "--state", "half")) == 0
    assert len(run("pending", "list", "q", "-n", "2")) == 2
    [shown] = run("pending", "show", sent["id"])
    assert (shown["body"], shown["tag"], shown["state"]) == ("x", "t", "delayed")
    [moved] = run("pending", "move", sent["id"], "--at", "2032-01-01T00:00+01:00")
    assert moved["due"].startswith(("2031-12-31", "2032-01-01"))
    for said in (True, False):
        assert run("pending", "cancel", sent["id"])[0]["cancelled"] is said
    assert run.code("pending", "move", sent["id"], "--delay", "1") == cli.EXIT_FAILED
    assert run.code("pending", "show", sent["id"]) == cli.EXIT_NOT_FOUND
    assert run.code("pending", "show", "soon") == cli.EXIT_FAILED


def test_halves_are_decided(run: Command, server: Server) -> None:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        queue = client.queue("halves")
        yes, no = (str(queue.transaction(body).prepare().id) for body in (b"y", b"n"))
    by_body = {run("pending", "show", row["id"])[0]["body"]: row["id"]
               for row in run("pending", "list", "halves", "--state", "half")}
    assert run("pending", "commit", by_body["y"])[0]["offset"] == 0
    assert run("pending", "commit", by_body["y"])[0]["duplicate"]
    assert run("pending", "rollback", by_body["n"])[0]["rolled_back"]
    assert run.code("pending", "rollback", by_body["y"]) == cli.EXIT_FAILED
    assert yes != no


def test_schedules_are_set_and_shown(run: Command) -> None:
    run("queue", "create", "news")
    [row] = run("schedule", "set", "daily", "30 2 * * *", "--queue", "news", "--body", "{{time}}",
                "--zone", "Europe/Berlin", "--missed", "skip")
    assert (row["target"], row["zone"], "T02:30" in row["next"]) == ("news", "Europe/Berlin", True)
    assert [row["name"] for row in run("schedule", "list")] == ["daily"]
    assert len(run("schedule", "show", "daily")[0]["next"]) == 5
    assert run("schedule", "pause", "daily")[0]["next"] == "paused"
    assert run("schedule", "resume", "daily")[0]["next"] == row["next"]
    assert run.code("schedule", "set", "x", "soon", "--queue", "news") == cli.EXIT_FAILED
    assert run.code("schedule", "set", "x", "* * * * *", "--queue", "absent") == cli.EXIT_NOT_FOUND
    run("schedule", "delete", "daily")
    assert run("schedule", "list") == []
    assert run.code("schedule", "show", "daily") == cli.EXIT_NOT_FOUND
    assert run.code("schedule", "list") == cli.EXIT_OK


@pytest.mark.parametrize("words", [
    ["send", "q", "x", "--delay", "soon"], ["send", "q", "x", "--delay", "-1"],
    ["send", "q", "x", "--at", "noon"], ["send", "q", "x", "--delay", "1", "--at", "2031-01-01"],
    ["pending", "move", "id"], ["pending"], ["schedule"], ["pending", "list", "--state", "dead"],
    ["schedule", "set", "x", "* * * * *", "--missed", "some"],
])
def test_nonsense_is_code_2(run: Command, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.code(*words)
    assert ended.value.code == cli.EXIT_USAGE
