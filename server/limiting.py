"""The command line on quotas and pushing: one function a command, each returns the exit code."""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from penstock.server.commands import EXIT_OK, connected
from penstock.server.output import show

Add = Callable[..., ArgumentParser]
FIELDS = {
    "messages_per_s": "messages sent in a second",
    "bytes_per_s": "bytes sent in a second",
    "receives_per_s": "messages received in a second",
    "burst_s": "so many seconds' worth at once (1)",
    "messages": "messages that are not confirmed yet",
    "bytes": "bytes that are not confirmed yet",
    "in_flight": "messages leased by each group",
    "pending": "messages that wait for their time or their verdict",
    "queues": "queues of the namespace",
    "connections": "connections that use queues of the namespace",
}
PUSH_TEXTS = {
    "queue": "the queue that is pushed",
    "url": "where its messages are posted to",
    "secret": "what the posts are signed with (default: PENSTOCK_PUSH_SECRET)",
    "group": "a group of the queue",
    "dead_letter": "the queue that gets what was refused too often",
}
PUSH_NUMBERS = {
    "concurrency": "posts at a time (4)",
    "timeout_s": "for one post (30)",
    "attempts": "of a message, before it is a dead letter (20)",
}
WHOLE = ("messages", "bytes", "in_flight", "queues", "pending", "connections")


def add(commands: Any, remote: ArgumentParser, add_: Add) -> None:
    """The parsers of these commands."""
    about = "List, show, set, remove the quotas of queues (or topics), namespaces, access keys."
    works = commands.add_parser("quota", help=about, description=about).add_subparsers(
        metavar="WORK", required=True
    )
    add_(works, "list", quota_list, remote)
    for name, run in (("show", quota_show), ("set", quota_set), ("remove", quota_remove)):
        work = add_(works, name, run, remote)
        work.add_argument("scope", choices=("queue", "namespace", "key"))
        work.add_argument("name")
        if run is quota_set:
            _numbers(work, FIELDS)
    about = "List, set, remove what is pushed to HTTP endpoints."
    works = commands.add_parser("push", help=about, description=about).add_subparsers(
        metavar="WORK", required=True
    )
    add_(works, "list", push_list, remote)
    add_(works, "remove", push_remove, remote).add_argument("name")
    work = add_(works, "set", push_set, remote)
    work.add_argument("name")
    for option, text in PUSH_TEXTS.items():
        work.add_argument(f"--{option.replace('_', '-')}", metavar="TEXT", help=text)
    _numbers(work, PUSH_NUMBERS)


def _numbers(work: ArgumentParser, fields: dict[str, str]) -> None:
    for field, text in fields.items():
        work.add_argument(f"--{field.replace('_', '-')}", type=float, metavar="N", help=text)


def quota_list(options: Namespace) -> int:
    """List the quotas."""
    with connected(options) as client:
        show(client.admin("quota.list")["quotas"], options.output)
    return EXIT_OK


def quota_show(options: Namespace) -> int:
    """Show the quota of a queue, a namespace or an access key."""
    return _ask(options, "quota.show")


def quota_set(options: Namespace) -> int:
    """Set the quota of a queue, a namespace or an access key; what is not given is not limited."""
    given = {name: getattr(options, name) for name in FIELDS}
    quota = {
        name: int(value) if name in WHOLE else value
        for name, value in given.items() if value is not None
    }  # fmt: skip
    return _ask(options, "quota.set", quota=quota)


def quota_remove(options: Namespace) -> int:
    """Remove the quota of a queue, a namespace or an access key."""
    return _ask(options, "quota.remove")


def push_list(options: Namespace) -> int:
    """List what is pushed."""
    with connected(options) as client:
        show(client.admin("push.list")["pushes"], options.output)
    return EXIT_OK


def push_set(options: Namespace) -> int:
    """Push the messages of a queue to a URL, signed."""
    given = {name: getattr(options, name) for name in (*PUSH_TEXTS, *PUSH_NUMBERS)}
    # On the command line everybody on the machine could read it.
    given["secret"] = given["secret"] or os.environ.get("PENSTOCK_PUSH_SECRET")
    for name in ("concurrency", "attempts"):
        given[name] = None if given[name] is None else int(given[name])
    push = {name: value for name, value in given.items() if value is not None}
    with connected(options) as client:
        client.admin("push.set", name=options.name, push=push)
    return EXIT_OK


def push_remove(options: Namespace) -> int:
    """Push no more."""
    with connected(options) as client:
        client.admin("push.remove", name=options.name)
    return EXIT_OK


def _ask(options: Namespace, do: str, **fields: Any) -> int:
    with connected(options) as client:
        answer = client.admin(do, scope=options.scope, name=options.name, **fields)
        show([{"scope": options.scope, "name": options.name, **answer}], options.output)
    return EXIT_OK
