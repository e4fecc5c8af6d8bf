"""The generator over HTTP: what it receives it confirms, and CMQ's code is how a request ended."""

import json
import re
from urllib.parse import parse_qs

import pytest
from server_process import Server
from test_bench import Answering, parse
from test_bench_open_loop import asked

from penstock.server import bench, bench_cmq_http, cli
from penstock.server.config import UsageError


def told(capsys, *words):
    code = bench.main(parse(*words, "--json"))
    return code, json.loads(capsys.readouterr().out)


class Http(Answering):
    """Answers each request with the body that the test chooses, in pieces of `step` bytes."""

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            for line, body in asked(stream):
                target = line.split()[1].decode()
                self.requests.append((target, body))
                status, text = self.answer(target, body, len(self.requests))
                reply = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (
                    status, len(text), text.encode())
                step = self.step or len(reply)
                for start in range(0, len(reply), step):
                    connection.sendall(reply[start:start + step])


def messages(receipts):
    return json.dumps({"messages": [{"receipt": one, "body": '"receipt":"no'} for one in receipts]},
                      separators=(",", ":"))


@pytest.mark.parametrize("step", [None, 7])
def test_what_is_received_over_http_is_confirmed_by_its_receipts(step, capsys):
    left = ["r1", "r2", "r3", "r4", "r5"]
    confirmed = []

    def answer(target, body, _):
        if target.endswith("/receive"):
            asked = json.loads(body)
            taken = [left.pop(0) for _ in range(min(asked["max_messages"], len(left)))]
            assert asked["group"] == 'a "group"' and asked["lease_ms"] == 5000
            return 200, messages(taken)
        if target.endswith("/confirm"):
            asked = json.loads(body)
            assert asked["group"] == 'a "group"'
            confirmed.extend(asked["receipts"])
            return 200, json.dumps({"verdicts": [
                "stale" if one == "r4" else "done" for one in asked["receipts"]]})
        return 201, "{}"

    with Http(answer, step) as server:
        code, figures = told(capsys, "receive", "--http", server.tcp, "--connections", 1,
                             "--batch", 2, "--group", 'a "group"', "--lease-ms", 5000)
    assert code == bench.EXIT_ERRORS
    assert confirmed == ["r1", "r2", "r3", "r4", "r5"]
    assert (figures["messages"], figures["requests"], figures["errors"]) == (4, 3, 1)


def test_what_is_refused_over_http_is_an_error_with_its_status(capsys):
    def answer(target, body, number):
        return (503, "busy") if target.endswith("/messages") else (201, "{}")

    with Http(answer) as server:
        code, figures = told(capsys, "send", "--http", server.tcp, "--connections", 1,
                             "--count", 3)
    assert code == bench.EXIT_ERRORS
    assert (figures["errors"], figures["messages"], figures["status"]) == (3, 0, 503)


def test_the_codes_of_cmq_tell_what_became_of_a_send(capsys):
    def answer(target, body, number):
        action = parse_qs(body.decode())["Action"][0]
        code = 4460 if action == "CreateQueue" else 0 if number % 2 else 4490
        return 200, '{"code":%d,"message":"","msgBody":"\\"code\\":7"}' % code

    with Http(answer) as server:
        code, figures = told(capsys, "send", "--cmq-http", server.tcp, "--connections", 1,
                             "--count", 20)
    assert code == bench.EXIT_ERRORS
    assert (figures["errors"], figures["messages"], figures["status"]) == (10, 10, 4490)
    assert all(target == "/v2/index.php" for target, _ in server.requests)


@pytest.mark.parametrize(("batch", "failed"), [(1, 0), (3, 0), (3, 1)])
def test_what_is_received_over_cmq_is_deleted_by_its_handles(batch, failed, capsys):
    left = ["11", "12", "13", "14"]
    deleted = []

    def answer(target, body, _):
        fields = parse_qs(body.decode())
        action = fields.pop("Action")[0]
        assert fields.pop("queueName") == ["bench"]
        if action in ("ReceiveMessage", "BatchReceiveMessage"):
            taken = [left.pop(0) for _ in range(min(batch, len(left)))]
            if not taken:
                return 200, '{"code":7000,"message":"(10200)no message"}'
            shown = ",".join('{"msgBody":"x","receiptHandle":"%s"}' % one for one in taken)
            return 200, '{"code":0,"msgInfoList":[%s]}' % shown
        if action == "CreateQueue":
            return 200, '{"code":0}'
        assert action == ("DeleteMessage" if batch == 1 else "BatchDeleteMessage")
        now = [value for values in fields.values() for value in values]
        deleted.extend(now)
        assert batch == 1 or all(re.fullmatch(r"receiptHandle\.[012]", name) for name in fields)
        if failed and "12" in now:
            return 200, '{"code":6030,"errorList":[{"code":4430,"receiptHandle":"12"}]}'
        return 200, '{"code":0}'

    with Http(answer) as server:
        code, figures = told(capsys, "receive", "--cmq-http", server.tcp, "--connections", 1,
                             "--batch", batch)
    assert deleted == ["11", "12", "13", "14"]
    assert (code, figures["errors"], figures["messages"]) == (
        bench.EXIT_ERRORS if failed else 0, failed, 4 - failed)


def test_a_request_of_cmq_is_signed_where_there_is_a_key(monkeypatch):
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", "id")
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", "secret")
    fields = parse_qs(bench_cmq_http.form("host:1", Action="X", msgBody_0="a&b").decode())
    assert fields["msgBody.0"] == ["a&b"] and fields["SecretId"] == ["id"]
    # As the server must not take a later one for a repetition of it.
    assert int(fields["Nonce"][0]) < 10000 and fields["Signature"]


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize(("door", "keys"), [("http", False), ("cmq-http", False),
                                            ("cmq-http", True)])
def test_a_server_has_what_was_sent_and_has_not_what_was_received(
    door, batch, keys, tmp_path, capsys, monkeypatch
):
    if keys:
        monkeypatch.setenv("PENSTOCK_ACCESS_KEY", "AKIDbench")
        monkeypatch.setenv("PENSTOCK_SECRET_KEY", "a-secret-of-it")
    with Server(tmp_path / "data") as server:
        address = f"127.0.0.1:{server.http}"
        load = [f"--{door}", address, "--connections", 2, "--in-flight", 3, "--batch", batch]
        code, figures = told(capsys, "send", *load, "--count", 320)
        assert (code, figures["acknowledged"]) == (0, 320)
        if keys:
            with pytest.raises(UsageError, match="signed"):
                bench.main(parse("receive", *load))
            return
        code, figures = told(capsys, "receive", *load, "--fill", 1005)
        assert (code, figures["acknowledged"]) == (0, 320 + 1005)
        code, figures = told(capsys, "receive", *load)
        assert (code, figures["acknowledged"]) == (0, 0)


@pytest.mark.parametrize("words", [
    ["receive", "--tcp", "nowhere"],
    ["send", "--http", "127.0.0.1:99999"],
    ["self", "--count", "1e400"],
    ["self", "--seconds", "x"],
    ["self", "--size", "1.5"],
    ["send", "--tcp", "127.0.0.1:1", "--http", "127.0.0.1:1"],
    ["send", "--cmq-tcp", "127.0.0.1:1", "--batch", "17"],
    ["send", "--cmq-http", "127.0.0.1:1", "--durability", "kernel"],
    ["receive", "--cmq-tcp", "127.0.0.1:1", "--group", "g"],
    ["receive", "--cmq-http", "127.0.0.1:1", "--lease-ms", "7"],
    ["self", "--connections", "4000000000", "--size", "0"],
])
def test_words_that_make_no_sense_are_told_as_such(words, capsys):
    try:
        code = cli.main(["bench", *words])
    except SystemExit as exit:
        code = exit.code
    assert code == cli.EXIT_USAGE
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told_before_the_load(tmp_path, capsys):
    began = []
    with Http(lambda *_: began.append(1) or (201, "{}")) as server:
        code = cli.main(["bench", "send", "--http", server.tcp, "--count", "1",
                         "--hdr", str(tmp_path / "none" / "file")])
    assert code == cli.EXIT_NOT_FOUND and not began


def test_a_server_that_refuses_is_not_one_that_is_away(capsys):
    with Http(lambda *_: (404, "there is nothing")) as server:
        code = cli.main(["bench", "send", "--http", server.tcp, "--count", "1"])
    assert code == cli.EXIT_FAILED
    assert "404" in capsys.readouterr().err
