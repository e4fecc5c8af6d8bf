"""What the operator chose, and how addresses are written."""

import ipaddress
from dataclasses import dataclass
from typing import Literal


class UsageError(ValueError):
    """What the command line asks for makes no sense."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Everything `penstock serve` can be told.

    An address is HOST:PORT; port 0 picks a free one; "" leaves it out. push_allow: networks that
    messages may be pushed into although they are not public. connections: of each worker at a time.
    ready: bytes of log made ahead of need, for bursts.
    cmq_limits: the original's limits;
    cmq_strict: signatures as documented only; cmq_clock: seconds a client's clock may be wrong by.
    cmq_address: what clients that ask for the way to a CMQ queue are told, instead of the address
    that they reached us by.
    """

    data: str
    tcp: str = "127.0.0.1:7711"
    http: str = "127.0.0.1:7712"
    workers: int = 1
    durability: Literal["disk", "kernel"] = "disk"
    segment_size: int = 64 << 20
    ready: int = 0
    push_allow: tuple[str, ...] = ()
    connections: int = 16384
    cmq_limits: bool = False
    cmq_strict: bool = False
    cmq_clock: int = 0
    cmq_tcp: str = ""
    cmq_address: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.workers <= 256:
            raise UsageError(f"workers must be between 1 and 256, not {self.workers}")
        if not 1 <= self.connections <= 1 << 20:
            raise UsageError(f"connections must be between 1 and 1048576, not {self.connections}")
        if self.durability not in ("disk", "kernel"):
            raise UsageError(f"durability must be disk or kernel, not {self.durability!r}")
        if self.cmq_clock < 0:
            raise UsageError(f"a clock is wrong by 0 seconds or more, not {self.cmq_clock}")
        for network in self.push_allow:
            ipaddress.ip_network(network)
        for address in (self.tcp, self.http, self.cmq_tcp, self.cmq_address):
            if address:
                parse_address(address)
        if not self.tcp and not self.http and not self.cmq_tcp:
            raise UsageError("neither a TCP nor an HTTP address was given")


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of HOST:PORT or [V6]:PORT; an empty host is the loopback. Raises UsageError."""
    host, colon, digits = text.rpartition(":")
    if not colon or not digits.isascii() or not digits.isdigit() or int(digits) > 65535:
        raise UsageError(f"an address is HOST:PORT with a port of 0 to 65535, not {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError(f"an IPv6 address is written [ADDRESS]:PORT, not {text!r}")
    return host or "127.0.0.1", int(digits)


def format_address(host: str, port: int) -> str:
    """HOST:PORT, with brackets round an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
