"""Sockets that accept: bound before anyone serves, shared by workers, closed first on shutdown."""

import asyncio
import socket
from collections.abc import Callable

BACKLOG = 4096


def bind(host: str, port: int) -> socket.socket:
    """A bound TCP socket that other workers may bind as well. It does not accept yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
    bound = socket.socket(found[0], socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(found[4])
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


class Listener:
    """One accepting socket and the protocol its connections get."""

    def __init__(self, bound: socket.socket, protocol: Callable[[], asyncio.BaseProtocol]) -> None:
        self.bound = bound
        self.protocol = protocol
        self.server: asyncio.AbstractServer | None = None

    async def start(self) -> None:
        """Accept from now on."""
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(self.protocol, sock=self.bound, backlog=BACKLOG)

    def stop(self) -> None:
        """Accept no more. Connections live on."""
        if self.server is not None:
            self.server.close()
