"""The commands that look: find, explain, trace, lag; and rewind, which can be tried first."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import datetime
from typing import Any

from penstock import Client
from penstock.server.commands import EXIT_OK, connected, place_of
from penstock.server.config import UsageError
from penstock.server.output import Progress, show

PAGE = 1000
Add = Callable[..., ArgumentParser]


def add(commands: Any, remote: ArgumentParser, add_: Add, places: str) -> None:
    """The parsers of these commands."""
    for name, run in (("explain", explain), ("trace", trace)):
        command = add_(commands, name, run, remote)
        command.add_argument("message", help="a message's id, or the name of its queue")
        command.add_argument("offset", nargs="?", type=int, help="the offset in the queue named")
        if run is explain:
            command.add_argument("--group", default="", help="a group of the queue")
    _add_find(add_(commands, "find", find, remote), places)
    command = add_(commands, "lag", lag, remote)
    command.add_argument("queue", nargs="?", default="", help="(default: all)")
    command.add_argument("--group", help="a group of the queue (default: all)")
    command.add_argument("--watch", action="store_true", help="go on until Ctrl-C")
    command.add_argument("--every", type=float, default=2.0, metavar="SECONDS")
    command = add_(commands, "rewind", rewind, remote)
    command.add_argument("queue")
    where = command.add_mutually_exclusive_group()
    where.add_argument("--to", metavar="PLACE", help=f"{places} (default: earliest)")
    where.add_argument("--relative", metavar="BACK", help="an age (90s, 15m, 2h, 7d) or a number "
                       "of messages back from where the group is; =+5 goes on")
    where.add_argument("--undo", action="store_true", help="take the last rewind back")
    command.add_argument("--group", default="", help="a group of the queue")
    command.add_argument("--dry-run", action="store_true", help="only say what would come again")
    command.add_argument("--shadow", metavar="NAME", help="a new group there; this one stays")


def _add_find(command: ArgumentParser, places: str) -> None:
    command.add_argument("queue")
    command.add_argument("--id", help="the message's id, as the server gave it")
    for name in ("message-id", "tag", "key", "routing-key", "correlation"):
        command.add_argument(f"--{name}", help=f"the message's {name.replace('-', ' ')}")
    command.add_argument("--property", action="append", metavar="NAME=VALUE", default=[])
    command.add_argument("--text", help="what the body contains")
    command.add_argument("--since", metavar="PLACE", help=places)
    command.add_argument("--until", metavar="PLACE", help="the same")
    command.add_argument("--cursor", type=int, help="where an earlier search ended")
    command.add_argument("-n", "--count", type=int, default=100, help="how many (%(default)s)")


def message_of(options: Namespace) -> dict[str, Any]:
    """The fields that name a message: its id, or queue and offset."""
    if options.offset is None:
        return {"id": options.message}
    return {"queue": options.message, "offset": options.offset}


def explain(options: Namespace) -> int:
    """Say why a message is not being delivered."""
    with connected(options) as client:
        answer = client.explain(**message_of(options), group=options.group)
    if options.output == "table":
        sys.stdout.write(f"{answer['text']}\n")
    else:
        show([answer], options.output)
    return EXIT_OK


def trace(options: Namespace) -> int:
    """Show what the log says of a message: sent, visible, confirmed, copied, purged."""
    events: list[dict[str, Any]] = []
    answer: dict[str, Any] = {}
    cursor: int | None = 0
    with connected(options) as client, Progress("trace", None) as progress:
        while cursor is not None:
            answer = client.trace(**message_of(options), cursor=cursor)
            events += answer["events"]
            progress.total = answer["of"]
            progress.advance(answer["searched"] - progress.count)
            cursor = answer["next"]
    for one in events:
        one["time"] = moment(one.pop("time_us"))
    show(({"time": one["time"], **one} for one in events), options.output)
    note(f"searched {answer['searched']:,} bytes of the log", answer["skipped"], "segments")
    if options.output == "table":
        for group, state in answer["now"].items():
            sys.stderr.write(f"now, for group {group!r}: {state}\n")
    return EXIT_OK


def find(options: Namespace) -> int:
    """Find messages by id, tag, key, property, text or time."""
    wanted = criteria(options)
    cursor, left, damaged = options.cursor, options.count, 0
    answer: dict[str, Any] = {"searched": 0, "of": 0, "next": cursor}
    rows: list[dict[str, Any]] = []
    with connected(options) as client, Progress("find", None) as progress:
        try:
            while left > 0:
                answer = client.find(
                    options.queue, **wanted, cursor=cursor, limit=min(left, PAGE)
                )
                rows += answer["messages"]
                left -= len(answer["messages"])
                damaged += answer["damaged"]
                progress.total = answer["of"]
                progress.advance(answer["searched"] - progress.count)
                cursor = answer["next"]
                if cursor is None:
                    break
        except KeyboardInterrupt:
            pass  # What was found is shown, and where to go on.
    for row in rows:
        row["stored"] = moment(row.pop("stored_us"))
    show(rows, options.output)
    more = f", more: --cursor {cursor}" if cursor is not None else ""
    note(f"searched {answer['searched']:,} of {answer['of']:,} messages{more}", damaged, "messages")
    return EXIT_OK


def criteria(options: Namespace) -> dict[str, Any]:
    """What find is asked for. Raises UsageError."""
    wanted: dict[str, Any] = {
        name: value for name in (
            "id", "message_id", "tag", "key", "routing_key", "correlation", "text"
        )
        if (value := getattr(options, name))
    }
    properties = [one.partition("=") for one in options.property]
    if not all(equals for _, equals, _ in properties):
        raise UsageError("a property is NAME=VALUE")
    if properties:
        wanted["properties"] = {name: value for name, _, value in properties}
    for option, offset, moment_ in (
        ("since", "from_offset", "since_us"), ("until", "to_offset", "until_us")
    ):
        place = place_of(getattr(options, option) or "earliest")
        if "offset" in place:
            wanted[offset] = place["offset"]
        elif "time" in place:
            wanted[moment_] = int(place["time"] * 1e6)
    return wanted


def note(text: str, lost: int, what: str) -> None:
    """Say on standard error how far it was looked, and what could not be looked at."""
    damage = f"; {lost:,} damaged or missing {what} were left out" if lost else ""
    sys.stderr.write(f"penstock: {text}{damage}\n")


def moment(time_us: int | None) -> str:
    """A time as people read it."""
    if time_us is None:
        return ""
    return datetime.fromtimestamp(time_us / 1e6).astimezone().isoformat(timespec="milliseconds")


def lag(options: Namespace) -> int:
    """Show how far groups are behind, the age of the oldest message, and the time to drain."""
    live = options.watch and sys.stdout.isatty() and options.output == "table"
    with connected(options) as client:
        rows_of(client, options)
        time.sleep(min(options.every, 0.3))  # Rates come from two looks.
        while True:
            rows = rows_of(client, options)
            if live:
                sys.stdout.write("\x1b[H\x1b[J")
            show(rows, options.output)
            sys.stdout.flush()
            if not options.watch:
                return EXIT_OK
            time.sleep(options.every)


def rows_of(client: Client, options: Namespace) -> list[dict[str, Any]]:
    """Every group that was asked about, those most behind first."""
    rows: list[dict[str, Any]] = []
    cursor = 0
    while True:
        answer = client.lag(options.queue, options.group, cursor=cursor)
        rows += answer["groups"]
        cursor = answer["next"]
        if not cursor:
            return sorted(rows, key=lambda row: -int(row["lag"]))


def rewind(options: Namespace) -> int:
    """Put a group back, or forward, to a place; or only say what would come again."""
    fields: dict[str, Any] = {"dry_run": options.dry_run, "shadow": options.shadow}
    if options.undo:
        fields["undo"] = True
    elif options.relative:
        signed = options.relative[0] in "+-"
        fields["relative"] = options.relative if signed else f"-{options.relative}"
    else:
        place = place_of(options.to or "earliest")
        fields |= {"to": place.get("place"), "offset": place.get("offset")}
        if "time" in place:
            fields["time_us"] = int(place["time"] * 1e6)
    with connected(options) as client:
        show([client.rewind(options.queue, group=options.group, **fields)], options.output)
    return EXIT_OK
