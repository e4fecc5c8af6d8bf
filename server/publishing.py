"""The command line on topics: their parser, and one function a command; each returns a code."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

from penstock.server.commands import EXIT_OK, QUEUE_SETTINGS, connected, sent_half
from penstock.server.grouping import add_settings, settings_of
from penstock.server.output import show
from penstock.server.waiting import add_half, add_times


def add(commands: Any, remote: ArgumentParser, command: Callable[..., ArgumentParser]) -> None:
    """Put `penstock topic …` among the commands."""
    about = "List, show, create, grow and delete topics; send to one, subscribe queues to one."
    topic = commands.add_parser("topic", help=about, description=about)
    works = topic.add_subparsers(metavar="WORK", required=True)
    command(works, "list", topic_list, remote)
    for name, run in (
        ("show", topic_show), ("create", topic_create), ("grow", topic_grow),
        ("delete", topic_delete), ("send", topic_send), ("subscribe", topic_subscribe),
        ("unsubscribe", topic_unsubscribe), ("set", topic_set), ("group", topic_group),
    ):  # fmt: skip
        work = command(works, name, run, remote)
        work.add_argument("topic")
        if name in ("create", "grow"):
            work.add_argument("--partitions", type=int, default=1, metavar="N")
        if name == "send":
            work.add_argument("body")
            work.add_argument("--partition", type=int, metavar="N")
            work.add_argument("--tag", default="")
            work.add_argument("--key", default="")
            work.add_argument("--routing-key", default="")
            add_times(work)
            add_half(work)
        if name in ("subscribe", "unsubscribe"):
            work.add_argument("queue")
        if name == "subscribe":
            work.add_argument("--kind", choices=("tag", "routing", "sql"))
            work.add_argument("--filter", default="", dest="source", help="what the queue wants")
            work.add_argument("--start", default="latest", help="latest, earliest, or µs")
            work.add_argument("--offset", type=int, metavar="N", help="of each partition")
        if name == "set":
            for setting, text in QUEUE_SETTINGS.items():
                work.add_argument(f"--{setting}", type=int, metavar="N", help=text)
            work.add_argument("--keep", choices=("all", "unconfirmed", "subscribed"))
        if name == "group":
            work.add_argument("group", nargs="?", default="")
            add_settings(work)


def topic_list(options: Namespace) -> int:
    """List the topics."""
    with connected(options) as client:
        cursor: str | None = ""
        topics: list[str] = []
        while cursor is not None:
            page = client.admin("topic.list", cursor=cursor)
            topics, cursor = topics + page["topics"], page["next"]
        show([{"topic": name} for name in topics], options.output)
    return EXIT_OK


def topic_show(options: Namespace) -> int:
    """Show a topic's partitions and subscriptions."""
    return _ask(options, "topic.show")


def topic_create(options: Namespace) -> int:
    """Create a topic."""
    return _ask(options, "topic.create", partitions=options.partitions)


def topic_grow(options: Namespace) -> int:
    """Give a topic more partitions."""
    return _ask(options, "topic.grow", partitions=options.partitions)


def topic_delete(options: Namespace) -> int:
    """Delete a topic; subscribed queues keep what they have."""
    return _ask(options, "topic.delete")


def topic_set(options: Namespace) -> int:
    """Set what all partitions of a topic keep and store once; without options, show it."""
    names = [name.replace("-", "_") for name in QUEUE_SETTINGS] + ["keep"]
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    return _ask(options, "topic.set", **given)


def topic_group(options: Namespace) -> int:
    """Set filter, order, retries of a group at all partitions; without options, show them."""
    return _ask(options, "topic.group", group=options.group, **settings_of(options))


def topic_send(options: Namespace) -> int:
    """Send one message to a topic."""
    carried = {
        name: value for name in ("tag", "key", "routing_key")
        if (value := getattr(options, name))
    }
    body = options.body.encode()
    with connected(options) as client:
        topic = client.topic(options.topic)
        if options.half:
            return sent_half(options, topic, body, partition=options.partition, **carried)
        sent = topic.send(
            body, options.partition, delay=options.delay, at=options.at, **carried)
        show([sent], options.output)
    return EXIT_OK


def topic_subscribe(options: Namespace) -> int:
    """Let a queue get what a filter wants."""
    start = int(options.start) if options.start.isdecimal() else options.start
    return _ask(options, "topic.subscribe", queue=options.queue, kind=options.kind,
                source=options.source, start=start, offset=options.offset)


def topic_unsubscribe(options: Namespace) -> int:
    """Let a queue get no more."""
    return _ask(options, "topic.unsubscribe", queue=options.queue)


def _ask(options: Namespace, do: str, **fields: Any) -> int:
    with connected(options) as client:
        answer = client.admin(do, name=options.topic, **fields)
        show([{"topic": options.topic, **answer}], options.output)
    return EXIT_OK
