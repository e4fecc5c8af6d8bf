"""The commands about groups: filter, order and retries; dead letters put back."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

from penstock.server.commands import EXIT_OK, connected, place_of
from penstock.server.output import Progress, show

Add = Callable[..., ArgumentParser]


def add(commands: Any, remote: ArgumentParser, add_: Add, places: str) -> None:
    """The parsers of these commands."""
    command = add_(commands, "group", group, remote)
    command.add_argument("queue")
    command.add_argument("group", nargs="?", default="", help="(default: the queue's own)")
    add_settings(command)
    command.add_argument("--delete", action="store_true", help="remove it; the messages stay")
    command = add_(commands, "offset", offset, remote)
    command.add_argument("queue")
    command.add_argument("group", nargs="?", default="", help="(default: the queue's own)")
    command.add_argument("--commit", type=int, metavar="OFFSET", help="all before it is done with")
    command.add_argument("--reset", action="store_true", help="go back, too")
    _add_members(commands, remote, add_)
    command = add_(commands, "redrive", redrive, remote)
    command.add_argument("queue", help="the queue of dead letters")
    command.add_argument(
        "--to", metavar="QUEUE", default="", help="(default: where they came from)")
    command.add_argument("--group", default="", help="a group of the queue of dead letters")
    command.add_argument("--reason", default="", help="a word of why they died, as 'given back'")
    command.add_argument("--text", default="", help="a word of what was said with a release")
    command.add_argument("--origin", metavar="QUEUE", default="", help="those that came from there")
    command.add_argument("--since", metavar="PLACE", help=f"that died since then: {places}")
    command.add_argument("--until", metavar="PLACE", help="that died before then")
    command.add_argument("--filter", default="", help="that a filter wants")
    command.add_argument("--kind", choices=("tag", "routing", "sql"), default="tag")
    command.add_argument("--rate", type=float, metavar="N", help="so many a second at most")
    command.add_argument("--dry-run", action="store_true", help="only say how many")


def add_settings(command: ArgumentParser) -> None:
    """What may be set for a group."""
    command.add_argument("--filter", help="what it gets from now on; '' for everything")
    command.add_argument("--kind", choices=("tag", "routing", "sql"), default="tag")
    command.add_argument(
        "--order", choices=("none", "key", "strict"), help="what comes one after the other")
    command.add_argument(
        "--attempts", type=int, metavar="N", help="deliveries of a message; 0 is without end")
    command.add_argument(
        "--dead-letter", metavar="QUEUE", help="where it goes then; created if absent")
    command.add_argument(
        "--backoff", type=seconds_each, metavar="S,S,...",
        help="seconds it waits after each failure; the last counts for all that follow")
    command.add_argument("--no-retry", action="store_true", help="what fails comes again at once")


def settings_of(options: Namespace) -> dict[str, Any]:
    """Those of add_settings that were given, as ADMIN has them."""
    fields: dict[str, Any] = {}
    if options.filter is not None:
        fields |= {"filter": options.filter, "kind": options.kind}
    if options.order is not None:
        fields["order"] = options.order
    if options.no_retry:
        fields["retry"] = None
    elif not (options.attempts is options.dead_letter is options.backoff is None):
        retry: dict[str, Any] = {"dead_letter": options.dead_letter or ""}
        if options.attempts is not None:
            retry["max_attempts"] = options.attempts
        if options.backoff is not None:
            retry["backoff_ms"] = [round(one * 1000) for one in options.backoff]
        fields["retry"] = retry
    return fields


def _add_members(commands: Any, remote: ArgumentParser, add_: Add) -> None:
    about = "List, add and remove members of a group that broadcasts."
    works = commands.add_parser("member", help=about, description=about).add_subparsers(
        metavar="WORK", required=True
    )
    for name, run in (("list", member_list), ("join", member_join), ("leave", member_leave)):
        work = add_(works, name, run, remote)
        work.add_argument("queue")
        work.add_argument("group")
        if run is not member_list:
            work.add_argument("member")
        if run is member_join:
            work.add_argument("--start", choices=("latest", "earliest"), default="latest")
            work.add_argument("--idle", type=float, default=0.0, metavar="SECONDS",
                              help="it goes when nobody was it for so long (default: it lasts)")


def seconds_each(text: str) -> list[float]:
    """Times as 1,5,30."""
    try:
        return [float(one) for one in text.split(",") if one]
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not seconds as 1,5,30") from None


def group(options: Namespace) -> int:
    """Show what is set for a group of a queue, or give it a filter, an order, retries."""
    fields = settings_of(options)
    with connected(options) as client:
        do = "group.delete" if options.delete else "group.set" if fields else "group.show"
        answer = client.admin(do, queue=options.queue, group=options.group, **fields)
    show([answer], options.output)
    return EXIT_OK


def offset(options: Namespace) -> int:
    """Show the stored offset of a group, or store one."""
    with connected(options) as client:
        if options.commit is None:
            answer = client.offset(options.queue, options.group)
        else:
            answer = client.commit_offset(
                options.queue, options.group, offset=options.commit, reset=options.reset)
    show([answer], options.output)
    return EXIT_OK


def member_list(options: Namespace) -> int:
    """List the members of a group, and how far they are."""
    with connected(options) as client:
        show(client.members(options.queue, options.group)["members"], options.output)
    return EXIT_OK


def member_join(options: Namespace) -> int:
    """Be a member: receive as the group GROUP@MEMBER."""
    with connected(options) as client:
        answer = client.join_member(
            options.queue, options.group, options.member, start=options.start, idle=options.idle)
    show([answer], options.output)
    return EXIT_OK


def member_leave(options: Namespace) -> int:
    """Be a member no more."""
    with connected(options) as client:
        client.leave_member(options.queue, options.group, options.member)
    return EXIT_OK


def redrive(options: Namespace) -> int:
    """Put dead letters back to where they came from, or into another queue."""
    wanted: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("group", "reason", "text", "origin", "filter", "kind", "dry_run")
    }
    for option, field, offset in (("since", "since_us", "cursor"), ("until", "until_us", "end")):
        place = place_of(getattr(options, option) or "earliest")
        if "time" in place:
            wanted[field] = int(place["time"] * 1e6)
        elif "offset" in place:
            wanted[offset] = place["offset"]
    with connected(options) as client, Progress("redrive", None) as progress:

        def step(answer: dict[str, Any]) -> None:
            progress.total = progress.total or answer["left"]
            progress.advance(answer["seen"])

        total = client.redrive_all(
            options.queue, options.to, rate=options.rate, step=step, **wanted)
    show([{"queue": options.queue, **total, "dry_run": options.dry_run}], options.output)
    return EXIT_OK
