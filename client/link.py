"""A blocking socket that is opened again and again, and how long to wait in between."""

from __future__ import annotations

import random
import select
import socket
import time

BACKOFF_SECONDS = 0.02
BACKOFF_LIMIT_SECONDS = 2.0
ATTEMPT_SECONDS = 5.0
READ_BYTES = 1 << 18


class Link:
    """One TCP connection to one address; none at first."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self._socket: socket.socket | None = None
        self._backoff = BACKOFF_SECONDS

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def open(self) -> None:
        """A new connection in place of the old one."""
        self.close()
        made = socket.create_connection((self.host, self.port), ATTEMPT_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(self.timeout)
        self._socket = made

    def write(self, data: bytes) -> bool:
        """Whether all of data was written; after a failure, read says the connection ended."""
        link = self._socket
        try:
            if link is not None:
                link.sendall(data)
                return True
        except OSError:
            shut(link)
        return False

    def read(self, seconds: float) -> bytes | None:
        """What has come; b"" when the connection ended, None when nothing came in time."""
        link = self._socket
        try:
            if link is None:
                return b""
            # poll, not select: a descriptor may be over 1023.
            poll = select.poll()
            poll.register(link, select.POLLIN)
            if not poll.poll(max(0, seconds) * 1000):
                return None
            return link.recv(READ_BYTES)
        except (OSError, ValueError):
            return b""

    def stands(self) -> None:
        """The connection is a good one: the next loss begins with a short pause."""
        self._backoff = BACKOFF_SECONDS

    def pause(self, deadline: float) -> bool:
        """Wait before the next attempt; False when it would begin after deadline."""
        seconds = self._backoff * random.uniform(0.5, 1.0)
        self._backoff = min(self._backoff * 2, BACKOFF_LIMIT_SECONDS)
        if time.monotonic() + seconds >= deadline:
            return False
        time.sleep(seconds)
        return True

    def close(self) -> None:
        """No connection; a thread that reads is woken."""
        link, self._socket = self._socket, None
        if link is not None:
            shut(link)
            link.close()


def shut(link: socket.socket | None) -> None:
    """Wake whoever reads or writes, before the descriptor can become another file's."""
    try:
        if link is not None:
            link.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
