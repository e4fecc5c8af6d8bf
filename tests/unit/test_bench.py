"""The load generator counts what a server really answered, however the answers arrive."""

import argparse
import json
import random
import socket
import struct
import threading

import pytest

from penstock.server import bench

_load = pytest.importorskip("penstock.server._load")
HEAD = bench.HEAD


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return parser.parse_args([str(word) for word in words])


class Answering:
    """A server of one thread for each connection, with an answer that the test chooses."""

    def __init__(self, answer, step=None):
        self.answer, self.step, self.requests = answer, step, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.tcp = "127.0.0.1:{}".format(self.listener.getsockname()[1])
        self.threads = [threading.Thread(target=self.accept)]

    def __enter__(self):
        self.threads[0].start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.threads[0].join(10)
        self.listener.close()
        for thread in self.threads[1:]:
            thread.join(10)

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self.serve, args=(connection,))
            self.threads.append(thread)
            thread.start()

    def serve(self, connection):
        with connection, connection.makefile("rb") as stream:
            while head := stream.read(HEAD.size):
                size, verb, _, _, tag, _ = HEAD.unpack(head)
                payload = stream.read(size - 12)
                self.requests.append((verb, payload))
                status, text = self.answer(verb, payload, len(self.requests))
                if text is None:
                    return
                reply = HEAD.pack(12 + len(text), verb | 0x80, 0, status, tag, 0) + text
                step = self.step or len(reply)
                for start in range(0, len(reply), step):
                    connection.sendall(reply[start:start + step])


def stored(verb, payload, _):
    return 0, {bench.HELLO: bytes(24), bench.OPEN: struct.pack("<I", 7)}.get(verb, bytes(12))


def test_quantiles_are_within_one_percent():
    chance = random.Random(1)
    values = sorted(int(10 ** chance.uniform(0, 11)) for _ in range(5000))
    shares = [0.0, 0.5, 0.9, 0.99, 0.999, 1.0]
    for share, found in zip(shares, _load.quantiles(values, shares), strict=True):
        exact = values[min(int(share * len(values)), len(values) - 1)]
        assert abs(found - exact) <= exact * 0.01


def test_quantiles_of_nothing_are_zero():
    assert _load.quantiles([], [0.5]) == [0]


@pytest.mark.parametrize("words", [
    ["--connections", 3],
    ["--connections", 2, "--in-flight", 16],
    ["--connections", 2, "--in-flight", 2, "--batch", 50, "--size", 1],
    ["--receive", "--connections", 2, "--in-flight", 3, "--batch", 32],
])
def test_the_sink_answers_everything(words, capsys):
    assert bench.main(parse("self", *words, "--seconds", 0.2, "--json")) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["errors"] == 0
    assert figures["requests"] * figures["batch"] == figures["messages"] > 0
    assert 0 < figures["p50_us"] <= figures["p99_us"] <= figures["p999_us"] <= figures["max_us"]
    assert figures["rate"] == pytest.approx(figures["messages"] / figures["seconds"], rel=0.01)


def test_a_table_is_printed_without_json(capsys):
    assert bench.main(parse("self", "--connections", 1, "--seconds", 0.1)) == 0
    assert "messages/s" in capsys.readouterr().out


@pytest.mark.parametrize("step", [None, 1, 5])
def test_what_is_counted_is_what_was_sent(step, capsys):
    with Answering(stored, step) as server:
        words = ["send", "--tcp", server.tcp, "--connections", 2, "--in-flight", 3, "--size", 20]
        assert bench.main(parse(*words, "--count", 50, "--durability", "disk", "--json")) == 0
    figures = json.loads(capsys.readouterr().out)
    sends = [payload for verb, payload in server.requests if verb == bench.SEND]
    assert figures["messages"] == figures["acknowledged"] == len(sends) == 50
    assert all(len(payload) == 16 + 20 for payload in sends)
    assert all(struct.unpack_from("<IBBHQ", payload) == (7, 1, 0, 0, 0) for payload in sends)


def test_a_batch_has_its_sizes_and_bodies():
    request = bench.send_frame(7, 3, 2, 0)
    assert HEAD.unpack_from(request) == (len(request) - 4, bench.SEND_BATCH, 0, 0, 0, 0)
    assert struct.unpack_from("<IBBHQIIII", request, 16) == (7, 0, 0, 0, 0, 2, 0, 3, 3)
    assert request[48:] == b"!\"#" * 2


def test_refusals_are_errors(capsys):
    def refuse_every_other(verb, payload, number):
        if verb == bench.SEND and number % 2:
            return 8, struct.pack("<I", 5) + b"busy"
        return stored(verb, payload, number)

    with Answering(refuse_every_other) as server:
        words = ["send", "--tcp", server.tcp, "--connections", 1, "--count", 20, "--json"]
        assert bench.main(parse(*words)) == bench.EXIT_ERRORS
    figures = json.loads(capsys.readouterr().out)
    assert (figures["errors"], figures["messages"], figures["status"]) == (10, 10, 8)


def test_a_lost_connection_is_an_error(capsys):
    def hang_up(verb, payload, number):
        return (0, None) if number == 10 else stored(verb, payload, number)

    with Answering(hang_up) as server:
        words = ["send", "--tcp", server.tcp, "--connections", 1, "--seconds", 5, "--json"]
        assert bench.main(parse(*words, "--warm-up", 0)) == bench.EXIT_ERRORS
    figures = json.loads(capsys.readouterr().out)
    assert figures["acknowledged"] == 7
    assert figures["errors"] >= 1


def test_a_reply_with_a_foreign_tag_is_not_counted(capsys):
    class Confused(Answering):
        def serve(self, connection):
            with connection:
                for verb in (bench.HELLO, bench.OPEN, bench.SEND):
                    connection.recv(65536)
                    text = bytes(24)
                    tag = 5 if verb == bench.SEND else 0
                    connection.sendall(HEAD.pack(12 + 24, verb | 0x80, 0, 0, tag, 0) + text)
                connection.recv(1)

    with Confused(stored) as server:
        words = ["send", "--tcp", server.tcp, "--connections", 1, "--seconds", 5, "--json"]
        assert bench.main(parse(*words, "--warm-up", 0)) == bench.EXIT_ERRORS
    assert json.loads(capsys.readouterr().out)["messages"] == 0


def test_receiving_ends_at_an_empty_queue_and_counts_good_verdicts(capsys):
    left = [5]

    def deliver(verb, payload, number):
        if verb == bench.RECEIVE:
            count = min(2, left[0])
            left[0] -= count
            message = b"R" * 24 + struct.pack("<QIIII", 0, 1, 2, 3, 0) + b"eebbb"
            return 0, struct.pack("<II", count, 0) + message * count
        if verb == 6:
            count = struct.unpack_from("<I", payload)[0]
            assert payload[4:] == b"R" * 24 * count
            # The last message's lease is lost.
            return 0, struct.pack("<I", count) + bytes([0] * (count - 1) + [left[0] == 0])
        return stored(verb, payload, number)

    with Answering(deliver) as server:
        words = ["receive", "--tcp", server.tcp, "--connections", 1, "--batch", 2, "--json"]
        assert bench.main(parse(*words)) == bench.EXIT_ERRORS
    figures = json.loads(capsys.readouterr().out)
    assert (figures["messages"], figures["requests"], figures["errors"]) == (4, 3, 1)


def test_an_absent_server_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    words = ["send", "--tcp", f"127.0.0.1:{port}", "--connections", 1]
    assert bench.main(parse(*words)) == bench.EXIT_UNREACHABLE
    assert str(port) in capsys.readouterr().err
