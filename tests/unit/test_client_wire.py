"""The native codec: whole, a byte at a time, and fed with what nobody should send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import parse, wire
from penstock.moved import MOVES, Origin
from penstock.wire import Delivered, Status, Verb, WireError

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
RECEIPTS = st.lists(st.binary(min_size=24, max_size=24), max_size=5)

STREAM = b"".join(
    (
        wire.hello(0, 77),
        wire.open_queue(1, "grün", True),
        wire.send(2, 5, 1, 9, b"body", b"ext"),
        wire.send_batch(3, 5, 0, 10, [b"", b"one", b"three"]),
        wire.receive(4, 5, 6, 7, 8, 9, 10),
        wire.send_reply(2, 2**64 - 1, 1, True),
        wire.error_reply(Verb.SEND, 9, Status.BUSY, "später", 50),
        wire.ping(10, b"x" * 100),
    )
)


def plain(frames: list[wire.Frame]) -> list[tuple[int, int, int, bytes]]:
    return [(f.verb, f.status, f.tag, bytes(f.payload)) for f in frames]


def test_a_stream_cut_anywhere_gives_the_same_frames() -> None:
    whole = plain(wire.Decoder().feed(STREAM))
    assert len(whole) == 8
    for size in (1, 2, 3, 7, 17, 64):
        decoder = wire.Decoder()
        found: list[wire.Frame] = []
        for start in range(0, len(STREAM), size):
            found += decoder.feed(STREAM[start : start + size])
        assert plain(found) == whole and decoder.failed is None


@given(U32, U32, st.sampled_from((0, 1)), U64, st.binary(max_size=300), st.binary(max_size=300))
def test_a_send_comes_back(
    tag: int, queue: int, level: int, sequence: int, ext: bytes, body: bytes
) -> None:
    (frame,) = wire.Decoder().feed(wire.send(tag, queue, level, sequence, body, ext))
    assert (frame.verb, frame.tag) == (Verb.SEND, tag)
    assert parse.parse_send(frame.payload) == (queue, level, sequence, ext, body, 0)


@given(U32, U64, st.lists(st.binary(max_size=40), max_size=20))
def test_a_batch_comes_back(queue: int, sequence: int, bodies: list[bytes]) -> None:
    (frame,) = wire.Decoder().feed(wire.send_batch(1, queue, 1, sequence, bodies))
    assert parse.parse_batch(frame.payload) == (queue, 1, sequence, bodies, None)


@given(U32, RECEIPTS)
def test_receipts_come_back(time_ms: int, receipts: list[bytes]) -> None:
    for data, timed in (
        (wire.confirm(1, receipts), False),
        (wire.release(1, time_ms, receipts), True),
        (wire.extend(1, time_ms, receipts), True),
    ):
        (frame,) = wire.Decoder().feed(data)
        told = time_ms if timed else 0
        assert parse.parse_receipts(frame.payload, timed) == (told, receipts)


ORIGINS = st.none() | st.builds(
    Origin, st.text("ab/é", max_size=9), U32, U32, U64, U64, U32,
    st.sampled_from([*MOVES.values(), "9"]), st.text(max_size=30),
)


def delivered(fields: tuple[bytes, int, int, bytes, bytes, int, Origin | None]) -> Delivered:
    receipt, stored_us, attempts, ext, body, flags, origin = fields
    flags |= wire.MOVED if origin else 0
    views = memoryview(ext), memoryview(body)
    return Delivered(receipt, stored_us, attempts, *views, flags, origin)


@given(
    st.lists(
        st.tuples(
            st.binary(min_size=24, max_size=24),
            U64,
            U32,
            st.binary(max_size=20),
            st.binary(max_size=99),
            st.integers(0, 1),
            ORIGINS,
        ).map(delivered),
        max_size=6,
    )
)
def test_messages_come_back(messages: list[Delivered]) -> None:
    (frame,) = wire.Decoder().feed(wire.messages_reply(Verb.RECEIVE, 3, messages))
    assert frame.verb == Verb.RECEIVE | wire.REPLY
    assert parse.parse_messages(frame.payload) == messages


def test_an_origin_that_is_cut_or_lies_is_refused() -> None:
    origin = Origin("red", 1, 2, 3, 4, 5, "redriven", "why")
    message = Delivered(bytes(24), 1, 1, memoryview(b""), memoryview(b"b"), wire.MOVED, origin)
    whole = wire.messages_reply(Verb.RECEIVE, 1, [message])[16:]
    for size in range(8, len(whole)):
        with pytest.raises(WireError):
            parse.parse_messages(memoryview(whole[:size]))
    for at, lie in ((-6 - 36, 255), (-6 - 36, 1), (-6 - 2, 200)):
        broken = bytearray(whole)
        broken[at] = lie
        with pytest.raises(WireError):
            parse.parse_messages(memoryview(bytes(broken)))


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_any_bytes_are_frames_or_a_stated_failure(pieces: list[bytes]) -> None:
    decoder = wire.Decoder(1000)
    for piece in pieces:
        for frame in decoder.feed(piece):
            for read in (parse.parse_send, parse.parse_batch, parse.parse_messages):
                try:
                    read(frame.payload)
                except WireError as error:
                    assert error.status is Status.MALFORMED
    if decoder.failed:
        assert decoder.failed.status in (Status.MALFORMED, Status.TOO_LARGE)


@given(st.binary(max_size=200))
def test_any_payload_is_parsed_or_malformed(payload: bytes) -> None:
    view = memoryview(payload)
    for read in (parse.parse_send, parse.parse_batch, parse.parse_messages, parse.parse_error):
        try:
            read(view)
        except WireError as error:
            assert error.status is Status.MALFORMED


@pytest.mark.parametrize(
    ("size", "status"), [(11, Status.MALFORMED), (0, Status.MALFORMED), (1001, Status.TOO_LARGE),
                         (2**31, Status.TOO_LARGE)]
)
def test_an_impossible_size_is_refused_from_its_four_bytes(size: int, status: Status) -> None:
    decoder = wire.Decoder(1000)
    assert decoder.feed(size.to_bytes(4, "little")) == []
    assert decoder.failed and decoder.failed.status is status
    assert decoder.feed(wire.ping(1)) == []
