"""A server that lies: what a client is told ends in an error of the client's, and in no loop."""

from __future__ import annotations

import struct
from concurrent.futures import Future
from typing import Any

from mutation import Mutator
from trials import Trials

from penstock import parse, wire
from penstock.errors import PenstockError
from penstock.request import Call
from penstock.session import Session, State
from penstock.wire import Delivered, Verb, WireError

RECEIPT = bytes(range(24))
MESSAGES = [Delivered(RECEIPT, 7, 1, memoryview(b"ext"), memoryview(b"body"), 0)] * 2
GREETING = wire.hello_reply(0, wire.FRAME_BYTES, bytes(16))


def asking() -> tuple[Session, list[Future[Any]]]:
    """A session that has asked one thing of each kind; its tags are 1, 2, 3, …"""
    session = Session(producer=7)
    futures: list[Future[Any]] = [Future() for _ in range(7)]
    session.connected()
    session.feed(GREETING)
    session.open(futures[0], "q")
    session.open(futures[1], "q", "g")
    session.feed(wire.number_reply(Verb.OPEN, 1, 5) + wire.number_reply(Verb.OPEN, 2, 5))
    session.feed(wire.number_reply(Verb.GROUP, 3, 6))
    assert session.state is State.ONLINE
    handle = futures[1].result()
    session.send(futures[2], handle, 1, b"", b"body")
    for at, verb, decode in (
        (3, Verb.RECEIVE, parse.parse_messages), (4, Verb.CONFIRM, parse.parse_verdicts),
        (5, Verb.ADMIN, bytes), (6, Verb.RECEIVE, parse.parse_messages),
    ):
        session.call(Call(futures[at], verb, lambda tag: wire.ping(tag), decode, handle))
    futures[6].cancel()
    return session, futures


def replies() -> list[bytes]:
    return [
        wire.send_reply(4, 9, 1, False), wire.messages_reply(Verb.RECEIVE, 5, MESSAGES),
        wire.verdicts_reply(Verb.CONFIRM, 6, [0, 1, 2]), wire.frame(Verb.ADMIN | 0x80, 7, b"{}"),
        wire.messages_reply(Verb.RECEIVE, 8, MESSAGES), wire.error_reply(Verb.SEND, 4, 8, "x", 5),
        wire.error_reply(Verb.RECEIVE, 5, 3, "gone"), wire.error_reply(Verb.SEND, 4, 10, "later"),
        wire.frame(Verb.CHECK, 0, b"no"), wire.frame(Verb.CHECK, 0, bytes(36)),
    ]


def told(session: Session, pieces: list[bytes]) -> str:
    """How a session ends that is told this: by which of the errors that it may raise."""
    try:
        for piece in pieces:
            session.feed(piece)
    except PenstockError as error:
        session.lost()
        return type(error).__name__
    return session.state.name


def test_a_lying_server_costs_the_connection_at_most(trials: Trials) -> None:
    corpus = [b"".join(replies()), *replies(), GREETING]
    chooser = Mutator(trials.seed, corpus).chooser
    for data in trials.mutants(corpus, 5000):
        session, futures = asking()
        whole = told(session, [data])
        other, again = asking()
        at = chooser.randrange(len(data) + 1)
        parts = told(other, [data[:at], data[at:]])
        # An impossible length at the very end is refused when the rest of its head has come.
        assert parts == whole or 4 <= other._decoder._held < wire.HEAD_SIZE
        assert [one.done() for one in futures] == [one.done() for one in again]
        for future in futures:
            if future.done() and not future.cancelled() and future.exception() is not None:
                assert isinstance(future.exception(), PenstockError)
        # What was not answered is asked again of the next server, and nothing else.
        if session.state is State.OFFLINE:
            session.connected()
            session.feed(GREETING)


def test_payloads_are_parsed_or_refused(trials: Trials) -> None:
    def plain(frame: bytes) -> bytes:
        return frame[16:]

    batch = plain(wire.send_batch(1, 2, 1, 3, [b"a", b"bb"]))
    both = plain(wire.send_batch(1, 2, 1, 3, [b"a", b"bb"], [b"x", b""]))
    corpus = [
        plain(wire.messages_reply(Verb.RECEIVE, 1, MESSAGES)), batch, both,
        plain(wire.verdicts_reply(Verb.CONFIRM, 1, [0, 1])), plain(wire.confirm(1, [RECEIPT])),
        plain(wire.release(1, 5, [RECEIPT])), plain(wire.send(1, 2, 1, 3, b"body", b"ext")),
        struct.pack("<I", 0xFFFFFFFF), b"",
    ]
    parsers = (
        parse.parse_messages, parse.parse_batch, parse.parse_verdicts, parse.parse_send,
        parse.parse_error, lambda payload: parse.parse_receipts(payload, False),
        lambda payload: parse.parse_receipts(payload, True, 1024),
    )
    for payload in trials.mutants(corpus, 5000):
        for read in parsers:
            try:
                read(memoryview(payload))
            except WireError:
                continue
