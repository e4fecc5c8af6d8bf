"""The wire of `penstock bench --cmq-tcp`: AUTH, and the first request of each slot.

The keys come from PENSTOCK_ACCESS_KEY and PENSTOCK_SECRET_KEY; a server without any key takes
whoever comes from its own machine.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import socket

from penstock.server._wire import proto_field, proto_fields

AUTH, SEND, BATCH_SEND, PULL, BATCH_PULL = range(1020, 1025)
MEMBERS = {AUTH: 199, SEND: 200, BATCH_SEND: 201, PULL: 202, BATCH_PULL: 204}
LARGEST_BATCH = 16
# A number of five bytes, which the generator overwrites.
SEQNO = bytes([8, 0x80, 0x80, 0x80, 0x80, 0])


def greet(connection: socket.socket) -> None:
    """AUTH on a fresh connection. Raises ValueError with what the server said."""
    id = os.environ.get("PENSTOCK_ACCESS_KEY", "none")
    secret = os.environ.get("PENSTOCK_SECRET_KEY", "none")
    client = "127.0.0.1@bench"
    mac = hmac.new(secret.encode(), (client + id).encode(), hashlib.sha256).digest()
    texts = (id, base64.b64encode(mac).decode(), client, "HmacSHA256")
    connection.sendall(frame(AUTH, [(n, text.encode()) for n, text in enumerate(texts, 1)]))
    head = connection.recv(6, socket.MSG_WAITALL)
    if len(head) < 6:
        raise ConnectionError("the connection was closed")
    size = int.from_bytes(head[2:6], "little") - 6
    told = dict(proto_fields(connection.recv(size, socket.MSG_WAITALL)))
    if told.get(3):
        raise ValueError(f"AUTH was refused: {told.get(4, b'')!r}")


def frame(command: int, fields: list[tuple[int, int | bytes]]) -> bytes:
    """A whole request, its number to be filled in."""
    member = b"".join(proto_field(number, value) for number, value in fields)
    message = SEQNO + proto_field(2, command) + proto_field(MEMBERS[command], member)
    return b"\0\0" + (len(message) + 6).to_bytes(4, "little") + message


def named(queue: str) -> bytes:
    """The field with the queue's name."""
    return proto_field(1, queue.encode())


def send_frame(queue: str, size: int, batch: int) -> bytes:
    """The request that sends one message, or `batch` of them, of `size` bytes."""
    body = bytes(33 + index % 90 for index in range(size))
    fields: list[tuple[int, int | bytes]] = [(1, queue.encode())]
    return frame(SEND if batch == 1 else BATCH_SEND, fields + [(2, body)] * batch)


def pull_frame(queue: str, batch: int, wait_s: int) -> bytes:
    """The request that receives one message, or up to `batch` of them."""
    if batch == 1:
        return frame(PULL, [(1, queue.encode()), (2, wait_s)])
    return frame(BATCH_PULL, [(1, queue.encode()), (2, batch), (3, wait_s)])
