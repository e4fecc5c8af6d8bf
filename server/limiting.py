"""The command line on quotas: one function a command, each returns the exit code."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from penstock.server.commands import EXIT_OK, connected
from penstock.server.output import show

FIELDS = {
    "messages_per_s": "messages sent in a second",
    "bytes_per_s": "bytes sent in a second",
    "receives_per_s": "messages received in a second",
    "burst_s": "so many seconds' worth at once (1)",
    "messages": "messages that are not confirmed yet",
    "bytes": "bytes that are not confirmed yet",
    "in_flight": "messages leased by each group",
    "queues": "queues of the namespace",
}
WHOLE = ("messages", "bytes", "in_flight", "queues")


def quota_list(options: Namespace) -> int:
    """List the quotas."""
    with connected(options) as client:
        show(client.admin("quota.list")["quotas"], options.output)
    return EXIT_OK


def quota_show(options: Namespace) -> int:
    """Show the quota of a queue or a namespace."""
    return _ask(options, "quota.show")


def quota_set(options: Namespace) -> int:
    """Set the quota of a queue or a namespace; what is not given is not limited."""
    given = {name: getattr(options, name) for name in FIELDS}
    quota = {
        name: int(value) if name in WHOLE else value
        for name, value in given.items() if value is not None
    }  # fmt: skip
    return _ask(options, "quota.set", quota=quota)


def quota_remove(options: Namespace) -> int:
    """Remove the quota of a queue or a namespace."""
    return _ask(options, "quota.remove")


def _ask(options: Namespace, do: str, **fields: Any) -> int:
    with connected(options) as client:
        answer = client.admin(do, scope=options.scope, name=options.name, **fields)
        show([{"scope": options.scope, "name": options.name, **answer}], options.output)
    return EXIT_OK
