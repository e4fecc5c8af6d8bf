"""Requests that arrive in parts: a large last part of a body is no stray."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server


@pytest.mark.parametrize("first", [1, 1000, 100_000])
def test_a_body_may_end_in_a_large_part(first: int, tmp_path: Path) -> None:
    head = b"POST /v1/queues/parts/messages HTTP/1.1\r\nHost: h\r\nContent-Length: 150000\r\n"
    made = b"PUT /v1/queues/parts HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
    with Server(tmp_path / "store") as server:
        link = socket.create_connection(("127.0.0.1", server.http), timeout=20)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(made)
        assert b" 201 " in link.recv(4096)
        for _ in range(3):
            octets = b"Content-Type: application/octet-stream\r\n\r\n"
            link.sendall(head + octets + bytes(first))
            link.sendall(bytes(150_000 - first - 5000))
            # Answered once the last part is there, whatever came before it.
            link.sendall(bytes(5000))
            assert b" 201 " in link.recv(4096)
        link.close()
