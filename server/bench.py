"""`penstock bench`: load a server over any of its protocols, or the generator itself.

Closed loop: each connection keeps so many requests in flight. Open loop (--rate): requests are due
by the clock, and what a stall delays counts from when it was due.

The work is done by the compiled generator in `_load`; here its connections are opened, its
first frame is built, and its figures are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from penstock.server import _load, bench_cmq, bench_cmq_http, bench_http, bench_show
from penstock.server.bench_options import LEASE_MS, add_arguments
from penstock.server.config import UsageError, parse_address

__all__ = ["add_arguments", "main"]

HEAD = struct.Struct("<IBBHII")
HELLO, OPEN, SEND, SEND_BATCH, RECEIVE, GROUP = 1, 2, 3, 4, 5, 11
DURABILITY = {"kernel": 0, "disk": 1}
MESSAGE_HEAD = 48
CONNECT_TIMEOUT_S = 10.0
FRAME_LIMIT = 1 << 30
# For standard streams, epoll, libraries and both ends of the sink.
SPARE_DESCRIPTORS = 64
EXIT_OK, EXIT_ERRORS, EXIT_UNREACHABLE = 0, 1, 2

COLUMNS = {
    "rate": "messages/s",
    "messages": "messages",
    "requests": "requests",
    "seconds": "seconds",
    "errors": "errors",
    "generator_cpu": "cores used by the generator",
}


def main(args: argparse.Namespace) -> int:
    """Run the chosen work, print its figures, and return 0, 1 after errors, 2 if unreachable.

    Raises UsageError for options that do not go together.
    """
    _settle(args)
    try:
        with ExitStack() as stack:
            # A file that cannot be written is told before the load, not after it.
            kept = stack.enter_context(open(args.hdr, "w")) if args.hdr else None
            if args.work == "self":
                args.address = stack.enter_context(sink(args.size))
            figures = receive(args) if args.receive else send(args)
            histogram = figures.pop("histogram")
            if kept is not None:
                print(*bench_show.hdr_lines(histogram), sep="\n", file=kept)
    except RefusedError as error:
        print(f"penstock bench: {args.address}: {error}", file=sys.stderr)
        return EXIT_ERRORS
    except OSError as error:
        if error.filename is not None:
            raise
        print(f"penstock bench: {args.address}: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    if args.json:
        print(json.dumps(figures))
    else:
        _print_table(figures, histogram)
    return EXIT_ERRORS if figures["errors"] else EXIT_OK


class RefusedError(Exception):
    """The server answers, and does not do what the load needs."""


def _settle(args: argparse.Namespace) -> None:
    """What follows from the words: the door and its address. Raises UsageError."""
    doors = ("tcp", "http", "cmq_tcp", "cmq_http")
    args.door = next((door for door in doors if getattr(args, door, None)), "tcp")
    args.address = getattr(args, args.door, None) or ""
    if args.work == "self":
        args.queue, args.group, args.fill, args.wait_ms = "bench", "", 0, 0
    else:
        args.receive = args.work == "receive"
    if args.door.startswith("cmq"):
        if args.batch > bench_cmq.LARGEST_BATCH:
            raise UsageError(f"a request of CMQ has up to {bench_cmq.LARGEST_BATCH} messages")
        if getattr(args, "group", ""):
            raise UsageError("CMQ's queues have no groups")
        if getattr(args, "durability", "disk") != "disk":
            raise UsageError("a send of CMQ cannot say its durability: the server does")
        if getattr(args, "lease_ms", LEASE_MS) != LEASE_MS:
            raise UsageError("a receive of CMQ cannot say its lease: the queue does")
    if args.door == "cmq_http" and args.receive and bench_cmq_http.key():
        raise UsageError("each deletion would have to be signed: to receive over --cmq-http, load "
                         "a server that has no keys, without PENSTOCK_ACCESS_KEY")
    largest = 2 * max(args.batch * (args.size + 256), 1 << 16)
    if args.connections * args.in_flight * largest > 16 * FRAME_LIMIT:
        raise UsageError("the connections' buffers would need more than 16 GiB")


def send(args: argparse.Namespace) -> dict[str, Any]:
    """Load a server with sends, of `batch` messages each, and return what was measured."""
    with ExitStack() as stack:
        sockets = _connect_all(stack, args)
        request = _send_request(sockets[0], args, args.batch, getattr(args, "durability", "disk"))
        largest = 1 << 16 if "http" in args.door else 4096
        return _run(args, sockets, request, "send", args.batch, largest)


def _send_request(connection: socket.socket, args: argparse.Namespace, batch: int,
                  durability: str) -> bytes:
    """What is sent again and again."""
    body = body_of(args.size)
    if args.door == "http":
        return bench_http.send_request(args.address, args.queue, body, batch, durability)
    if args.door == "cmq_http":
        return bench_cmq_http.send_request(args.address, args.queue, body.decode(), batch)
    if args.door == "cmq_tcp":
        return bench_cmq.send_frame(args.queue, args.size, batch)
    queue = _open_queue(connection, args.queue)
    return send_frame(queue, args.size, batch, DURABILITY[durability])


def receive(args: argparse.Namespace) -> dict[str, Any]:
    """Receive and confirm until the queue is empty or the time is over."""
    with ExitStack() as stack:
        sockets = _connect_all(stack, args)
        if args.fill:
            _fill(sockets[0], args)
        # The bytes asked for are those of whole messages of this size, heads included or not.
        largest = args.batch * (args.size + MESSAGE_HEAD)
        if args.door == "cmq_tcp":
            reply = args.batch * (args.size + 256) + 4096
            request = bench_cmq.pull_frame(args.queue, args.batch, args.wait_ms // 1000)
        elif args.door == "http":
            # A byte of a body is up to six in JSON.
            reply = args.batch * (6 * args.size + 512) + 4096
            request = bench_http.receive_request(args.address, args.queue, args.group, args.batch,
                                                 args.lease_ms, args.wait_ms)
        elif args.door == "cmq_http":
            reply = args.batch * (6 * args.size + 512) + 4096
            request = bench_cmq_http.receive_request(args.address, args.queue, args.batch,
                                                     args.wait_ms // 1000)
        else:
            queue = _open_queue(sockets[0], args.queue)
            group = _open_group(sockets[0], queue, args.group) if args.group else 0
            reply = max(largest, args.batch * MESSAGE_HEAD + (1 << 20)) + 4096
            request = frame(RECEIVE, struct.pack("<6I", queue, group, args.batch,
                                                 max(largest, 1 << 20), args.lease_ms,
                                                 args.wait_ms))
        return _run(args, sockets, request, "receive", args.batch, reply)


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


def body_of(size: int) -> bytes:
    return bytes(33 + index % 90 for index in range(size))


def send_frame(queue: int, size: int, batch: int, durability: int) -> bytes:
    """The request that sends one message, or `batch` of them, of `size` bytes."""
    body = body_of(size)
    if batch == 1:
        return frame(SEND, struct.pack("<IBBHQ", queue, durability, 0, 0, 0) + body)
    head = struct.pack("<IBBHQII", queue, durability, 0, 0, 0, batch, 0)
    return frame(SEND_BATCH, head + struct.pack("<I", size) * batch + body * batch)


def _run(args: argparse.Namespace, sockets: list[socket.socket], request: bytes, mode: Any,
         batch: int, largest_reply: int) -> dict[str, Any]:
    warm_up = args.warm_up
    if warm_up is None:
        # What is counted or drained has no time to warm up in.
        warm_up = 0.0 if args.count or mode == "receive" else min(1.0, args.seconds / 5)
    watch = None
    if not args.json and sys.stderr.isatty():
        watch = bench_show.Progress(sys.stderr, 0.0 if args.count else args.seconds + warm_up)
    figures = _load.run(sockets, request, mode=mode, in_flight=args.in_flight, batch=batch,
                        largest_reply=largest_reply, limit=args.count, warm_up=warm_up,
                        seconds=86400.0 if args.count else args.seconds,
                        polling=bool(getattr(args, "wait_ms", 0)),
                        rate=args.rate / batch, watch=watch, histogram=True,
                        **_protocol(args, mode, batch))
    if watch is not None:
        watch.close()
    histogram = figures.pop("histogram")
    total = figures["seconds"] + (warm_up if figures["seconds"] else 0.0)
    figures["generator_cpu"] = figures.pop("generator_cpu_seconds") / total if total else 0.0
    load = {name: getattr(args, name) for name in ("connections", "in_flight", "size", "batch")}
    if args.rate:
        load["due_rate"] = args.rate
    return {"work": args.work, **load, "durability": getattr(args, "durability", ""),
            **{name: round(value, 3) for name, value in figures.items()}, "histogram": histogram}


def _protocol(args: argparse.Namespace, mode: str, batch: int) -> dict[str, Any]:
    """What the generator must know of the door."""
    if args.door == "cmq_tcp":
        return {"cmq": bench_cmq.named(args.queue)}
    told: dict[str, Any] = {"http": "http" in args.door, "cmq_http": args.door == "cmq_http"}
    if mode == "receive" and args.door == "http":
        told["confirming"] = bench_http.confirming(args.address, args.queue, args.group, batch)
    elif mode == "receive" and args.door == "cmq_http":
        told["confirming"] = bench_cmq_http.confirming(args.address, args.queue, batch)
    return told


def _connect_all(stack: ExitStack, args: argparse.Namespace) -> list[socket.socket]:
    """The connections, greeted; over HTTP the queue is made as well, by a request of its own."""
    where = parse_address(args.address)
    # The sink has the other ends.
    ends = 2 if args.work == "self" else 1
    _allow_descriptors(args.connections * ends + SPARE_DESCRIPTORS)
    sockets = []
    try:
        if args.door == "http":
            bench_http.open_queue(args.address, args.queue)
        elif args.door == "cmq_http":
            bench_cmq_http.open_queue(args.address, args.queue)
        for _ in range(args.connections):
            connection = socket.create_connection(where, CONNECT_TIMEOUT_S)
            stack.enter_context(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if args.door == "cmq_tcp":
                bench_cmq.greet(connection)
            elif args.door == "tcp":
                _ask(connection, HELLO, b"PNST" + struct.pack("<HHQ", 1, 0, 0))
            sockets.append(connection)
    except ValueError as refused:
        raise RefusedError(str(refused)) from None
    return sockets


def _allow_descriptors(wanted: int) -> None:
    """As many as the connections need, if the system lets us. Raises UsageError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and wanted > hard:
        raise UsageError(f"this system lets a process have {hard} descriptors (ulimit -Hn), and so "
                         f"many connections need {wanted}")
    if soft != resource.RLIM_INFINITY and wanted > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _open_queue(connection: socket.socket, name: str) -> int:
    payload = _ask(connection, OPEN, struct.pack("<I", 1) + name.encode())
    return int(struct.unpack_from("<I", payload)[0])


def _open_group(connection: socket.socket, queue: int, name: str) -> int:
    payload = _ask(connection, GROUP, struct.pack("<II", queue, 0) + name.encode())
    return int(struct.unpack_from("<I", payload)[0])


def _fill(connection: socket.socket, args: argparse.Namespace) -> None:
    """Send what is to be received, in large batches."""
    batch = max(1, min(1000, (1 << 20) // max(args.size, 1)))
    if args.door.startswith("cmq"):
        batch = bench_cmq.LARGEST_BATCH
    rest = args.fill % batch
    for size, count in ((batch, args.fill - rest), (rest, rest)):
        if not count:
            continue
        request = _send_request(connection, args, size, "kernel")
        filled = _load.run([connection], request, mode="send", in_flight=4 if size > 16 else 64,
                           batch=size, largest_reply=1 << 16, seconds=86400.0, warm_up=0.0,
                           limit=count, **_protocol(args, "send", size))
        if filled["errors"]:
            raise RefusedError(f"the queue could not be filled: status {filled['status']:.0f}")


def _ask(connection: socket.socket, verb: int, payload: bytes) -> bytes:
    connection.sendall(frame(verb, payload))
    size, _, _, status, _, _ = HEAD.unpack(_read_exactly(connection, HEAD.size))
    answer = _read_exactly(connection, size - 12)
    if status:
        text = answer[4:].decode(errors="replace")
        raise RefusedError(f"verb {verb} was answered with status {status}: {text}")
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
    if figures["status"]:
        print(f"{'status of the first error':<{width}}  {figures['status']:>14,.0f}")
    if histogram:
        what = "from when it was due" if "due_rate" in figures else "of a request"
        print(f"\nlatency {what}")
        print(*bench_show.percentile_lines(histogram), sep="\n")
        print(*bench_show.latency_plot(histogram), sep="\n")


if __name__ == "__main__":
    command = argparse.ArgumentParser(prog="penstock bench")
    add_arguments(command)
    try:
        sys.exit(main(command.parse_args()))
    except UsageError as wrong:
        command.error(str(wrong))
