"""`penstock bench`: load a server over the native protocol, HTTP or CMQ's, or the generator itself.

Closed loop: each connection keeps so many requests in flight. Open loop (--rate): requests are due
by the clock, and what a stall delays counts from when it was due.

The work is done by the compiled generator in `_load`; here its connections are opened, its
first frame is built, and its figures are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from penstock.server import _load, bench_cmq, bench_http, bench_show

HEAD = struct.Struct("<IBBHII")
HELLO, OPEN, SEND, SEND_BATCH, RECEIVE, GROUP = 1, 2, 3, 4, 5, 11
DURABILITY = {"kernel": 0, "disk": 1}
MESSAGE_HEAD = 48
CONNECT_TIMEOUT_S = 10.0
FRAME_LIMIT = 1 << 30
EXIT_OK, EXIT_ERRORS, EXIT_UNREACHABLE = 0, 1, 2

COLUMNS = {
    "rate": "messages/s",
    "messages": "messages",
    "requests": "requests",
    "seconds": "seconds",
    "errors": "errors",
    "generator_cpu": "cores used by the generator",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the works of `penstock bench`; `main` runs what it parsed."""
    works = parser.add_subparsers(dest="work", required=True, metavar="WORK")
    send = works.add_parser("send", help="send messages and count the answers")
    receive = works.add_parser("receive", help="receive and confirm messages")
    itself = works.add_parser("self", help="measure the generator against a sink in its process")
    for work in (send, receive):
        where = work.add_mutually_exclusive_group(required=True)
        where.add_argument("--tcp", metavar="HOST:PORT", help="the server's address")
        where.add_argument("--cmq-tcp", metavar="HOST:PORT", dest="cmq", default="",
                           help="the address of its CMQ door, to be loaded instead")
        if work is send:
            where.add_argument("--http", metavar="HOST:PORT", default="",
                               help="its HTTP address, to be loaded instead")
        work.add_argument("--queue", default="bench",
                          help="created if absent, but not over CMQ (default: bench)")
    for work in (send, receive, itself):
        _add_load_arguments(work)
    for work in (send, itself):
        work.add_argument("--durability", choices=sorted(DURABILITY), default="disk",
                          help="what is asked of each send (default: disk)")
    for work in (receive, itself):
        work.add_argument("--lease-ms", type=_positive, default=60000)
    receive.add_argument("--group", default="", help="a consumer group (default: the queue's own)")
    receive.add_argument("--fill", type=_count, default=0, metavar="N",
                         help="send N messages first, in large batches")
    receive.add_argument("--wait-ms", type=_count, default=0,
                         help="wait for messages instead of ending at an empty queue")
    itself.add_argument("--receive", action="store_true", help="receive and confirm, not send")
    for work in (send, itself):
        work.add_argument("--rate", type=_rate, default=0.0, metavar="R",
                          help="messages a second that are due, whatever the server does: the open"
                               " loop, with latencies from when each was due")


def main(args: argparse.Namespace) -> int:
    """Run the chosen work, print its figures, and return 0, 1 after errors, 2 if unreachable."""
    try:
        with ExitStack() as stack:
            if args.work == "self":
                args.tcp = stack.enter_context(sink(args.size))
                args.queue, args.group, args.fill, args.wait_ms = "bench", "", 0, 0
                args.cmq = args.http = ""
                if args.receive and args.rate:
                    raise OSError("--rate is of sends")
            receiving = args.work == "receive" or (args.work == "self" and args.receive)
            figures = receive(args) if receiving else send(args)
    except OSError as error:
        print(f"penstock bench: {_address(args)}: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    histogram = figures.pop("histogram")
    if args.hdr:
        with open(args.hdr, "w") as file:
            print(*bench_show.hdr_lines(histogram), sep="\n", file=file)
    if args.json:
        print(json.dumps(figures))
    else:
        _print_table(figures, histogram)
    return EXIT_ERRORS if figures["errors"] else EXIT_OK


def send(args: argparse.Namespace) -> dict[str, Any]:
    """Load a server with sends, of `batch` messages each, and return what was measured."""
    with ExitStack() as stack:
        if args.http:
            bench_http.open_queue(args.http, args.queue)
        sockets = _connect_all(stack, args)
        if args.http:
            request = bench_http.send_request(args.http, args.queue, args.size, args.batch,
                                              args.durability)
            return _run(args, sockets, request, "send", args.batch, 1 << 16)
        if args.cmq:
            _fits(args)
            request = bench_cmq.send_frame(args.queue, args.size, args.batch)
            return _run(args, sockets, request, "send", args.batch, 4096)
        queue = _open_queue(sockets[0], args.queue)
        request = send_frame(queue, args.size, args.batch, DURABILITY[args.durability])
        return _run(args, sockets, request, "send", args.batch, 4096)


def receive(args: argparse.Namespace) -> dict[str, Any]:
    """Receive and confirm until the queue is empty or the time is over."""
    with ExitStack() as stack:
        sockets = _connect_all(stack, args)
        if args.cmq:
            _fits(args)
            reply = args.batch * (args.size + 256) + 4096
            request = bench_cmq.pull_frame(args.queue, args.batch, args.wait_ms // 1000)
            if args.fill:
                _fill_cmq(sockets[0], args)
            return _run(args, sockets, request, "receive", args.batch, reply)
        queue = _open_queue(sockets[0], args.queue)
        group = _open_group(sockets[0], queue, args.group) if args.group else 0
        if args.fill:
            _fill(sockets[0], queue, args)
        # The bytes asked for are those of whole messages of this size, heads included or not.
        largest = args.batch * (args.size + MESSAGE_HEAD)
        payload = struct.pack("<6I", queue, group, args.batch, max(largest, 1 << 20),
                              args.lease_ms, args.wait_ms)
        reply = max(largest, args.batch * MESSAGE_HEAD + (1 << 20)) + 4096
        return _run(args, sockets, frame(RECEIVE, payload), "receive", args.batch, reply)


@contextmanager
def sink(body_size: int) -> Iterator[str]:
    """The address of a server that answers at once and stores nothing, as long as it is used."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        with os.fdopen(os.eventfd(0), "wb", buffering=0) as stopper:
            answering = _load.Sink(listener, stopper, body_size=body_size)
            thread = threading.Thread(target=answering.serve, daemon=True)
            thread.start()
            try:
                yield "{}:{}".format(*listener.getsockname()[:2])
            finally:
                os.eventfd_write(stopper.fileno(), 1)
                thread.join()


def frame(verb: int, payload: bytes, tag: int = 0) -> bytes:
    """A whole request of the native protocol."""
    return HEAD.pack(12 + len(payload), verb, 0, 0, tag, 0) + payload


def send_frame(queue: int, size: int, batch: int, durability: int) -> bytes:
    """The request that sends one message, or `batch` of them, of `size` bytes."""
    body = bytes(33 + index % 90 for index in range(size))
    if batch == 1:
        return frame(SEND, struct.pack("<IBBHQ", queue, durability, 0, 0, 0) + body)
    head = struct.pack("<IBBHQII", queue, durability, 0, 0, 0, batch, 0)
    return frame(SEND_BATCH, head + struct.pack("<I", size) * batch + body * batch)


def _add_load_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=_positive, default=64, metavar="N")
    parser.add_argument("--in-flight", type=_positive, default=1, metavar="M",
                        help="requests without an answer on each connection")
    parser.add_argument("--size", type=_count, default=128, metavar="BYTES")
    parser.add_argument("--batch", type=_positive, default=1, metavar="B",
                        help="messages in a request")
    parser.add_argument("--seconds", type=_seconds, default=5.0, metavar="S")
    parser.add_argument("--warm-up", type=_seconds, default=None, metavar="S",
                        help="not measured (default: a fifth of the seconds, at most 1)")
    parser.add_argument("--count", type=_count, default=0, metavar="N",
                        help="end after N messages instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--hdr", metavar="FILE",
                        help="keep all latencies, as HdrHistogram's tools read them")


def _run(args: argparse.Namespace, sockets: list[socket.socket], request: bytes, mode: Any,
         batch: int, largest_reply: int) -> dict[str, Any]:
    largest = max(len(request), largest_reply, batch * 28)
    if args.connections * (args.in_flight * len(request) + 2 * largest) > 8 * FRAME_LIMIT:
        raise OSError("the connections' buffers would need more than 8 GiB")
    warm_up = args.warm_up
    if warm_up is None:
        # What is counted or drained has no time to warm up in.
        warm_up = 0.0 if args.count or mode == "receive" else min(1.0, args.seconds / 5)
    rate = getattr(args, "rate", 0.0)
    watch = None
    if not args.json and sys.stderr.isatty():
        watch = bench_show.Progress(sys.stderr, 0.0 if args.count else args.seconds + warm_up)
    figures = _load.run(sockets, request, mode=mode, in_flight=args.in_flight, batch=batch,
                        largest_reply=largest_reply, limit=args.count, warm_up=warm_up,
                        seconds=86400.0 if args.count else args.seconds,
                        polling=bool(getattr(args, "wait_ms", 0)),
                        cmq=bench_cmq.named(args.queue) if args.cmq else None,
                        http=bool(getattr(args, "http", "")), rate=rate / batch, watch=watch,
                        histogram=True)
    if watch is not None:
        watch.close()
    histogram = figures.pop("histogram")
    total = figures["seconds"] + (warm_up if figures["seconds"] else 0.0)
    figures["generator_cpu"] = figures.pop("generator_cpu_seconds") / total if total else 0.0
    load = {name: getattr(args, name) for name in ("connections", "in_flight", "size", "batch")}
    if rate:
        load["due_rate"] = rate
    return {"work": args.work, **load, "durability": getattr(args, "durability", ""),
            **{name: round(value, 3) for name, value in figures.items()}, "histogram": histogram}


def _address(args: argparse.Namespace) -> str:
    return str(args.cmq or getattr(args, "http", "") or args.tcp)


def _connect_all(stack: ExitStack, args: argparse.Namespace) -> list[socket.socket]:
    host, _, port = _address(args).rpartition(":")
    http = bool(getattr(args, "http", ""))
    sockets = []
    for _ in range(args.connections):
        connection = socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S)
        stack.enter_context(connection)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if args.cmq:
            bench_cmq.greet(connection)
        elif not http:
            _ask(connection, HELLO, b"PNST" + struct.pack("<HHQ", 1, 0, 0))
        sockets.append(connection)
    return sockets


def _open_queue(connection: socket.socket, name: str) -> int:
    payload = _ask(connection, OPEN, struct.pack("<I", 1) + name.encode())
    return int(struct.unpack_from("<I", payload)[0])


def _open_group(connection: socket.socket, queue: int, name: str) -> int:
    payload = _ask(connection, GROUP, struct.pack("<II", queue, 0) + name.encode())
    return int(struct.unpack_from("<I", payload)[0])


def _fill(connection: socket.socket, queue: int, args: argparse.Namespace) -> None:
    batch = max(1, min(1000, (1 << 20) // max(args.size, 1)))
    request = send_frame(queue, args.size, batch, DURABILITY["kernel"])
    filled = _load.run([connection], request, mode="send", in_flight=4, batch=batch,
                       largest_reply=4096, seconds=86400.0, warm_up=0.0,
                       limit=-(-args.fill // batch) * batch)
    if filled["errors"]:
        raise OSError(f"the queue could not be filled: status {filled['status']:.0f}")


def _fits(args: argparse.Namespace) -> None:
    if args.batch > bench_cmq.LARGEST_BATCH:
        raise OSError(f"a request of CMQ has up to {bench_cmq.LARGEST_BATCH} messages")


def _fill_cmq(connection: socket.socket, args: argparse.Namespace) -> None:
    batch = bench_cmq.LARGEST_BATCH
    filled = _load.run([connection], bench_cmq.send_frame(args.queue, args.size, batch),
                       mode="send", in_flight=64, batch=batch, largest_reply=4096,
                       seconds=86400.0, warm_up=0.0, limit=-(-args.fill // batch) * batch,
                       cmq=bench_cmq.named(args.queue))
    if filled["errors"]:
        raise OSError(f"the queue could not be filled: status {filled['status']:.0f}")


def _ask(connection: socket.socket, verb: int, payload: bytes) -> bytes:
    connection.sendall(frame(verb, payload))
    size, _, _, status, _, _ = HEAD.unpack(_read_exactly(connection, HEAD.size))
    answer = _read_exactly(connection, size - 12)
    if status:
        text = answer[4:].decode(errors="replace")
        raise OSError(f"verb {verb} was answered with status {status}: {text}")
    return answer


def _read_exactly(connection: socket.socket, size: int) -> bytes:
    taken = bytearray()
    while len(taken) < size:
        part = connection.recv(size - len(taken))
        if not part:
            raise ConnectionError("the connection was closed")
        taken += part
    return bytes(taken)


def _print_table(figures: dict[str, Any], histogram: list[tuple[float, int]]) -> None:
    width = max(map(len, COLUMNS.values()))
    for name, title in COLUMNS.items():
        value = figures[name]
        print(f"{title:<{width}}  {value:>14,.2f}" if name in ("seconds", "generator_cpu") else
              f"{title:<{width}}  {value:>14,.0f}")
    if histogram:
        what = "from when it was due" if "due_rate" in figures else "of a request"
        print(f"\nlatency {what}")
        print(*bench_show.percentile_lines(histogram), sep="\n")
        print(*bench_show.latency_plot(histogram), sep="\n")


def _rate(text: str) -> float:
    value = float(text)
    if not 0.01 <= value <= 1e9:
        raise argparse.ArgumentTypeError("must be from 0.01 to 1e9")
    return value


def _positive(text: str) -> int:
    value = _count(text)
    if value == 0:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _count(text: str) -> int:
    value = int(float(text)) if "e" in text else int(text)
    if not 0 <= value < 1 << 32:
        raise argparse.ArgumentTypeError("must be from 0 to 2^32 - 1")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError("must be from 0 to 86400")
    return value


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="penstock bench")
    add_arguments(command)
    sys.exit(main(command.parse_args()))
