"""A server in a process of its own, and a client that knows only bytes."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

PROGRAM = (
    "import json, sys; from penstock.server.app import main; "
    "from penstock.server.config import ServeOptions; "
    "sys.exit(main(ServeOptions(data=sys.argv[1], workers=int(sys.argv[2]), tcp=sys.argv[3], "
    "http=sys.argv[4], cmq_tcp=sys.argv[5], push_allow=tuple(sys.argv[7:]), "
    "**json.loads(sys.argv[6]))))"
)
NAMES = Path(__file__).parents[2] / "build" / "names"


class Server:
    """`serve` as a child process; the context manager stops it with SIGTERM."""

    def __init__(
        self, data: Path, workers: int = 1, push_allow: tuple[str, ...] = (), *,
        tcp: str = "127.0.0.1:0", http: str = "127.0.0.1:0", cmq_tcp: str = "",
        **more: object,
    ) -> None:
        environment = {**os.environ, "PYTHONPATH": os.fspath(NAMES)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, os.fspath(data), str(workers), tcp, http, cmq_tcp,
             json.dumps(more), *push_allow],
            stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        here = r"127\.0\.0\.1:(\d+)"
        found = re.match(rf"ready tcp={here} http={here}(?: cmq-tcp={here})?\n", self.line)
        assert found is not None, self.line
        self.tcp, self.http, self.cmq = (int(port or 0) for port in found.groups())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+)", status)
        assert found is not None
        return int(found[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Wire:
    """One native connection that sends frames and reads replies."""

    def __init__(self, port: int, *, hello: bool = True, producer: int = 0) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.tag = 0
        if hello:
            status, payload = self.call(1, struct.pack("<4sHHQ", b"PNST", 1, 0, producer))
            assert status == 0 and len(payload) == 24

    def send(self, verb: int, payload: bytes = b"") -> int:
        self.tag += 1
        self.socket.sendall(frame(verb, self.tag, payload))
        return self.tag

    def reply(self) -> tuple[int, int, int, bytes]:
        """Verb, status, tag, payload."""
        size, verb, _, status, tag, zero = struct.unpack("<IBBHII", self.exactly(16))
        assert zero == 0
        return verb, status, tag, self.exactly(size - 12)

    def call(self, verb: int, payload: bytes = b"") -> tuple[int, bytes]:
        tag = self.send(verb, payload)
        answered, status, echoed, data = self.reply()
        assert (answered, echoed) == (verb | 0x80, tag)
        return status, data

    def exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise ConnectionResetError(f"closed after {len(data)} of {size} bytes")
            data += more
        return data

    def open(self, name: str = "q", create: bool = True) -> int:
        status, payload = self.call(2, struct.pack("<I", create) + name.encode())
        assert status == 0, payload
        return int.from_bytes(payload, "little")

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def frame(verb: int, tag: int, payload: bytes) -> bytes:
    return struct.pack("<IBBHII", 12 + len(payload), verb, 0, 0, tag, 0) + payload


def send_payload(queue: int, body: bytes, *, durability: int = 1, sequence: int = 0) -> bytes:
    return struct.pack("<IBBHQ", queue, durability, 0, 0, sequence) + body


def receive_payload(
    queue: int, *, count: int = 10, wait_ms: int = 0, lease_ms: int = 30000
) -> bytes:
    return struct.pack("<IIIIII", queue, 0, count, 1 << 20, lease_ms, wait_ms)


def messages_of(payload: bytes) -> list[tuple[bytes, bytes]]:
    """Receipt and body of each message of a reply."""
    (count,) = struct.unpack_from("<I", payload)
    position, found = 8, []
    for _ in range(count):
        ext, body = struct.unpack_from("<II", payload, position + 36)
        begin = position + 48 + ext
        found.append((payload[position : position + 24], payload[begin : begin + body]))
        position = begin + body
    assert position == len(payload)
    return found
