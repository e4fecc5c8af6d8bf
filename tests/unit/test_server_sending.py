"""Replies go to the socket past the transport, unless that would change their order or the peer."""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
import feeding  # noqa: E402

OPENING = b"\x1c\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0" + struct.pack("<4sHHQ", b"PNST", 1, 0, 77)
PING = struct.pack("<IBBHII", 12, 13, 0, 0, 2, 0)


class Wired(feeding.Transport):
    """A transport with a socket, at whose other end it is seen what was sent."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__()
        self.ours = ours
        self.kept = 0

    def is_closing(self) -> bool:
        return not self.open

    def get_write_buffer_size(self) -> int:
        return self.kept

    def get_extra_info(self, name: str) -> Any:
        return self.ours if name == "socket" else super().get_extra_info(name)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[feeding.Worker]:
    with feeding.working(tmp_path / "s") as worker:
        yield worker


def opened(worker: feeding.Worker, transport: feeding.Transport) -> Any:
    connection = worker.native()
    connection.connection_made(transport)
    return connection


def said(connection: Any, data: bytes) -> None:
    connection.get_buffer(-1)[:len(data)] = data
    connection.buffer_updated(len(data))


def heard(theirs: socket.socket) -> bytes:
    try:
        return theirs.recv(1 << 20)
    except BlockingIOError:
        return b""


def test_a_reply_goes_straight_to_the_socket(
    worker: feeding.Worker, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    transport = Wired(ours)
    said(opened(worker, transport), OPENING)
    assert heard(theirs)[4] == 0x81
    assert not transport.said


def test_what_the_socket_does_not_take_is_left_to_the_transport_and_what_follows_waits_for_it(
    worker: feeding.Worker, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair
    transport = Wired(ours)
    connection = opened(worker, transport)
    said(connection, OPENING)
    heard(theirs)
    filled = 0
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            filled += ours.send(b"x" * 4096)
    said(connection, PING)
    transport.kept = len(transport.said)
    assert transport.kept
    # There is room again, but the transport has not sent what it was handed.
    while filled:
        filled -= len(heard(theirs))
    said(connection, PING)
    assert heard(theirs) == b""
    assert len(transport.said) == 2 * transport.kept
    transport.kept = 0
    said(connection, PING)
    assert heard(theirs) * 2 == transport.said


def test_nothing_is_sent_on_the_descriptor_of_a_transport_that_closes(
    worker: feeding.Worker, pair: tuple[socket.socket, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may have been given to another connection since."""
    ours, theirs = pair
    transport = Wired(ours)
    connection = opened(worker, transport)
    said(connection, OPENING)
    assert heard(theirs)
    monkeypatch.setattr(transport, "is_closing", lambda: True)
    said(connection, PING)
    assert heard(theirs) == b""


def test_nothing_is_sent_past_encryption(
    worker: feeding.Worker, pair: tuple[socket.socket, socket.socket]
) -> None:
    ours, theirs = pair

    class Encrypted(Wired):
        def get_extra_info(self, name: str) -> Any:
            return "a context" if name == "sslcontext" else super().get_extra_info(name)

    transport = Encrypted(ours)
    said(opened(worker, transport), OPENING)
    assert heard(theirs) == b""
    assert transport.said[4] == 0x81


def test_a_listener_of_this_machine_paces_nothing() -> None:
    from penstock.server.protocols.listener import bind

    with bind("127.0.0.1", 0) as here:
        name = here.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        assert name.rstrip(b"\0") == b"reno"
