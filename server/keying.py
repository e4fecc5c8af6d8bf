"""The command line on access keys: one function a command, each returns the exit code."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from penstock.server.commands import EXIT_OK, connected
from penstock.server.output import show

Add = Callable[..., ArgumentParser]


def add(commands: Any, remote: ArgumentParser, add_: Add) -> None:
    """The parsers of these commands."""
    about = "Create, list, delete the keys that CMQ clients sign with."
    works = commands.add_parser("key", help=about, description=about).add_subparsers(
        metavar="WORK", required=True
    )
    create = add_(works, "create", key_create, remote)
    create.add_argument("--label", metavar="TEXT", default="", help="who has it")
    add_(works, "list", key_list, remote)
    add_(works, "delete", key_delete, remote).add_argument("id", help="the access key")


def key_create(options: Namespace) -> int:
    """Make an access key; its secret is shown this once."""
    with connected(options) as client:
        show([client.admin("key.create", label=options.label)], options.output)
    return EXIT_OK


def key_list(options: Namespace) -> int:
    """List the access keys, without their secrets."""
    with connected(options) as client:
        show(client.admin("key.list")["keys"], options.output)
    return EXIT_OK


def key_delete(options: Namespace) -> int:
    """Refuse what is signed with an access key from now on."""
    with connected(options) as client:
        client.admin("key.delete", id=options.id)
    return EXIT_OK
