"""The open loop counts a latency from when a request was due, and HTTP is loaded like the rest."""

import contextlib
import io
import json
import threading

import pytest
from test_bench import Answering, parse, stored

from penstock.server import bench, bench_show

STALL_S = 0.5


def told(capsys, *words):
    code = bench.main(parse(*words, "--json"))
    return code, json.loads(capsys.readouterr().out)


class Stalling(Answering):
    """Answers nothing for a while after the tenth send, then everything at once."""

    def __init__(self):
        self.gate = threading.Event()
        super().__init__(self.wait_at_the_tenth)

    def wait_at_the_tenth(self, verb, payload, number):
        if number == 12:
            self.gate.wait(STALL_S)
        return stored(verb, payload, number)


def test_what_a_stall_delays_is_counted_from_when_it_was_due(capsys):
    words = ["--connections", 1, "--in-flight", 1, "--warm-up", 0, "--seconds", 1]
    with Stalling() as server:
        _, closed = told(capsys, "send", "--tcp", server.tcp, *words)
    with Stalling() as server:
        _, opened = told(capsys, "send", "--tcp", server.tcp, *words, "--rate", 200)
    # One request of the closed loop met the stall; of the open one, all that were due meanwhile.
    assert opened["p90_us"] > STALL_S * 1e6 / 10
    assert min(closed["max_us"], opened["max_us"]) > STALL_S * 0.9e6
    assert opened["errors"] == 0 and opened["due_rate"] == 200


def test_as_many_are_sent_as_are_due(capsys):
    code, figures = told(capsys, "self", "--connections", 4, "--rate", 1000, "--seconds", 0.5,
                         "--warm-up", 0)
    assert code == 0
    assert figures["messages"] == 500 and figures["unsent"] == 0


def test_batches_are_due_less_often(capsys):
    _, figures = told(capsys, "self", "--connections", 4, "--rate", 10000, "--batch", 100,
                      "--seconds", 0.5, "--warm-up", 0)
    assert (figures["messages"], figures["requests"]) == (5000, 50)


def test_a_count_ends_the_open_loop(capsys):
    _, figures = told(capsys, "self", "--connections", 2, "--rate", 2000, "--count", 100)
    assert figures["acknowledged"] == 100


def test_what_could_not_be_sent_is_an_error(capsys, monkeypatch):
    def hang_up(verb, payload, number):
        return (0, None) if number == 5 else stored(verb, payload, number)

    with Answering(hang_up) as server:
        code, figures = told(capsys, "send", "--tcp", server.tcp, "--connections", 1, "--rate",
                             100, "--seconds", 1, "--warm-up", 0)
    assert code == bench.EXIT_ERRORS
    assert figures["unsent"] > 0 and figures["errors"] >= figures["unsent"]


def asked(stream):
    """The first line and the body of each request of HTTP."""
    while line := stream.readline():
        size = 0
        while (field := stream.readline()) not in (b"\r\n", b""):
            if field.lower().startswith(b"content-length:"):
                size = int(field.split(b":")[1])
        yield line, stream.read(size)


class AnsweringHttp(Answering):
    """Answers requests of HTTP, with the head that the test chooses, in pieces of `step` bytes."""

    def __init__(self, head, step=None):
        self.head = head
        super().__init__(None, step)

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            for line, body in asked(stream):
                self.requests.append((line.split()[0], body))
                reply = self.head if line.startswith(b"POST") else CREATED
                step = self.step or len(reply)
                with contextlib.suppress(OSError):
                    for start in range(0, len(reply), step):
                        connection.sendall(reply[start:start + step])


CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize("step", [None, 1, 7])
@pytest.mark.parametrize("head", [
    b"HTTP/1.1 201 Created\r\ncontent-LENGTH: 13\r\nX: y\r\n\r\nHTTP/1.1 500 ",
    b"HTTP/1.1 204 No Content\r\n\r\n",
])
def test_replies_of_http_are_told_apart(head, step, capsys):
    with AnsweringHttp(head, step) as server:
        code, figures = told(capsys, "send", "--http", server.tcp, "--connections", 2,
                             "--in-flight", 3, "--size", 20, "--count", 30)
    bodies = [body for method, body in server.requests if method == b"POST"]
    assert code == 0
    assert figures["messages"] == figures["acknowledged"] == len(bodies) == 30
    assert {len(body) for body in bodies} == {20}


def test_a_batch_over_http_has_its_sizes(capsys):
    with AnsweringHttp(CREATED) as server:
        told(capsys, "send", "--http", server.tcp, "--connections", 1, "--size", 3, "--batch", 2,
             "--count", 2)
    assert server.requests[-1] == (b"POST", b"\3\0\0\0!\"#" * 2)


def test_a_refusal_over_http_is_an_error_with_its_status(capsys):
    head = b"HTTP/1.1 429 Too Many\r\nContent-Length: 0\r\n\r\n"
    with AnsweringHttp(head) as server:
        code, figures = told(capsys, "send", "--http", server.tcp, "--connections", 1, "--count", 5)
    assert code == bench.EXIT_ERRORS
    assert (figures["errors"], figures["messages"], figures["status"]) == (5, 0, 429)


@pytest.mark.parametrize("head", [
    b"no reply at all\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
])
def test_what_is_no_reply_loses_the_connection(head, capsys):
    with AnsweringHttp(head) as server:
        code, figures = told(capsys, "send", "--http", server.tcp, "--connections", 1,
                             "--seconds", 5, "--warm-up", 0)
    assert code == bench.EXIT_ERRORS and figures["messages"] == 0


def test_the_plot_shows_all_that_was_counted(capsys, tmp_path):
    path = tmp_path / "latencies.hdr"
    assert bench.main(parse("self", "--connections", 2, "--seconds", 0.2, "--hdr", path)) == 0
    text = capsys.readouterr().out
    assert "99.9 %" in text and "latency of a request" in text and "█" in text
    lines = path.read_text().splitlines()
    rows = [line.split() for line in lines[2:] if not line.startswith("#")]
    assert lines[-1].startswith("#[Max     =")
    assert int(lines[-1].split("= ")[2][:-1]) == int(rows[-1][2])
    assert rows[-1][3] == "inf" and float(rows[-1][1]) == 1.0
    assert [float(row[0]) for row in rows] == sorted(float(row[0]) for row in rows)


def test_percentiles_are_of_the_histogram():
    found = bench_show.percentiles([(10.0, 50), (20.0, 49), (30.0, 1)])
    assert found == [(0.5, 10.0, 50), (0.75, 20.0, 1), (0.9, 20.0, 1), (0.95, 20.0, 1),
                     (0.99, 20.0, 1), (1.0, 30.0, 0)]


def test_progress_tells_the_rate_between_two_looks():
    now = iter([0.0, 0.2, 1.0, 2.0])
    out = io.StringIO()
    progress = bench_show.Progress(out, 5.0, lambda: next(now))
    for acknowledged in (10, 1000, 3000):
        progress(acknowledged, 0, 64)
    progress.close()
    first, second = out.getvalue().split("\r")[1:]
    assert "1,000 /s" in first and "2,000 /s" in second and second.endswith("▄█\x1b[K\n")


def test_no_latency_makes_no_plot():
    assert bench_show.latency_plot([]) == [] and bench_show.percentile_lines([]) == []
