"""Native frames: anything at all, and what is nearly right; whole, cut, a byte at a time."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from feeding import Worker, working
from mutation import Mutator
from trials import Trials

from penstock.engine import attributes
from penstock.engine.check import check
from penstock.engine.errors import InvalidError

HELLO = struct.pack("<4sHHQ", b"PNST", 1, 0, 77)
KEPT = [b"kept %d" % at for at in range(50)]
OPENING = b"\x1c\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0" + HELLO


def framed(verb: int, payload: bytes, tag: int = 1) -> bytes:
    return struct.pack("<IBBHII", 12 + len(payload), verb, 0, 0, tag, 0) + payload


def payloads(queue: int, receipt: bytes) -> list[tuple[int, bytes]]:
    """At least one right payload for each verb."""
    packed = attributes.Attributes(tag="t", key="k", properties={"p": "v"}).pack()
    batch = struct.pack("<IBBHQII3I", queue, 1, 0, 0, 0, 3, 0, 1, 2, 3) + b"abbccc"
    both = struct.pack("<IBBHQII4I", queue, 0, 1, 0, 0, 2, 0, 1, len(packed), 2, 0)
    both += packed + b"abb"
    asks = [
        {"do": "queue.list", "prefix": "q"}, {"do": "queue.show", "name": "q"},
        {"do": "queue.delete", "name": "x"}, {"do": "queue.purge", "name": "q"},
        {"do": "quota.set", "scope": "queue", "name": "x", "quota": {"messages": 5}},
        {"do": "quota.remove", "scope": "queue", "name": "x"}, {"do": "quota.list"},
        {"do": "push.list"}, {"do": "push.remove", "name": "x"},
        {"do": "push.set", "name": "p", "push": {"queue": "q", "url": "http://127.0.0.1/"}},
        {"do": "group.show", "queue": "q", "group": "g"},
        {"do": "group.set", "queue": "q", "group": "g", "filter": "a = 1", "kind": "sql"},
        {"do": "group.join", "queue": "q", "group": "g", "filter": "a || b"},
        {"do": "topic.create", "name": "t", "partitions": 2}, {"do": "topic.list"},
        {"do": "topic.send", "name": "t", "body": "eA==", "attributes": "", "partition": 0},
        {"do": "topic.subscribe", "name": "t", "queue": "x", "kind": "tag", "source": "a"},
        {"do": "topic.unsubscribe", "name": "t", "queue": "x"}, {"do": "topic.show", "name": "t"},
        {"do": "explain", "queue": "q", "offset": 0}, {"do": "find", "queue": "q", "text": "a"},
        {"do": "trace", "queue": "q", "offset": 0}, {"do": "lag", "queue": "q"},
        {"do": "rewind", "queue": "q", "offset": 0, "dry_run": True},
        {"do": "pending.list", "queue": "q"}, {"do": "redrive", "queue": "q"},
    ]
    return [
        (2, struct.pack("<I", 1) + b"x"), (2, struct.pack("<I", 0) + b"q"),
        (2, struct.pack("<II", 3, 60_000) + b"temporary"),
        (3, struct.pack("<IBBHQ", queue, 1, 0, 3, 0) + b"extbody"),
        (3, struct.pack("<IBBHQ", queue, 0, 1, len(packed), 5) + packed + b"body"),
        (4, batch), (4, both),
        (5, struct.pack("<IIIIII", queue, 0, 10, 1 << 20, 30_000, 0)),
        (5, struct.pack("<IIIIII", queue, 0, 10, 1 << 20, 30_000, 60_000)),
        (6, struct.pack("<I", 1) + receipt), (6, struct.pack("<I", 0)),
        (7, struct.pack("<II", 1, 0) + receipt + b"why"), (8, struct.pack("<II", 1, 5) + receipt),
        (9, struct.pack("<IIIIQ", queue, 0, 2, 0, 0)),
        (9, struct.pack("<IIIIQ", queue, 0, 1, 0, 9)),
        (10, struct.pack("<IIQIIII", queue, 0, 0, 5, 1 << 20, 0, 0)),
        (10, struct.pack("<IIQIIII", queue, 2, 0, 5, 1 << 20, 1000, 0)),
        (11, struct.pack("<II", queue, 0) + b"g"), (13, b"ping"),
        *((12, json.dumps(ask).encode()) for ask in asks),
    ]


def replies(said: bytes) -> list[tuple[int, int, int]]:
    """Verb, status and tag of each reply; all of them must be whole."""
    found, at = [], 0
    while at < len(said):
        size, verb, flags, status, tag, zero = struct.unpack_from("<IBBHII", said, at)
        assert verb & 0x80 and not flags and not zero and status <= 13 and size >= 12
        assert len(said) - at - 4 >= size, "half a reply"
        if status:
            said[at + 20:at + 4 + size].decode()
        assert status != 11, said[at + 20:at + 4 + size]
        found.append((verb, status, tag))
        at += 4 + size
    return found


def cuts(data: bytes, chooser: random.Random) -> Iterator[list[bytes]]:
    """The same bytes in other pieces."""
    ends = sorted(chooser.randrange(len(data) + 1) for _ in range(chooser.randrange(1, 6)))
    yield [data[a:b] for a, b in zip([0, *ends], [*ends, len(data)])]
    if len(data) < 300:
        yield [data[at:at + 1] for at in range(len(data))]


def furnished(worker: Worker) -> tuple[int, bytes]:
    """A queue with a leased message, and one whose messages must survive."""
    worker.store.queue("kept").append_many(KEPT)
    queue = worker.store.queue("q")
    queue.append_many([b"one", b"two"], durability="disk")
    return queue.id, queue.group().receive(1, lease_ms=3_600_000).receipts


def judge(worker: Worker, path: Path) -> None:
    """Nothing that was not asked for was lost, and the store is whole."""
    assert worker.store.queue("kept").read(max_messages=len(KEPT)).tolist() == KEPT
    worker.store.checkpoint()
    report = check(path)
    assert not report.problems, report.lines()


def test_frames_that_are_nearly_right_are_answered_once_each(
    trials: Trials, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with working(tmp_path) as worker:
        given = payloads(*furnished(worker))
        mutator = Mutator(trials.seed, [payload for _, payload in given])
        chooser = mutator.chooser
        for number in trials.numbers(3000):
            frames = []
            for tag in range(chooser.choice((1, 1, 3, 8))):
                verb, payload = given[number % len(given)] if tag == 0 else chooser.choice(given)
                if number >= len(given) and chooser.random() < 0.8:
                    payload = mutator.mutant()
                frames.append(framed(verb if chooser.random() < 0.98 else chooser.randrange(256),
                                     payload, tag + 1))
            whole = replies(worker.heard(worker.native, [OPENING + b"".join(frames)]))
            assert len({tag for _, _, tag in whole}) == len(whole) <= len(frames) + 1
            # Each is answered unless it waits, or one before it ended the connection.
            if all(frame[4] not in (5, 10) for frame in frames) and not ended(whole):
                assert len(whole) == len(frames) + 1
        judge(worker, tmp_path)
    assert "Traceback" not in capfd.readouterr().err


def answered(found: list[tuple[int, int, int]]) -> tuple[list[tuple[int, int]], bool]:
    """Verb and tag of each, and whether the connection ended: of a head that was refused before it
    was whole nobody knows them."""
    return sorted((verb, tag) for verb, status, tag in found if status not in (1, 5)), ended(found)


def ended(found: list[tuple[int, int, int]]) -> bool:
    """Whether one of the replies says that the connection ends."""
    return any(status in (1, 5) for _, status, _ in found)


def test_a_stream_of_anything_is_the_same_however_it_is_cut(
    trials: Trials, tmp_path: Path
) -> None:
    with working(tmp_path) as worker:
        given = payloads(*furnished(worker))
        quiet = [one for one in given if one[0] in (2, 3, 4, 6, 8, 10, 13)]
        corpus = [b"".join(framed(*one, tag) for tag, one in enumerate(quiet[at:at + 4]))
                  for at in range(len(quiet))]
        chooser = random.Random(trials.seed)
        for data in trials.mutants(corpus, 400):
            stream = OPENING + data if chooser.random() < 0.9 else data
            whole = answered(replies(worker.heard(worker.native, [stream])))
            for pieces in cuts(stream, chooser):
                parts = answered(replies(worker.heard(worker.native, pieces)))
                assert parts == whole, stream.hex()
        judge(worker, tmp_path)


def test_what_is_taken_for_attributes_can_be_read(trials: Trials, tmp_path: Path) -> None:
    """The check on the hot path and the reader that applications use must agree."""
    made = attributes.Attributes(
        tag="grün", key="k", routing_key="a.b.c", id="i", reply_to="r", correlation="c",
        properties={"p": "v", "名": "值" * 20},
    ).pack()
    corpus = [made, made[:8], b"\x03\x01\x00\x00p", b"\x3f\x00\x02\x00zz", b""]
    with working(tmp_path) as worker:
        queue, _ = furnished(worker)
        for packed in trials.mutants(corpus, 3000):
            packed = packed[:65535]
            head = struct.pack("<IBBHQ", queue, 0, 1, len(packed), 0)
            said = replies(worker.heard(worker.native, [OPENING + framed(3, head + packed + b"b")]))
            (_, status, _) = said[1]
            try:
                attributes.unpack(packed)
                readable = True
            except InvalidError:
                readable = False
            assert status in (0, 9) and (readable or status == 9), packed.hex()


def test_made_up_receipts_open_nothing(trials: Trials, tmp_path: Path) -> None:
    with working(tmp_path) as worker:
        _, receipt = furnished(worker)
        group = worker.store.queue("q").group()
        mutator = Mutator(trials.seed, [receipt])
        for _ in trials.numbers(200):
            forged = [mutator.mutant()[:24].ljust(24, b"\0") for _ in range(500)]
            forged += [mutator.chooser.randbytes(24) for _ in range(500)]
            given = b"".join(one for one in forged if one != receipt)
            for act in (group.confirm, group.release, lambda r: group.extend(r, lease_ms=9)):
                assert 0 not in act(given)
        assert group.confirm(receipt) == b"\0"
