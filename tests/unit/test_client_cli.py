"""The command line against a server in memory: what it prints and which code it ends with."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
from client_fake import Background
from hypothesis import given
from hypothesis import strategies as st

from penstock.server import cli, completion, output, ship


def test_what_is_sent_is_shown_and_a_missing_queue_is_code_3(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Background() as server:
        where = ["--server", server.address]
        assert cli.main(["send", "q", "one", "two", *where]) == cli.EXIT_OK
        capsys.readouterr()
        assert cli.main(["receive", "q", "-n", "5", "-o", "ndjson", *where]) == cli.EXIT_OK
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["body"] for row in rows] == ["one", "two"]
        assert server.confirmed == [0, 1]
        assert cli.main(["rewind", "q", "--to", "1", "-o", "json", *where]) == cli.EXIT_OK
        (row,) = json.loads(capsys.readouterr().out)
        asked = {"do": "rewind", "queue": "q", "group": "", "offset": 1, "dry_run": False}
        assert row == {"asked": asked}
        assert cli.main(["peek", "absent", *where]) == cli.EXIT_NOT_FOUND
        assert cli.main(["rewind", "q", "--to", "soon", *where]) == cli.EXIT_USAGE


def test_what_a_message_carries_is_sent_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    carried = ["--tag", "paid", "--key", "k1", "--property", "amount=5", "--property", "note=a=b"]
    with Background() as server:
        where = ["--server", server.address]
        assert cli.main(["send", "q", "one", "two", *carried, *where]) == cli.EXIT_OK
        assert cli.main(["send", "q", "plain", *where]) == cli.EXIT_OK
        capsys.readouterr()
        assert cli.main(["peek", "q", "-n", "5", "-o", "ndjson", *where]) == cli.EXIT_OK
        one, two, plain = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert one["tag"] == two["tag"] == "paid" and one["key"] == "k1"
        assert one["properties"] == {"amount": "5", "note": "a=b"} and "tag" not in plain
        with pytest.raises(SystemExit):
            cli.main(["send", "q", "x", "--property", "nothing", *where])


def test_a_server_that_is_not_there_is_code_4_and_nonsense_code_2() -> None:
    assert cli.main(["queue", "list", "--server", "127.0.0.1:1"]) == cli.EXIT_UNREACHABLE
    for words in (["receive"], ["fly"], ["receive", "q", "-n", "0"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(words)
        assert caught.value.code == cli.EXIT_USAGE


def test_lines_that_trickle_in_are_sent_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    class Trickle(io.BytesIO):
        """Gives what a pipe would, a read at a time; between them, what was sent is looked at."""

        parts = [b"one\ntw", b"o\n\nthr", b"ee"]
        seen: list[list[bytes]] = []

        def read1(self, size: int | None = -1) -> bytes:
            stored = server.queues.get("q")
            self.seen.append([body for _, body, _ in stored.log] if stored else [])
            return self.parts.pop(0) if self.parts else b""

    with Background() as server:
        pipe = Trickle()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(pipe))
        assert cli.main(["send", "q", "--server", server.address]) == cli.EXIT_OK
        assert pipe.seen == [[], [b"one"], [b"one", b"two", b""], [b"one", b"two", b""]]
        assert [body for _, body, _ in server.queues["q"].log] == [b"one", b"two", b"", b"three"]


@pytest.mark.parametrize("place", ["soon", "", "²", "-1", "9" * 30, "9" * 400 + "d", "0001-01-01"])
def test_what_is_no_place_is_code_2(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Background() as server:
        words = ["peek", "q", "--server", server.address, f"--from={place}"]
        cli.main(["send", "q", "one", "--server", server.address])
        assert cli.main(words) == cli.EXIT_USAGE
        assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "[::1]"])
def test_what_is_no_address_is_code_2_and_nothing_is_made(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(tmp_path / "store")
    for words in (
        ["serve", "--data", data, "--tcp", address],
        ["serve", "--data", data, "--http", address],
        ["serve", "--data", data, "--cmq-tcp", address],
        ["ship", "--log", __file__, "--data", data, "--tcp", address],
        ["queue", "list", "--server", address],
    ):
        assert cli.main(words) == cli.EXIT_USAGE, words
        assert address in capsys.readouterr().err
    assert not Path(data).exists()


def test_what_was_deleted_before_one_was_missing_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Background() as server:
        server.absent.add("b")
        words = ["queue", "delete", "a", "b", "c", "--server", server.address, "-o", "ndjson"]
        assert cli.main(words) == cli.EXIT_NOT_FOUND
    assert [json.loads(line)["queue"] for line in capsys.readouterr().out.splitlines()] == ["a"]


def test_a_table_passes_no_control_characters_to_the_terminal() -> None:
    lines = list(output.table([{"a": "\x1b[2J", "n": 5}, {"a": "b\n", "n": 12}]))
    assert lines == ["a         n", "\\x1b[2J   5", "b\\n      12"]
    assert list(output.table([])) == []
    assert output.body_fields(b"\xff") == {"body_base64": "/w=="}
    assert "50/100" in output.plain_bar("send", 50, 100, 1.0)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_command(shell: str) -> None:
    script = completion.script(cli.parser(), shell)
    assert all(word in script for word in ("serve", "rewind", "purge", "durability"))


def test_a_line_that_is_no_message_is_named_before_anything_is_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"short\n" + b"x" * ship.LINE_BYTES + b"\n")
    words = ["ship", "--once", "--log", str(log), "--data", str(tmp_path / "store")]
    assert cli.main(words) == cli.EXIT_FAILED
    told = capsys.readouterr()
    assert "line 2" in told.err and str(ship.LINE_BYTES) in told.err
    assert told.out == "" and not (tmp_path / "store").exists()


@given(st.binary())
def test_lines_joined_are_the_file(content: bytes) -> None:
    lines = ship.split(content)
    assert b"".join(lines) == content
    assert all(line.find(b"\n") in (-1, len(line) - 1) for line in lines)


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(r"penstock \d+\.\d+\.\d+, Python 3\.[\d.]+\S*\n", capsys.readouterr().out)
