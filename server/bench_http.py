"""The wire of `penstock bench send --http`: the queue, and the request that is sent repeatedly."""

from __future__ import annotations

import http.client
import struct
from urllib.parse import quote

CONNECT_TIMEOUT_S = 10.0


def open_queue(address: str, queue: str) -> None:
    """Create the queue if it is absent. Raises OSError with what the server said."""
    connection = http.client.HTTPConnection(address, timeout=CONNECT_TIMEOUT_S)
    try:
        connection.request("PUT", target(queue))
        answer = connection.getresponse()
        text = answer.read(300).decode(errors="replace")
        if answer.status >= 300:
            raise OSError(f"PUT {target(queue)} was answered with {answer.status}: {text}")
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP server answers there: {error!r}") from None
    finally:
        connection.close()


def target(queue: str) -> str:
    return f"/v1/queues/{quote(queue, safe='')}"


def send_request(address: str, queue: str, size: int, batch: int, durability: str) -> bytes:
    """The request that sends one message, or `batch` of them, of `size` bytes."""
    body = bytes(33 + index % 90 for index in range(size))
    kind = "application/octet-stream"
    if batch > 1:
        body = (struct.pack("<I", size) + body) * batch
        kind = "application/vnd.penstock.batch"
    # What a server does unless it is asked for less takes its shortest way.
    level = "" if durability == "disk" else f"?durability={durability}"
    return (f"POST {target(queue)}/messages{level} HTTP/1.1\r\nHost: {address}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body
