"""The command line on serving: every option of `serve`, and the start of the server."""

from __future__ import annotations

import ipaddress
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

EXIT_OK = 0
Add = Callable[..., ArgumentParser]


def add(commands: Any, add_: Add, positive: Callable[[str], int]) -> None:
    """The parser of this command."""
    serve_command = add_(commands, "serve", serve)
    serve_command.add_argument("--data", metavar="DIR", required=True, help="the store's folder")
    serve_command.add_argument(
        "--tcp", metavar="HOST:PORT", default="127.0.0.1:7711", help="the native door (%(default)s)"
    )
    serve_command.add_argument(
        "--http", metavar="HOST:PORT", default="127.0.0.1:7712", help="the HTTP door (%(default)s)"
    )
    serve_command.add_argument(
        "--workers", metavar="N", type=positive, default=1, help="processes (%(default)s)"
    )
    serve_command.add_argument(
        "--segment-size", metavar="BYTES", type=positive, help="size of one log file"
    )
    serve_command.add_argument(
        "--ready", metavar="BYTES", type=positive,
        help="log made ahead of need while little is written, for bursts of that size (one file)",
    )  # fmt: skip
    serve_command.add_argument(
        "--connections", metavar="N", type=positive, help="of each worker at a time (16384)"
    )
    serve_command.add_argument(
        "--push-allow",
        metavar="NETWORK",
        action="append",
        default=[],
        type=network,
        help="a private network, as 10.1.0.0/16, that messages may be pushed into",
    )
    _add_cmq(serve_command)
    serve_command.add_argument(
        "--durability",
        choices=("disk", "kernel"),
        help="what a send that asks for nothing gets (disk)",
    )


def _add_cmq(command: ArgumentParser) -> None:
    command.add_argument(
        "--cmq-tcp", metavar="HOST:PORT", default="", help="the door of CMQ over TCP (none)"
    )
    command.add_argument(
        "--cmq-address", metavar="HOST:PORT", default="",
        help="where CMQ clients are told that door is (the address they asked, its port)",
    )  # fmt: skip
    for option, text in (
        ("--cmq-limits", "hold CMQ clients to the original's limits"),
        ("--cmq-strict", "take CMQ signatures only as they are documented"),
    ):
        command.add_argument(option, action="store_true", help=text)
    command.add_argument(
        "--cmq-clock", metavar="SECONDS", type=int, default=0,
        help="by how much the clock of a CMQ client may be wrong (0: any)",
    )  # fmt: skip


def network(text: str) -> str:
    """A network as 10.1.0.0/16."""
    return str(ipaddress.ip_network(text))


def serve(options: Namespace) -> int:
    """Serve a store over TCP and HTTP until SIGTERM or Ctrl-C."""
    from penstock.server import app
    from penstock.server.config import ServeOptions

    given = {
        "data": options.data,
        "tcp": options.tcp,
        "http": options.http,
        "workers": options.workers,
        "segment_size": options.segment_size,
        "ready": options.ready,
        "connections": options.connections,
        "durability": options.durability,
        "push_allow": tuple(options.push_allow),
        "cmq_tcp": options.cmq_tcp,
        "cmq_address": options.cmq_address,
        "cmq_limits": options.cmq_limits,
        "cmq_strict": options.cmq_strict,
        "cmq_clock": options.cmq_clock,
    }
    return app.main(ServeOptions(**{k: v for k, v in given.items() if v is not None})) or EXIT_OK
