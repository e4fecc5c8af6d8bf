"""HTTP requests that are nearly right: one reading for every cut, and never another than h11's."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import h11
import pytest
from feeding import Worker, working
from mutation import Mutator
from test_native import cuts, furnished, judge
from trials import Trials

HEAD = b"POST /v1/queues/q/messages HTTP/1.1\r\nHost: x\r\n"
GET = b"GET /v1/queues HTTP/1.1\r\nHost: x\r\n\r\n"
STREAMS = [
    GET * 3,
    HEAD + b"Content-Length: 5\r\n\r\nhello" + GET,
    HEAD + b"Content-Type: application/octet-stream\r\nContent-Length: 3\r\n\r\nabc" * 1 + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nTrailer: t\r\n\r\n" + GET,
    HEAD + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    HEAD + b"Penstock-Tag: t\r\nPenstock-Property-a: %20b\r\nContent-Length: 1\r\n\r\nx" + GET,
    HEAD + b"Penstock-Producer: 7\r\nPenstock-Sequence: 1\r\nContent-Length: 1\r\n\r\nx",
    b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n" + GET,
    b"GET /livez HTTP/1.0\r\n\r\n",
    b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" + GET,
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    # The shapes by which one reader is made to see other requests than another.
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello" + GET,
    HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello" + GET,
    HEAD + b"Content-Length: +4\r\n\r\nabcd" + GET,
    HEAD + b"Content-Length: 0x4\r\n\r\nabcd" + GET,
    HEAD + b"Content-Length: 5, 5\r\n\r\nhello" + GET,
    HEAD + b"Content-Length : 5\r\n\r\nhello" + GET,
    HEAD + b"Content-Length:\t5\r\n\r\nhello" + GET,
    HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding\r\n: chunked\r\n\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n" + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nhello\r\n0\r\n\r\n" + GET,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n" + GET,
    HEAD + b"X: a\r\n folded: b\r\nContent-Length: 1\r\n\r\nx" + GET,
    HEAD + b"X: a\rb\r\nContent-Length: 1\r\n\r\nx" + GET,
    HEAD + b"X: a\0b\r\nContent-Length: 1\r\n\r\nx" + GET,
    HEAD.replace(b"\r\n", b"\n") + b"Content-Length: 1\n\nx" + GET,
    b"GET /livez HTTP/1.1\r\n\r\n",
]
REFUSALS = (400, 405, 413, 414, 417, 431, 501, 505)


class Seen:
    """A door that only writes down what it was asked."""

    def __init__(self, worker: Worker) -> None:
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        door = worker.door
        self.connection = door.__call__
        door.answer = self.answer  # type: ignore[method-assign]

    async def answer(self, request: Any) -> tuple[int, bytes, bytes]:
        self.asked.append((request.method, request.url, request.body))
        return 200, b"", b""


def statuses(said: bytes) -> list[int]:
    """The status of each reply; each must be whole."""
    found = []
    while said:
        head, blank, said = said.partition(b"\r\n\r\n")
        assert blank and head.startswith(b"HTTP/1.1 "), head
        status = int(head[9:12])
        if status == 100:
            continue
        lines = head.lower().split(b"\r\n")
        sizes = [line for line in lines if line.startswith(b"content-length:")]
        assert len(sizes) == 1
        found.append(status)
        body = int(sizes[0][15:])
        # The reply to HEAD tells the size of what is left out.
        said = said[body:] if not said.startswith(b"HTTP/1.1 ") else said
    return found


def plain(told: list[int]) -> list[int]:
    return [status if status < 400 else 400 for status in told]


def oracle(stream: bytes) -> tuple[list[tuple[bytes, bytes, bytes]], str]:
    """What h11 reads in the stream, and how it ended."""
    found: list[tuple[bytes, bytes, bytes]] = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(stream)
    asked, body = None, b""
    while True:
        try:
            event = server.next_event()
        except h11.RemoteProtocolError as error:
            return found, str(error)
        if event is h11.NEED_DATA or event is h11.PAUSED:
            return found, "more" if event is h11.NEED_DATA else "closed"
        if isinstance(event, h11.Request):
            asked, body = event, b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert asked is not None
            found.append((asked.method, asked.target, body))
            server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is not h11.DONE or server.their_state is not h11.DONE:
                return found, "closed"
            server.start_next_cycle()
        else:
            return found, "closed"


def test_a_stream_is_the_same_however_it_is_cut_and_never_another_than_h11s(
    trials: Trials, tmp_path: Path
) -> None:
    with working(tmp_path) as worker:
        seen = Seen(worker)
        chooser = random.Random(trials.seed)
        for stream in trials.mutants(STREAMS, 3000):
            seen.asked = []
            said = statuses(worker.heard(worker.door, [stream]))
            whole = seen.asked
            assert set(said) <= {200, *REFUSALS} and said.count(200) == len(whole)
            assert 200 not in said[len(whole):], "something was answered behind a refusal"
            theirs, end = oracle(stream)
            # Whoever reads on must read the same; one of both may refuse before.
            for ours, other in zip(whole, theirs):
                assert ours == other, (stream, end)
            if len(theirs) < len(whole):
                assert end not in ("more", "closed"), (stream, whole[len(theirs):], end)
            if chooser.random() < 0.2:
                for pieces in cuts(stream, chooser):
                    seen.asked = []
                    again = statuses(worker.heard(worker.door, pieces))
                    # Of two things that are wrong the one that is seen first is told.
                    assert seen.asked == whole and plain(again) == plain(said), stream


def bodies(receipt: str) -> list[tuple[str, str, bytes]]:
    """A right request for each target that takes a body, and some that take a query."""
    json_of = lambda **fields: json.dumps(fields).encode()  # noqa: E731
    return [
        ("PUT", "/v1/queues/x", b""), ("GET", "/v1/queues?prefix=q", b""),
        ("PUT", "/v1/queues/tmp?idle_ms=1000", b""), ("DELETE", "/v1/queues/x", b""),
        ("POST", "/v1/queues/q/messages|application/json",
         json_of(body="b", tag="t", key="k", properties={"a": "b"})),
        ("POST", "/v1/queues/q/messages|application/json", json_of(body_base64="AAEC", delay_ms=5)),
        ("POST", "/v1/queues/q/messages|application/x-ndjson", b'{"body": "a"}\n{"body": "b"}\n'),
        ("POST", "/v1/queues/q/messages|application/vnd.penstock.batch",
         struct.pack("<I3sI0s", 3, b"abc", 0, b"")),
        ("POST", "/v1/queues/q/messages?durability=kernel", b"octets"),
        ("POST", "/v1/queues/q/receive", json_of(max_messages=2, lease_ms=5, group="g")),
        ("POST", "/v1/queues/q/receive", json_of(filter="a || b", kind="tag", group="h")),
        ("POST", "/v1/queues/q/receive",
         json_of(filter="p > 3 AND a LIKE 'x%'", kind="sql", group="s")),
        ("POST", "/v1/queues/q/confirm", json_of(receipts=[receipt])),
        ("POST", "/v1/queues/q/release", json_of(receipts=[receipt], delay_ms=5, reason="why")),
        ("POST", "/v1/queues/q/extend", json_of(receipts=[receipt], lease_ms=5)),
        ("GET", "/v1/queues/q/peek?offset=0&max=3", b""),
        ("GET", "/v1/queues/q/messages?text=a&property.p=v&limit=3", b""),
        ("GET", "/v1/queues/q/explain?offset=0", b""), ("GET", "/v1/queues/q/trace?offset=0", b""),
        ("GET", "/v1/queues/q/lag", b""), ("GET", "/v1/lag?limit=5&cursor=0", b""),
        ("POST", "/v1/queues/q/rewind", json_of(offset=0, dry_run=True)),
        ("GET", "/v1/queues/q/groups/g", b""),
        ("PUT", "/v1/queues/q/groups/g", json_of(order="key", retry={"max_attempts": 3})),
        ("PUT", "/v1/quotas/queue/x", json_of(messages=5, burst_s=1.5, send_rate=2)),
        ("GET", "/v1/quotas", b""), ("DELETE", "/v1/quotas/queue/x", b""),
        ("PUT", "/v1/push/p", json_of(queue="x", url="http://127.0.0.1:1/", timeout_s=1)),
        ("GET", "/v1/push", b""), ("DELETE", "/v1/push/p", b""),
        ("PUT", "/v1/topics/t?partitions=2", b""), ("GET", "/v1/topics/t", b""),
        ("POST", "/v1/topics/t/messages|application/json", json_of(body="b", key="k")),
        ("POST", "/v1/topics/t/receive", json_of(group="g")),
        ("PUT", "/v1/topics/t/subscriptions/x", json_of(kind="tag", source="a", start="earliest")),
        ("DELETE", "/v1/topics/t/subscriptions/x", b""),
        ("GET", "/v1/pending?queue=q", b""), ("GET", "/v1/queues/q/pending", b""),
        ("POST", "/v1/queues/q/redrive", json_of(dry_run=True)),
    ]


def test_bodies_and_targets_that_are_nearly_right_get_a_named_refusal(
    trials: Trials, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with working(tmp_path, wait_ms=5) as worker:
        import base64

        receipt = base64.urlsafe_b64encode(furnished(worker)[1]).decode()
        given = bodies(receipt)
        mutator = Mutator(trials.seed, [body for _, _, body in given if body])
        targets = Mutator(trials.seed + 1, [path.encode() for _, path, _ in given])
        for number in trials.numbers(2500):
            method, told, body = given[number % len(given)]
            path, _, kind = told.partition("|")
            target = path.encode()
            if number >= len(given):
                chooser = mutator.chooser
                if chooser.random() < 0.7 or not body:
                    changed = targets.mutant().partition(b"|")[0]
                    target = changed if chooser.random() < 0.5 else target
                if body:
                    body = mutator.mutant() if chooser.random() < 0.3 else mutated(mutator, body)
                if chooser.random() < 0.05:
                    body = b"[" * chooser.choice((500, 5000, 50_000))
            if b"kept" in target or any(byte <= 32 or byte > 126 for byte in target):
                continue
            head = b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nContent-Type: %b\r\n\r\n"
            asked = head % (method.encode(), target or b"/", len(body), (kind or "text/x").encode())
            said = worker.heard(worker.door, [asked + body])
            for status in statuses(said):
                assert status < 500, (asked, body[:500], said[:1000])
        judge(worker, tmp_path)
    told = capfd.readouterr().err
    assert "Traceback" not in told, told


def mutated(mutator: Mutator, body: bytes) -> bytes:
    changed = bytearray(body)
    mutator.change(changed)
    return bytes(changed)
