"""Sockets that accept: bound before anyone serves, shared by workers, closed first on shutdown."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable

BACKLOG = 4096


def bind(host: str, port: int, shared: bool = False) -> socket.socket:
    """A bound TCP socket that does not accept yet; shared: other workers may bind it as well."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0]
    bound = socket.socket(found[0], socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Only workers of one server share a port: of two servers each would see half of all.
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(found[4])
        if ipaddress.ip_address(str(found[4][0]).partition("%")[0]).is_loopback:
            # There is no congestion between programs of one machine, so nothing should wait for
            # a timer of an algorithm that paces. Connections inherit it.
            with contextlib.suppress(OSError):
                bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        bound.setblocking(False)
    except OSError:
        bound.close()
        raise
    return bound


def bind_first(host: str, port: int, shared: bool) -> socket.socket:
    """A server's first socket on an address; OSError if another server has it."""
    alone = bind(host, port)
    if not shared:
        return alone
    name = alone.getsockname()
    alone.close()
    return bind(name[0], name[1], True)


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
