"""The native protocol on what waits: flags of a send, verdicts, checks, atomic sends."""

import json
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import Server, Wire, frame, messages_of, receive_payload

SEND, BATCH, RECEIVE, ADMIN = 3, 4, 5, 12
COMMIT, ROLLBACK, CHECK, PRODUCER, ALL = 14, 15, 16, 17, 18
DUE, DELAY, HALF = 2, 4, 8
EXISTS, NOT_FOUND, INVALID, TOO_LARGE, MALFORMED = 4, 3, 9, 5, 1
HOUR = 3_600_000_000
DECADE = 11 * 366 * 24 * HOUR


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("later") / "s") as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.tcp) as wire:
        yield wire


@pytest.fixture
def queue(wire: Wire, request: pytest.FixtureRequest) -> int:
    return wire.open(request.node.name.replace("[", ".").replace("]", "")[:100])


def now_us() -> int:
    return time.time_ns() // 1000


def attribute(kind: int, text: str) -> bytes:
    return struct.pack("<BBH", kind, 0, len(text)) + text.encode()


def send(
    queue: int, body: bytes, flags: int, *, time_us: int = 0, check_ms: int = 0, ext: bytes = b"",
    sequence: int = 0, zero: int = 0,
) -> bytes:
    flags |= bool(ext)
    later = struct.pack("<QII", time_us, check_ms, zero) if flags & ~1 else b""
    return struct.pack("<IBBHQ", queue, 1, flags, len(ext), sequence) + later + ext + body


def batch(queue: int, bodies: list[bytes], flags: int, time_us: int, sequence: int = 0) -> bytes:
    return (
        struct.pack("<IBBHQIIQII", queue, 1, flags, 0, sequence, len(bodies), 0, time_us, 0, 0)
        + struct.pack(f"<{len(bodies)}I", *map(len, bodies)) + b"".join(bodies))


def sent(reply: tuple[int, bytes]) -> tuple[int, int, int, int]:
    """Offset or id, durability, duplicate, waits."""
    status, payload = reply
    assert status == 0, payload
    return struct.unpack("<QBBH", payload[:12])


def received(wire: Wire, queue: int, wait_ms: int = 0) -> list[bytes]:
    status, payload = wire.call(RECEIVE, receive_payload(queue, count=100, wait_ms=wait_ms))
    assert status == 0
    return [body for _, body in messages_of(payload)]


def admin(wire: Wire, do: str, **fields: Any) -> Any:
    status, payload = wire.call(ADMIN, json.dumps({"do": do, **fields}).encode())
    assert status == 0, payload
    return json.loads(payload)


def text_id(queue: int, id: int) -> str:
    return f"{queue:08x}-p{id:015x}"


def test_a_delayed_send_comes_at_its_time(wire: Wire, queue: int) -> None:
    before = now_us()
    id, durability, duplicate, waits = sent(
        wire.call(SEND, send(queue, b"x", DELAY, time_us=150_000)))
    assert (durability, duplicate, waits) == (1, 0, 1)
    assert received(wire, queue) == []
    shown = admin(wire, "pending.get", id=text_id(queue, id))
    assert before + 150_000 <= shown["due_us"] <= now_us() + 150_000
    assert received(wire, queue, 5000) == [b"x"] and now_us() >= shown["due_us"]


def test_a_time_that_is_over_is_no_delay(wire: Wire, queue: int) -> None:
    for flags, time_us in ((DUE, now_us() - 1), (DUE, 0), (DELAY, 0)):
        assert sent(wire.call(SEND, send(queue, b"x", flags, time_us=time_us)))[3] == 0
    assert received(wire, queue) == [b"x"] * 3


def test_what_a_delayed_message_carries_comes_with_it(wire: Wire, queue: int) -> None:
    id = sent(wire.call(SEND, send(queue, b"x", DUE, time_us=now_us() + HOUR,
                                   ext=attribute(1, "tag"))))[0]
    assert admin(wire, "pending.get", id=text_id(queue, id))["tag"] == "tag"
    admin(wire, "pending.move", id=text_id(queue, id), delay_ms=1)
    status, payload = wire.call(RECEIVE, receive_payload(queue, wait_ms=5000))
    assert status == 0 and attribute(1, "tag") + b"x" in payload


def test_a_repeated_delayed_send_has_one_id(server: Server, queue: int) -> None:
    due = now_us() + HOUR
    with Wire(server.tcp, producer=queue + 77) as wire:
        first = sent(wire.call(SEND, send(queue, b"x", DUE, time_us=due, sequence=1)))
        again = sent(wire.call(SEND, send(queue, b"x", DUE, time_us=due, sequence=1)))
        late = sent(wire.call(SEND, send(queue, b"x", DUE, time_us=1, sequence=1)))
        assert again == late == (first[0], 1, 1, 1)


def test_the_ids_of_a_batch_can_be_told(wire: Wire, queue: int) -> None:
    bodies = [b"a", b"bb" * 40, b"ccc"]
    first, _, _, waits = sent(wire.call(BATCH, batch(queue, bodies, DELAY, HOUR)))
    assert waits == 1
    sizes = [(48 + len(body) + 7) & ~7 for body in bodies]
    ids = [first, first + sizes[0], first + sizes[0] + sizes[1]]
    name = admin(wire, "pending.get", id=text_id(queue, first))["queue"]
    listed = admin(wire, "pending.list", queue=name)["messages"]
    assert [one["id"] for one in listed] == [text_id(queue, id) for id in ids]
    for id in ids:
        assert admin(wire, "pending.cancel", id=text_id(queue, id))["cancelled"]
    assert admin(wire, "pending.list", queue=name) == {"messages": [], "next": None}


def test_a_half_is_seen_once_it_is_committed_and_the_first_verdict_wins(
    wire: Wire, queue: int
) -> None:
    sent(wire.call(SEND, send(queue, b"before", 0)))
    yes, no = (
        sent(wire.call(SEND, send(queue, body, HALF, check_ms=60_000)))[0] for body in (b"y", b"n"))
    assert received(wire, queue) == [b"before"]
    assert sent(wire.call(COMMIT, struct.pack("<Q", yes))) == (1, 1, 0, 0)
    assert sent(wire.call(COMMIT, struct.pack("<Q", yes))) == (1, 1, 1, 0)
    assert sent(wire.call(ROLLBACK, struct.pack("<Q", no))) == (0, 1, 0, 0)
    assert sent(wire.call(ROLLBACK, struct.pack("<Q", no))) == (0, 1, 1, 0)
    assert wire.call(ROLLBACK, struct.pack("<Q", yes))[0] == EXISTS
    assert wire.call(COMMIT, struct.pack("<Q", no))[0] == EXISTS
    assert received(wire, queue, 5000) == [b"y"]


def test_both_verdicts_at_once_and_twice_in_one_round(wire: Wire, queue: int) -> None:
    id = sent(wire.call(SEND, send(queue, b"x", HALF)))[0]
    payload = struct.pack("<Q", id)
    tags = [wire.tag + at for at in range(1, 5)]
    wire.socket.sendall(b"".join(
        frame(verb, tag, payload) for verb, tag in zip((COMMIT, COMMIT, ROLLBACK, COMMIT), tags)))
    wire.tag += 4
    told = {tag: (status, data) for _, status, tag, data in (wire.reply() for _ in tags)}
    assert [told[tag][0] for tag in tags] == [0, 0, EXISTS, 0]
    assert [sent(told[tag]) for tag in (tags[0], tags[1], tags[3])] == [
        (0, 1, 0, 0), (0, 1, 1, 0), (0, 1, 1, 0)]


def test_a_half_with_a_time_that_is_committed_twice_in_one_round_waits_once(
    wire: Wire, queue: int
) -> None:
    id = sent(wire.call(SEND, send(queue, b"x", HALF | DELAY, time_us=HOUR)))[0]
    tags = [wire.tag + 1, wire.tag + 2]
    wire.socket.sendall(b"".join(frame(COMMIT, tag, struct.pack("<Q", id)) for tag in tags))
    wire.tag += 2
    told = {tag: (status, data) for _, status, tag, data in (wire.reply() for _ in tags)}
    assert [sent(told[tag]) for tag in tags] == [(id, 1, 0, 1), (id, 1, 1, 1)]
    assert [one["id"] for one in admin(wire, "pending.list", state="committed")["messages"]
            ].count(text_id(queue, id)) == 1


def test_a_half_with_a_time_waits_for_both(wire: Wire, queue: int) -> None:
    id = sent(wire.call(SEND, send(queue, b"x", HALF | DELAY, time_us=HOUR)))[0]
    assert sent(wire.call(COMMIT, struct.pack("<Q", id))) == (id, 1, 0, 1)
    assert sent(wire.call(COMMIT, struct.pack("<Q", id))) == (id, 1, 1, 1)
    [one] = [one for one in admin(wire, "pending.list", state="committed")["messages"]
             if one["id"] == text_id(queue, id)]
    admin(wire, "pending.move", id=one["id"], delay_ms=1)
    assert received(wire, queue, 5000) == [b"x"]


def check_of(wire: Wire) -> tuple[int, int, str, str, bytes, bytes]:
    """Id, checks, queue, group, ext, body."""
    verb, status, tag, payload = wire.reply()
    assert (verb, status, tag) == (CHECK, 0, 0)
    id, _, checks, _, name, group, ext, flags = struct.unpack_from("<QQIIHHII", payload)
    at = 36
    parts = []
    for size in (name, group, ext):
        parts.append(payload[at:at + size])
        at += size
    assert flags == 1
    return id, checks, parts[0].decode(), parts[1].decode(), parts[2], payload[at:]


def test_a_live_producer_is_asked_and_answers(server: Server, wire: Wire, queue: int) -> None:
    ext = attribute(8, "bank") + attribute(9, "100 3")
    with Wire(server.tcp) as bank:
        assert bank.call(PRODUCER, struct.pack("<I", 1) + b"bank") == (0, b"")
        id = sent(wire.call(SEND, send(queue, b"pay", HALF, ext=ext)))[0]
        asked = check_of(bank)
        assert (asked[0], asked[1], asked[3:]) == (id, 0, ("bank", ext, b"pay"))
        # Silent: asked again, then answered over another connection than the sender's.
        assert check_of(bank)[:2] == (id, 1)
        tag = bank.send(COMMIT, struct.pack("<Q", id))
        while (told := bank.reply())[2] != tag:
            assert told[0] == CHECK
        assert told[1] == 0
    assert received(wire, queue, 5000) == [b"pay"]


def test_who_leaves_or_is_gone_is_asked_no_more(server: Server, wire: Wire, queue: int) -> None:
    ext = attribute(8, "shop") + attribute(9, "100 200")
    with Wire(server.tcp) as gone:
        assert gone.call(PRODUCER, struct.pack("<I", 1) + b"shop") == (0, b"")
    with Wire(server.tcp) as left, Wire(server.tcp) as there:
        for flags in (1, 1, 0, 0):
            assert left.call(PRODUCER, struct.pack("<I", flags) + b"shop") == (0, b"")
        assert there.call(PRODUCER, struct.pack("<I", 1) + b"shop") == (0, b"")
        id = sent(wire.call(SEND, send(queue, b"x", HALF, ext=ext)))[0]
        assert [check_of(there)[:2] for _ in range(2)] == [(id, 0), (id, 1)]
        assert left.call(13, b"!") == (0, b"!")
        wire.call(ROLLBACK, struct.pack("<Q", id))


def all_of(*messages: tuple[int, bytes, int, int], count: int | None = None) -> bytes:
    parts = [struct.pack("<BBHI", 1, 0, 0, len(messages) if count is None else count)]
    for queue, body, flags, time_us in messages:
        parts.append(struct.pack("<IBBHI", queue, flags, 0, 0, len(body)))
        if flags & ~1:
            parts.append(struct.pack("<QII", time_us, 0, 0))
        parts.append(body)
    return b"".join(parts)


def test_an_atomic_send_is_in_all_queues_or_in_none(wire: Wire, queue: int) -> None:
    other = wire.open("the-other")
    status, payload = wire.call(
        ALL, all_of((queue, b"a", 0, 0), (other, b"b", 0, 0), (queue, b"later", DELAY, HOUR)))
    assert status == 0
    assert struct.unpack_from("<BBHI", payload) == (1, 0, 0, 3)
    rows = [struct.unpack_from("<QII", payload, 8 + 16 * at) for at in range(3)]
    assert rows[0] == (0, 0, 0) and rows[2][1:] == (1, 0)
    assert received(wire, queue) == [b"a"] and b"b" in received(wire, other)
    for wrong, expected in (
        (all_of((queue, b"x", 0, 0), (0x7FFF, b"y", 0, 0)), NOT_FOUND),
        (all_of(), INVALID), (b"", INVALID), (all_of((queue, b"x", HALF, 0)), INVALID),
        (all_of((queue, b"x", 0, 0), count=2), INVALID),
        (all_of((queue, b"x", 0, 0), count=0), INVALID),
        (all_of((queue, b"x", DUE | DELAY, 1)), INVALID),
        (all_of((queue, b"x", DUE, now_us() + DECADE)), INVALID),
        (all_of((queue, b"x", 0, 0), count=5000), TOO_LARGE),
        (all_of((queue, bytes((4 << 20) + 1), 0, 0)), TOO_LARGE),
        (struct.pack("<BBHIIBBHI", 1, 0, 0, 1, queue, 0, 0, 2, 0) + b"ex", INVALID),
        (struct.pack("<BBHIIBBHI", 1, 0, 0, 1, queue, 1, 0, 2, 0) + b"ex", INVALID),
        (struct.pack("<BBHI", 2, 0, 0, 1) + all_of((queue, b"x", 0, 0))[8:], INVALID),
    ):
        assert wire.call(ALL, wrong)[0] == expected, wrong[:40]
    assert received(wire, queue) == []


BAD = [
    ("a time and a delay", DUE | DELAY, {"time_us": 5}, INVALID),
    ("a time without its flag", HALF, {"time_us": 5}, INVALID),
    ("a check without its flag", DELAY, {"check_ms": 5}, INVALID),
    ("a reserved field", DELAY, {"zero": 1}, INVALID),
    ("a delay of decades", DELAY, {"time_us": DECADE}, INVALID),
    ("a time in decades", DUE, {"time_us": now_us() + DECADE}, INVALID),
    ("a time that wraps", DELAY, {"time_us": (1 << 64) - 1}, INVALID),
    ("a check after days", HALF, {"check_ms": 13 * 3_600_000}, INVALID),
    ("a flag that is none", 16, {}, INVALID),
    ("attributes that are none", DELAY, {"time_us": 5, "ext": b"\x01\x00\x09\x00x"}, INVALID),
]


@pytest.mark.parametrize(("flags", "fields", "status"), [row[1:] for row in BAD],
                         ids=[row[0].replace(" ", "-") for row in BAD])
def test_a_send_that_cannot_wait_so_is_refused_and_nothing_is_stored(
    wire: Wire, queue: int, flags: int, fields: dict[str, Any], status: int
) -> None:
    told, payload = wire.call(SEND, send(queue, b"x", flags, **fields))
    assert told == status, payload
    if flags in (DUE | DELAY, 16) or fields.get("time_us", 0) > HOUR:
        told, payload = wire.call(BATCH, batch(queue, [b"x"], flags, fields.get("time_us", 0)))
        assert told == status, payload
    assert received(wire, queue) == []
    waits = admin(wire, "pending.list", limit=1000)["messages"]
    assert not [one for one in waits if one["id"].startswith(f"{queue:08x}")]


@pytest.mark.parametrize(("verb", "payload"), [
    (SEND, struct.pack("<IBBHQ", 1, 1, DELAY, 0, 0) + b"short"),
    (BATCH, struct.pack("<IBBHQII", 1, 1, DELAY, 0, 0, 1, 0) + b"short"),
    (COMMIT, b"1234567"), (ROLLBACK, b"123456789"),
])
def test_what_is_no_request_is_malformed(server: Server, verb: int, payload: bytes) -> None:
    with Wire(server.tcp) as wire:
        assert wire.call(verb, payload)[0] == MALFORMED


def test_verdicts_on_nothing_and_wrong_producers_are_named(wire: Wire, queue: int) -> None:
    delayed = sent(wire.call(SEND, send(queue, b"x", DELAY, time_us=HOUR)))[0]
    for verb in (COMMIT, ROLLBACK):
        assert wire.call(verb, struct.pack("<Q", delayed))[0] == INVALID
        assert wire.call(verb, struct.pack("<Q", 4711))[0] == NOT_FOUND
    assert wire.call(CHECK, b"")[0] == 2
    for wrong in (b"", struct.pack("<I", 2) + b"g", struct.pack("<I", 1) + b"\xff",
                  struct.pack("<I", 1) + b"g" * 256):
        assert wire.call(PRODUCER, wrong)[0] == INVALID
    for at in range(64):
        assert wire.call(PRODUCER, struct.pack("<I", 1) + b"%d" % at)[0] == 0
    assert wire.call(PRODUCER, struct.pack("<I", 1) + b"one more")[0] == INVALID
    assert wire.call(PRODUCER, struct.pack("<I", 1) + b"7")[0] == 0


def test_checks_reach_a_producer_at_another_worker(tmp_path: Path) -> None:
    ext = attribute(8, "bank") + attribute(9, "100 255")
    with Server(tmp_path / "s", workers=2) as server:
        with Wire(server.tcp) as wire:
            queue = wire.open("q")
            ids = {sent(wire.call(SEND, send(queue, b"x", HALF, ext=ext)))[0] for _ in range(20)}
            banks = [Wire(server.tcp) for _ in range(4)]
            for bank in banks:
                assert bank.call(PRODUCER, struct.pack("<I", 1) + b"bank") == (0, b"")
            asked: set[int] = set()
            while asked < ids:
                ready, _, _ = select.select([bank.socket for bank in banks], [], [], 30)
                assert ready
                asked |= {check_of(bank)[0] for bank in banks if bank.socket in ready}
            for bank in banks:
                bank.close()
