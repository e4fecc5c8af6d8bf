"""What the command line asks of a server: one function a command, each returns the exit code."""

from __future__ import annotations

import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import datetime
from io import BufferedIOBase
from itertools import chain, islice
from typing import Any, BinaryIO, cast

from penstock import Client, InvalidError, Verdict, model
from penstock.attributes import KINDS, Carried
from penstock.later import id_text
from penstock.server.config import UsageError
from penstock.server.output import Progress, body_fields, show

CONNECT_SECONDS = 0.5
SEND_CHUNK = 1000
READ_BYTES = 1 << 20
TAIL_CHUNK = 1000
OFFSET_LIMIT = (1 << 63) - 1
TAIL_WAIT_SECONDS = 5.0
EXIT_OK = 0
EXIT_FAILED = 1


def connected(options: Namespace) -> Client:
    """A client of the server that the options name. Raises UsageError for what is no address."""
    try:
        model.parse_address(options.server)
    except InvalidError as error:
        raise UsageError(str(error)) from None
    return Client(options.server, connect_for=CONNECT_SECONDS, reconnect_for=10.0)


def send(options: Namespace) -> int:
    """Send the bodies given, or every line of a file, or of standard input."""
    carried = _carried(options)
    when: dict[str, Any] = {"delay": options.delay, "at": options.at}
    with connected(options) as client:
        queue = client.queue(options.queue)
        if options.half:
            return sent_half(
                options, queue, _single(options), durability=options.durability, **carried)
        sent = 0
        first = last = -1
        reached = options.durability
        with Progress("send", None) as progress:
            for bodies in _batches(options):
                if len(bodies) == 1 and not sent:
                    receipt = queue.send(bodies[0], options.durability, **when, **carried)
                else:
                    each = [carried] * len(bodies) if carried else None
                    receipt = queue.send_many(bodies, options.durability, each, **when)
                first = receipt.offset if not sent else first
                last = receipt.offset + len(bodies) - 1
                reached = receipt.durability
                sent += len(bodies)
                progress.advance(len(bodies))
        row = {"queue": options.queue, "sent": sent, "durability": reached}
        if sent and receipt.pending:
            row |= {"waits": True, "id": id_text(receipt)} if sent == 1 else {"waits": True}
        elif sent:
            row |= {"first_offset": first, "last_offset": last}
        show([row], options.output)
    return EXIT_OK


def sent_half(options: Namespace, target: Any, body: bytes, **how: Any) -> int:
    """Send a half to a queue or a topic, and tell its id."""
    half = target.transaction(
        body, producer_group=options.producer_group, delay=options.delay, at=options.at, **how
    ).prepare()
    show([{"id": id_text(half.id), "waits": True, "half": True}], options.output)
    return EXIT_OK


def _carried(options: Namespace) -> Carried:
    """What the options say that each message carries."""
    given = {name: getattr(options, name) for name in KINDS if getattr(options, name)}
    if options.property:
        given["properties"] = dict(options.property)
    return cast(Carried, given)


def _single(options: Namespace) -> bytes:
    bodies = list(islice(chain.from_iterable(_batches(options)), 2))
    if len(bodies) != 1:
        raise UsageError("a half is sent by itself: --half takes one message")
    return bodies[0]


def _batches(options: Namespace) -> Iterator[list[bytes]]:
    """What the options say is to be sent, in parts that fit a frame."""
    if options.body:
        yield from model.chunks((os.fsencode(body) for body in options.body), SEND_CHUNK)
    elif options.file in (None, "-"):
        yield from _read(sys.stdin.buffer, options.whole)
    else:
        with open(options.file, "rb") as source:
            yield from _read(source, options.whole)


def _read(source: BinaryIO, whole: bool) -> Iterator[list[bytes]]:
    """The lines of a stream as they come: a pipe's are not held back until there are many."""
    if whole:
        yield [source.read()]
        return
    rest = b""
    while part := cast(BufferedIOBase, source).read1(READ_BYTES):
        *lines, rest = (rest + part).split(b"\n")
        yield from model.chunks(lines, SEND_CHUNK)
    if rest:
        yield [rest]


def receive(options: Namespace) -> int:
    """Receive messages, show them, then confirm them: one that was not shown comes again."""
    stale = 0
    with connected(options) as client:
        queue = client.queue(options.queue, group=options.group, create=False)
        got = 0
        while got < options.count:
            messages = queue.receive(
                min(options.count - got, SEND_CHUNK), wait=options.wait, lease=options.lease
            )
            if not messages:
                break
            got += len(messages)
            _show_messages(messages, options)
            if not options.keep:
                verdicts = (
                    client.release(messages, options.delay, options.reason)
                    if options.release else client.confirm(messages)
                )
                stale += len(verdicts) - verdicts.count(Verdict.DONE)
    if stale:
        sys.stderr.write(f"penstock: the lease of {stale} messages was lost: they come again\n")
    return EXIT_FAILED if stale else EXIT_OK


def peek(options: Namespace) -> int:
    """Show messages from a place on, without taking them."""
    with connected(options) as client:
        queue = client.queue(options.queue, create=False)
        place = place_of(options.start)
        messages = queue.peek(place.pop("place", None), **place, max_messages=options.count)
        _show_messages(messages, options)
    return EXIT_OK


def tail(options: Namespace) -> int:
    """Show messages as they are stored, until Ctrl-C."""
    with connected(options) as client:
        queue = client.queue(options.queue, create=False)
        place = place_of(options.start)
        if place.pop("place", "") == "latest":
            # A moment stays where it is; latest would skip what comes between two requests.
            place = {"time": time.time()}
        left = options.count
        while left is None or left > 0:
            room = TAIL_CHUNK if left is None else min(left, TAIL_CHUNK)
            messages = queue.peek(**place, max_messages=room, wait=TAIL_WAIT_SECONDS)
            if messages:
                _show_messages(messages, options)
                # From here on by offset: latest is another place after every message.
                place = {"offset": messages[-1].offset + 1}
                left = None if left is None else left - len(messages)
    return EXIT_OK


def _show_messages(messages: list[Any], options: Namespace) -> None:
    if options.raw:
        out = sys.stdout.buffer
        out.writelines(message.body + b"\n" for message in messages)
        out.flush()
    else:
        show((_message_row(message) for message in messages), options.output)


def _message_row(message: Any) -> dict[str, Any]:
    row = {"offset": message.offset, "stored": message.stored_us, "attempts": message.attempts}
    stored = datetime.fromtimestamp(message.stored_us / 1e6).astimezone()
    row["stored"] = stored.isoformat(timespec="milliseconds")
    carried = {name: value for name, value in message.attributes._asdict().items() if value}
    if message.origin is not None:
        row["origin"] = message.origin.queue or str(message.origin.queue_id)
        row["origin_offset"] = message.origin.offset
        row["origin_attempts"] = message.origin.attempts
        row |= {"reason": message.origin.reason, "text": message.origin.text}
    return row | carried | body_fields(message.body)


def place_of(text: str) -> dict[str, Any]:
    """The keywords of seek and peek for earliest, latest, an offset, or a time.

    A time is ISO 8601, or an age as 90s, 15m, 2h or 7d. Raises UsageError.
    """
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    if text in ("earliest", "latest"):
        return {"place": text}
    if text.isdecimal() and int(text) <= OFFSET_LIMIT:
        return {"offset": int(text)}
    try:
        if text[:-1].isdecimal() and text[-1] in units:
            return {"time": time.time() - int(text[:-1]) * units[text[-1]]}
        return {"time": datetime.fromisoformat(text).timestamp()}
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no place: earliest, latest, an offset or a time") from None


def queue_create(options: Namespace) -> int:
    """Create queues; those that are there stay as they are."""
    with connected(options) as client:
        for name in options.queues:
            client.queue(name)
        show([{"queue": name, "state": "ready"} for name in options.queues], options.output)
    return EXIT_OK


def queue_list(options: Namespace) -> int:
    """List the queues."""
    with connected(options) as client:
        show(_rows(client.list(options.prefix)), options.output)
    return EXIT_OK


def queue_show(options: Namespace) -> int:
    """Show what the server knows of a queue."""
    return _each_queue(options, lambda client, name: client.show(name))


def queue_delete(options: Namespace) -> int:
    """Delete queues with all their messages."""
    return _each_queue(options, lambda client, name: client.delete(name))


def queue_purge(options: Namespace) -> int:
    """Drop all messages of queues."""
    return _each_queue(
        options, lambda client, name: client.purge(name, keep_ms=options.keep_ms))


def queue_unpurge(options: Namespace) -> int:
    """Take purges of queues back that are still kept."""
    return _each_queue(options, lambda client, name: client.unpurge(name))


QUEUE_SETTINGS = {
    "retain-ms": "what is older is purged; 0 never",
    "retain-bytes": "the oldest are purged beyond it; 0 never",
    "rewind-ms": "so long is kept even what is confirmed",
    "dedup-ms": "so long a message with the same message id is not stored again; 0 is",
    "dedup-count": "so many ids are known at most",
}


def queue_set(options: Namespace) -> int:
    """Set what a queue keeps and stores once; without options, show it."""
    names = [name.replace("-", "_") for name in QUEUE_SETTINGS] + ["keep"]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    with connected(options) as client:
        show([client.configure(options.queue, **given)], options.output)
    return EXIT_OK


def _each_queue(options: Namespace, ask: Callable[[Client, str], Any]) -> int:
    rows: list[dict[str, Any]] = []
    with connected(options) as client:
        try:
            for name in options.queues:
                answer = ask(client, name)
                rows.append({"queue": name} | (answer if isinstance(answer, dict) else {}))
        finally:
            # What was done before one failed is told.
            if rows:
                show(rows, options.output)
    return EXIT_OK


def _rows(answer: Any) -> list[dict[str, Any]]:
    found = answer.get("queues", answer) if isinstance(answer, dict) else answer
    if isinstance(found, dict):
        return [found]
    return [row if isinstance(row, dict) else {"queue": row} for row in found]
