"""The session: what is sent again after a reconnect, and in which order."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from penstock import errors, model, parse, wire
from penstock.request import Handle
from penstock.session import Session, State
from penstock.wire import Receipt, Status, Verb


def frames(session: Session) -> list[wire.Frame]:
    found = wire.Decoder().feed(b"".join(session.outgoing))
    session.outgoing.clear()
    return found


def greet(session: Session, number: int = 40) -> list[wire.Frame]:
    """Go online; what is written once every name has its number."""
    session.connected()
    assert [frame.verb for frame in frames(session)] == [Verb.HELLO]
    session.feed(wire.hello_reply(0, wire.FRAME_BYTES, b"s" * 16))
    while session.state is State.RESOLVING:
        for frame in frames(session):
            session.feed(wire.number_reply(frame.verb, frame.tag, number))
    return frames(session)


def opened(session: Session, name: str = "q", group: str = "") -> Handle:
    future: Future[Any] = Future()
    session.open(future, name, group)
    greet(session) if session.state is State.OFFLINE else None
    for _ in range(2):
        for frame in frames(session):
            session.feed(wire.number_reply(frame.verb, frame.tag, 40))
    handle: Handle = future.result(0)
    return handle


def send(session: Session, handle: Handle, body: bytes) -> Future[Receipt]:
    future: Future[Receipt] = Future()
    session.send(future, handle, 1, b"", body)
    return future


def test_unanswered_sends_go_again_in_order_under_the_same_numbers() -> None:
    session = Session(producer=7)
    handle = opened(session)
    futures = [send(session, handle, body) for body in (b"a", b"b", b"c")]
    first = [parse.parse_send(frame.payload)[2] for frame in frames(session)]
    session.feed(wire.send_reply(min(session.pending), 100, 1, False))
    assert futures[0].result(0) == Receipt(100, "disk", False, 1, "q")
    session.lost()
    assert session.outgoing == [] and not futures[1].done()
    futures.append(send(session, handle, b"d"))
    assert session.outgoing == []
    again = [parse.parse_send(frame.payload) for frame in greet(session, 99)]
    assert [(queue, bytes(body)) for queue, _, _, _, body, _ in again] == [
        (99, b"b"), (99, b"c"), (99, b"d")
    ]
    assert first == [1, 2, 3] and [sequence for _, _, sequence, *_ in again] == [2, 3, 4]


def test_what_must_not_be_done_twice_fails_when_the_connection_breaks() -> None:
    session = Session()
    greet(session)
    purge: Future[Any] = Future()
    listing: Future[Any] = Future()
    session.call(model.admin_call(purge, "queue.purge", {"name": "q"}))
    session.call(model.admin_call(listing, "queue.list", {}))
    session.lost()
    assert isinstance(purge.exception(0), errors.ConnectionLostError)
    assert [frame.verb for frame in greet(session)] == [Verb.ADMIN] and not listing.done()


def test_a_confirmation_that_goes_again_says_so() -> None:
    session = Session(producer=7)
    opened(session)
    future: Future[Any] = Future()
    session.call(model.confirm_call(future, [bytes(24)]))
    assert b"".join(session.outgoing)[5] == 0
    session.lost()
    session.connected()
    session.outgoing.clear()
    session.feed(wire.hello_reply(0, wire.FRAME_BYTES, b"s" * 16))
    for frame in frames(session):
        session.feed(wire.number_reply(frame.verb, frame.tag, 40))
    assert b"".join(session.outgoing)[4:6] == bytes([Verb.CONFIRM, 1])
    session.feed(wire.verdicts_reply(Verb.CONFIRM, min(session.pending), [0]))
    assert future.result(0) == [0]


def test_a_deleted_queue_fails_its_own_requests_only() -> None:
    session = Session()
    gone, kept = opened(session, "gone"), opened(session, "kept")
    lost, stays = send(session, gone, b"x"), send(session, kept, b"y")
    session.lost()
    session.connected()
    frames(session)
    session.feed(wire.hello_reply(0, wire.FRAME_BYTES, b"s" * 16))
    asked = frames(session)
    session.feed(wire.error_reply(Verb.OPEN, asked[0].tag, Status.NOT_FOUND, "gone"))
    session.feed(wire.number_reply(Verb.OPEN, asked[1].tag, 5))
    assert isinstance(lost.exception(0), errors.QueueNotFoundError) and not stays.done()
    assert [bytes(f.payload)[-1:] for f in frames(session)] == [b"y"]
    with pytest.raises(errors.QueueNotFoundError):
        send(session, gone, b"z")


def test_a_group_is_resolved_after_its_queue() -> None:
    handle = opened(Session(), "q", "g")
    assert handle.resolved and (handle.queue, handle.group) == (40, 40)


def test_what_a_draining_server_refused_is_kept_for_its_successor() -> None:
    session = Session()
    future = send(session, opened(session), b"x")
    (frame,) = frames(session)
    session.feed(wire.error_reply(Verb.SEND, frame.tag, Status.SHUTTING_DOWN, "bye"))
    assert not future.done()
    session.lost()
    assert len(greet(session)) == 1


def test_messages_that_nobody_waits_for_are_given_back() -> None:
    session = Session()
    handle = opened(session)
    future: Future[Any] = Future()
    session.call(model.receive_call(future, handle, 1, 1000, 0, 1000))
    (frame,) = frames(session)
    future.cancel()
    message = wire.Delivered(b"r" * 24, 0, 1, memoryview(b""), memoryview(b"x"))
    session.feed(wire.messages_reply(Verb.RECEIVE, frame.tag, [message]))
    (frame,) = frames(session)
    assert frame.verb == Verb.RELEASE
    assert parse.parse_receipts(frame.payload, True) == (0, [b"r" * 24])


def test_replies_are_taken_a_byte_at_a_time_and_in_any_order() -> None:
    session = Session()
    handle = opened(session)
    futures = [send(session, handle, b"x") for _ in range(5)]
    replies = [wire.send_reply(frame.tag, frame.tag, 0, False) for frame in frames(session)]
    for byte in b"".join(reversed(replies)):
        session.feed(bytes([byte]))
    assert [f.result(0).durability for f in futures] == ["kernel"] * 5 and not session.pending


def test_everything_has_a_limit_and_an_end() -> None:
    session = Session(limit=2)
    handle = opened(session)
    futures = [send(session, handle, b"x") for _ in range(2)]
    with pytest.raises(errors.BusyError):
        send(session, handle, b"x")
    with pytest.raises(errors.TooLargeError):
        send(session, handle, bytes(wire.FRAME_BYTES))
    session.expire(1, "late")
    assert isinstance(futures[0].exception(0), TimeoutError) and not futures[1].done()
    session.close()
    assert isinstance(futures[1].exception(0), errors.ClosedError)
    with pytest.raises(errors.ClosedError):
        send(session, handle, b"x")


def test_a_refused_greeting_and_broken_bytes_end_the_connection() -> None:
    session = Session()
    session.connected()
    with pytest.raises(errors.ProtocolError):
        session.feed(wire.error_reply(Verb.HELLO, 0, Status.MALFORMED, "no"))
    session.lost()
    greet(session)
    with pytest.raises(errors.ProtocolError):
        session.feed(b"\xff\xff\xff\xff")


def test_the_table_of_errors_is_total() -> None:
    assert set(errors.ERRORS) == set(Status) - {Status.DONE}
    for status in errors.ERRORS:
        assert isinstance(errors.error_for(status, 3, "why"), errors.ERRORS[status])
    assert isinstance(errors.error_for(999, 0, "why"), errors.ProtocolError)
    assert errors.error_for(Status.BUSY, 50, "").retry_after_ms == 50
