"""The wire of `penstock bench --http`: the queue, and the requests that are sent repeatedly."""

from __future__ import annotations

import http.client
import json
import struct
from typing import NamedTuple
from urllib.parse import quote

from penstock.server.config import parse_address

CONNECT_TIMEOUT_S = 10.0
OCTETS, BATCH = "application/octet-stream", "application/vnd.penstock.batch"


class Confirming(NamedTuple):
    """The pieces of the request that confirms what a reply holds.

    mark: what stands before each receipt in the reply, with a quote behind it. head: the request up
    to the digits of its length; first, last: the ends of its body; before: what stands before each
    receipt in it. good: what the answer says of each that is confirmed.
    """

    mark: bytes
    head: bytes
    first: bytes
    last: bytes
    before: tuple[bytes, ...]
    good: bytes = b""


def ask(address: str, method: str, target: str, body: bytes = b"", kind: str = OCTETS) -> bytes:
    """The body of the answer. Raises OSError if nothing answers there, ValueError if it refuses."""
    host, port = parse_address(address)
    connection = http.client.HTTPConnection(host, port, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request(method, target, body, {"Content-Type": kind})
        answer = connection.getresponse()
        text = answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP server answers there: {error!r}") from None
    finally:
        connection.close()
    if answer.status >= 300:
        told = text[:300].decode(errors="replace")
        raise ValueError(f"{method} {target} was answered with {answer.status}: {told}")
    return text


def open_queue(address: str, queue: str) -> None:
    """Create the queue if it is absent."""
    ask(address, "PUT", target(queue))


def target(queue: str, verb: str = "") -> str:
    return f"/v1/queues/{quote(queue, safe='')}" + (f"/{verb}" if verb else "")


def post(address: str, target: str, kind: str, body: bytes | None) -> bytes:
    """A request; without a body, its head up to the digits of the length."""
    head = (f"POST {target} HTTP/1.1\r\nHost: {address}\r\nContent-Type: {kind}\r\n"
            "Content-Length: ").encode()
    return head if body is None else b"%s%d\r\n\r\n%s" % (head, len(body), body)


def send_request(address: str, queue: str, body: bytes, batch: int, durability: str) -> bytes:
    """The request that sends one message, or `batch` of them."""
    # What a server does unless it is asked for less takes its shortest way.
    level = "" if durability == "disk" else f"?durability={durability}"
    if batch > 1:
        return post(address, target(queue, "messages") + level, BATCH,
                    (struct.pack("<I", len(body)) + body) * batch)
    return post(address, target(queue, "messages") + level, OCTETS, body)


def receive_request(address: str, queue: str, group: str, batch: int, lease_ms: int,
                    wait_ms: int) -> bytes:
    """The request that receives up to `batch` messages."""
    asked = {"max_messages": batch, "lease_ms": lease_ms, "wait_ms": wait_ms, "group": group}
    return post(address, target(queue, "receive"), "application/json", json.dumps(asked).encode())


def confirming(address: str, queue: str, group: str, batch: int) -> Confirming:
    """How what was received is confirmed."""
    head = post(address, target(queue, "confirm"), "application/json", None)
    first = b'{"group":%s,"receipts":[' % json.dumps(group).encode()
    return Confirming(b'"receipt":"', head, first, b'"]}', (b'"',) + (b'","',) * (batch - 1),
                      b'"done"')
