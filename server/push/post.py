"""One POST to a checked address. Blocking; http.client of the standard library.

It takes the address from us, which most client libraries do not: a name that is checked and then
looked up again may lead elsewhere the second time.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import NamedTuple

from penstock.server.broker.errors import BrokerError
from penstock.server.broker.push import Network, Target, permitted

ANSWER_BYTES = 64 * 1024
CONNECT_S = 10.0


class Answer(NamedTuple):
    """status 0: no answer, for the reason why. retry_s: Retry-After."""

    status: int
    why: str = ""
    retry_s: int = 0


def post(
    target: Target, headers: dict[str, str], body: bytes, timeout_s: float,
    allowed: Sequence[Network], under_way: "set[Pinned]",
) -> Answer:
    """What the target answered within timeout_s as a whole. Raises nothing.

    under_way holds the connection meanwhile, so that a server that stops can cut it.
    """
    try:
        address = permitted(addresses_of(target), allowed)
    except (BrokerError, OSError, ValueError) as error:
        return Answer(0, f"{target.host}: {error}")
    connection = Pinned(target, address, timeout_s)
    # A peer that says a byte now and then would never run into the socket's own time-out.
    timer = threading.Timer(timeout_s, connection.cut)
    timer.daemon = True
    timer.start()
    under_way.add(connection)
    try:
        connection.request("POST", target.path, body, headers)
        answer = connection.getresponse()
        answer.read(ANSWER_BYTES)
        if connection.late:
            # To the parser a cut is an end like any other: half an answer would pass for one.
            return Answer(0, f"no answer in {timeout_s} s")
        retry = answer.getheader("Retry-After", "")
        return Answer(answer.status, "", int(retry) if retry.isdecimal() and len(retry) < 9 else 0)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if connection.late:
            return Answer(0, f"no answer in {timeout_s} s")
        return Answer(0, f"{type(error).__name__}: {error}")
    finally:
        timer.cancel()
        under_way.discard(connection)
        connection.close()


def addresses_of(target: Target) -> list[str]:
    """Every address of the host, in the order in which they should be tried."""
    found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


class Pinned(http.client.HTTPConnection):
    """A connection to one address, whatever the host's name leads to."""

    def __init__(self, target: Target, address: str, timeout_s: float) -> None:
        super().__init__(target.host, target.port, timeout=timeout_s)
        self.target = target
        self.address = address
        self.late = False
        self.default_port = 443 if target.secure else 80

    def connect(self) -> None:
        within = min(self.timeout or CONNECT_S, CONNECT_S)
        self.sock = socket.create_connection((self.address, self.target.port), within)
        self.sock.settimeout(self.timeout)
        if self.target.secure:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.target.host)

    def cut(self) -> None:
        """End it from another thread: what it waits for fails."""
        self.late = True
        sock = self.sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return
