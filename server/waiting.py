"""The commands about what waits: `penstock pending …` and `penstock schedule …`."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from datetime import datetime
from typing import Any

from penstock.server.commands import EXIT_OK, connected
from penstock.server.output import show

Add = Callable[..., ArgumentParser]
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add(commands: Any, remote: ArgumentParser, add_: Add) -> None:
    """The parsers of these commands."""
    about = "List, show, cancel and move messages that wait; commit and roll back halves."
    works = commands.add_parser("pending", help=about, description=about).add_subparsers(
        metavar="WORK", required=True)
    listed = add_(works, "list", pending_list, remote)
    listed.add_argument("queue", nargs="?", default="")
    listed.add_argument("--topic", default="", help="what waits for a topic")
    listed.add_argument("--state", choices=("delayed", "half", "committed"))
    listed.add_argument("--since", type=moment, metavar="TIME", help="that fall due from then on")
    listed.add_argument("--until", type=moment, metavar="TIME", help="that fall due before then")
    listed.add_argument("-n", "--count", type=int, default=100, metavar="N", help="(%(default)s)")
    for name, run in (
        ("show", pending_show), ("cancel", pending_cancel), ("move", pending_move),
        ("commit", pending_commit), ("rollback", pending_rollback),
    ):  # fmt: skip
        work = add_(works, name, run, remote)
        work.add_argument("id", help="as list shows it")
        if name == "move":
            add_times(work, required=True)
    _add_schedules(commands, remote, add_)


def add_times(command: ArgumentParser, *, required: bool = False) -> None:
    """--delay and --at, of which one may be given."""
    times = command.add_mutually_exclusive_group(required=required)
    times.add_argument(
        "--delay", type=span, metavar="SPAN", help="how long it waits: 1.5, 90s, 15m, 2h, 7d")
    times.add_argument(
        "--at", type=moment, metavar="TIME",
        help="when it comes: 2026-01-31T12:00, with +01:00 or Z for another zone than here")


def add_half(command: ArgumentParser) -> None:
    """--half and whom it concerns."""
    command.add_argument(
        "--half", action="store_true",
        help="nobody sees it until `penstock pending commit ID`; one message")
    command.add_argument(
        "--producer-group", default="", metavar="NAME", help="who is asked about the half")


def span(text: str) -> float:
    """Seconds of 1.5, 90s, 15m, 2h or 7d."""
    unit = UNITS.get(text[-1:], 0.0)
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ArgumentTypeError(f"{text!r} is no span of time, as 1.5, 90s, 15m, 2h or 7d")
    return value


def moment(text: str) -> datetime:
    """A time of ISO 8601, of this machine's zone unless it names one."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is no time, as 2026-01-31T12:00") from None


def micros(at: datetime | None) -> int | None:
    return None if at is None else round(at.timestamp() * 1_000_000)


def pending_list(options: Namespace) -> int:
    """List what waits, by when it falls due."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    with connected(options) as client:
        while len(rows) < options.count:
            page = client.pending(
                options.queue, topic=options.topic, state=options.state,
                since_us=micros(options.since), until_us=micros(options.until),
                limit=min(options.count - len(rows), 1000), cursor=cursor)
            rows += page["messages"]
            cursor = page["next"]
            if cursor is None:
                break
    show((shown(row) for row in rows), options.output)
    return EXIT_OK


def pending_show(options: Namespace) -> int:
    """Show a message that waits, body and all."""
    with connected(options) as client:
        show([shown(client.pending_message(options.id))], options.output)
    return EXIT_OK


def pending_cancel(options: Namespace) -> int:
    """Cancel a delayed message: it never comes."""
    with connected(options) as client:
        show([client.cancel(options.id)], options.output)
    return EXIT_OK


def pending_move(options: Namespace) -> int:
    """Let a delayed message come at another time."""
    with connected(options) as client:
        show([shown(client.move(options.id, delay=options.delay, at=options.at))], options.output)
    return EXIT_OK


def pending_commit(options: Namespace) -> int:
    """Commit a half: it gets into its queue."""
    with connected(options) as client:
        receipt = client.half(options.id).commit()
        row = {"id": options.id, "duplicate": receipt.duplicate}
        row |= {"waits": True} if receipt.pending else {"offset": receipt.offset}
        show([row], options.output)
    return EXIT_OK


def pending_rollback(options: Namespace) -> int:
    """Roll a half back: it never comes."""
    with connected(options) as client:
        new = client.half(options.id).rollback()
        show([{"id": options.id, "rolled_back": new}], options.output)
    return EXIT_OK


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its times as people read them."""
    row = dict(row)
    for name in ("due_us", "stored_us"):
        if name in row:
            at = datetime.fromtimestamp(row.pop(name) / 1e6).astimezone()
            row[name.removesuffix("_us")] = at.isoformat(timespec="milliseconds")
    return row


def _add_schedules(commands: Any, remote: ArgumentParser, add_: Add) -> None:
    about = "Messages that are sent whenever a cron expression says so."
    works = commands.add_parser("schedule", help=about, description=about).add_subparsers(
        metavar="WORK", required=True)
    add_(works, "list", schedule_list, remote)
    for name, run in (
        ("show", schedule_show), ("set", schedule_set), ("pause", schedule_pause),
        ("resume", schedule_resume), ("delete", schedule_delete),
    ):  # fmt: skip
        work = add_(works, name, run, remote)
        work.add_argument("name")
        if name == "set":
            work.add_argument("cron", help="five fields, as '30 2 * * MON-FRI'")
            work.add_argument("--queue", default="", help="where it is sent; or --topic")
            work.add_argument("--topic", default="")
            work.add_argument("--body", default="", help="{{time}}, {{unix}} and {{name}} are told")
            work.add_argument("--zone", default="UTC", help="as Europe/Berlin (%(default)s)")
            work.add_argument(
                "--missed", choices=("skip", "one", "all"), default="one",
                help="what of the times when no server ran is sent (%(default)s)")


def schedule_list(options: Namespace) -> int:
    """List the schedules and when they fire next."""
    with connected(options) as client:
        show((planned(row) for row in client.schedules()["schedules"]), options.output)
    return EXIT_OK


def schedule_show(options: Namespace) -> int:
    """Show a schedule and its next firings."""
    with connected(options) as client:
        row = client.schedule(options.name)
        show([row if options.output != "table" else planned(row)], options.output)
    return EXIT_OK


def schedule_set(options: Namespace) -> int:
    """Make a schedule, or change one."""
    with connected(options) as client:
        row = client.set_schedule(
            options.name, options.cron, queue=options.queue, topic=options.topic,
            body=options.body, zone=options.zone, missed=options.missed)
        show([planned(row)], options.output)
    return EXIT_OK


def schedule_pause(options: Namespace) -> int:
    """Let a schedule fire no more until it is resumed."""
    with connected(options) as client:
        show([planned(client.pause_schedule(options.name))], options.output)
    return EXIT_OK


def schedule_resume(options: Namespace) -> int:
    """Let a paused schedule go on from now."""
    with connected(options) as client:
        show([planned(client.resume_schedule(options.name))], options.output)
    return EXIT_OK


def schedule_delete(options: Namespace) -> int:
    """Remove a schedule."""
    with connected(options) as client:
        client.remove_schedule(options.name)
        show([{"name": options.name, "deleted": True}], options.output)
    return EXIT_OK


def planned(row: dict[str, Any]) -> dict[str, Any]:
    """What a table says of a schedule."""
    target = row["queue"] or f"topic {row['topic']}"
    told = {"name": row["name"], "cron": row["cron"], "zone": row["zone"], "target": target,
            "next": "paused" if row["paused"] else (row["next"] or ["never"])[0],
            "last": row["last"] or ""}
    return told | ({"error": row["error"]} if "error" in row else {})
