"""What `penstock bench` can be told."""

from __future__ import annotations

import argparse
import math

from penstock.server.config import UsageError, parse_address

DURABILITY = ("disk", "kernel")
LEASE_MS = 60000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the works of `penstock bench`; `bench.main` runs what it parsed."""
    works = parser.add_subparsers(dest="work", required=True, metavar="WORK")
    send = works.add_parser("send", help="send messages and count the answers")
    receive = works.add_parser("receive", help="receive and confirm messages")
    itself = works.add_parser("self", help="measure the generator against a sink in its process")
    for work in (send, receive):
        _add_doors(work)
    for work in (send, receive, itself):
        _add_load(work)
    for work in (send, itself):
        work.add_argument("--durability", choices=DURABILITY, default="disk",
                          help="what is asked of each send (default: disk)")
    for work in (receive, itself):
        work.add_argument("--lease-ms", type=_positive, default=LEASE_MS, metavar="MS",
                          help=f"of each receive (default: {LEASE_MS})")
    receive.add_argument("--group", default="", help="a consumer group (default: the queue's own)")
    receive.add_argument("--fill", type=_count, default=0, metavar="N",
                         help="send N messages first, in large batches")
    receive.add_argument("--wait-ms", type=_count, default=0, metavar="MS",
                         help="wait for messages instead of ending at an empty queue")
    itself.add_argument("--receive", action="store_true", help="receive and confirm, not send")


def _add_doors(work: argparse.ArgumentParser) -> None:
    where = work.add_mutually_exclusive_group(required=True)
    for name, help in (
        ("tcp", "the server's address, over its own protocol"),
        ("http", "its HTTP address, to be loaded over that"),
        ("cmq-tcp", "the address of its CMQ door"),
        ("cmq-http", "its HTTP address, to be loaded with CMQ's actions"),
    ):
        where.add_argument(f"--{name}", metavar="HOST:PORT", type=_address, help=help)
    work.add_argument("--queue", default="bench",
                      help="created if absent, but not over CMQ's TCP (default: bench)")


def _add_load(work: argparse.ArgumentParser) -> None:
    work.add_argument("--connections", type=_positive, default=64, metavar="N",
                      help="(default: 64)")
    work.add_argument("--in-flight", type=_positive, default=1, metavar="M",
                      help="requests without an answer on each connection (default: 1)")
    work.add_argument("--size", type=_count, default=128, metavar="BYTES",
                      help="of each message (default: 128)")
    work.add_argument("--batch", type=_positive, default=1, metavar="B",
                      help="messages in a request (default: 1)")
    work.add_argument("--rate", type=_rate, default=0.0, metavar="R",
                      help="messages a second that are due, whatever the server does: the open"
                           " loop, with latencies from when each was due")
    work.add_argument("--seconds", type=_seconds, default=5.0, metavar="S",
                      help="how long it is measured (default: 5)")
    work.add_argument("--warm-up", type=_seconds, default=None, metavar="S",
                      help="not measured (default: a fifth of the seconds, at most 1)")
    work.add_argument("--count", type=_count, default=0, metavar="N",
                      help="end after N messages instead")
    work.add_argument("--json", action="store_true", help="print one JSON object")
    work.add_argument("--hdr", metavar="FILE",
                      help="keep all latencies, as HdrHistogram's tools read them")


def _address(text: str) -> str:
    try:
        parse_address(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def _rate(text: str) -> float:
    value = _number(text)
    if not 0.01 <= value <= 1e9:
        raise argparse.ArgumentTypeError("must be from 0.01 to 1e9")
    return value


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _count(text: str) -> int:
    value = _number(text)
    if not math.isfinite(value) or value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number")
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError("must be from 0 to 2^32 - 1")
    return int(value)


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be from 0 to 86400")
    return value
