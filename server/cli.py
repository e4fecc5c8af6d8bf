"""The command line: what can be said, and which exit code tells what came of it."""

from __future__ import annotations

import argparse
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TypeAlias

from penstock import ConnectionLostError, PenstockError, QueueNotFoundError
from penstock.server.config import UsageError

DEFAULT_SERVER = "127.0.0.1:7711"
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
EXIT_UNREACHABLE = 4
EXIT_INTERRUPTED = 130

EXIT_CODES = """exit codes:
  0    done
  1    the operation failed: the message on standard error says why
  2    the command line makes no sense
  3    there is no such queue, group, message or file
  4    the server cannot be reached
  130  interrupted by Ctrl-C
"""

PLACES = "earliest, latest, an offset, a time (2026-01-31T12:00), or an age (90s, 15m, 2h, 7d)"


def main(argv: Sequence[str] | None = None) -> int:
    """Carry out one command line and return its exit code; raises SystemExit on wrong usage."""
    options = parser().parse_args(argv)
    run: Callable[[Namespace], int] = options.run
    try:
        code = run(options)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except UsageError as error:
        return _complain(error, EXIT_USAGE)
    except BrokenPipeError:
        # Whoever read our output has enough. Without this, Python complains on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (QueueNotFoundError, FileNotFoundError) as error:
        return _complain(error, EXIT_NOT_FOUND)
    except ConnectionLostError as error:
        return _complain(error, EXIT_UNREACHABLE)
    except (PenstockError, OSError) as error:
        return _complain(error, EXIT_FAILED)


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"penstock: {error or type(error).__name__}\n")
    return code


def parser() -> ArgumentParser:
    """The parser of everything that can be said; `run` of what it gives does it."""
    root = ArgumentParser(
        prog="penstock",
        description="A durable message queue: serve one, use one, look into one.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action=_Version, help="show which version this is")
    commands = root.add_subparsers(metavar="COMMAND", required=True)
    remote = _remote()
    _add_serve(commands)
    _add_send(commands, remote)
    _add_receive(commands, remote)
    _add_peek_and_tail(commands, remote)
    _add_ship(commands)
    _add_queue(commands, remote)
    _add_looking(commands, remote)
    _add_grouping(commands, remote)
    _add_quota(commands, remote)
    _add_keys(commands, remote)
    _add_topics(commands, remote)
    _add_waiting(commands, remote)
    _add_bench(commands)
    _add_check(commands)
    _add_completion(commands)
    return root


class _Version(argparse.Action):
    """Asked of the installed distribution only when somebody wants to know."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: ArgumentParser, *_: object) -> None:
        try:
            found = version("penstock")
        except PackageNotFoundError:
            found = "of a folder that was never built"
        print(f"penstock {found}, Python {sys.version.split()[0]}")
        parser.exit(EXIT_OK)


Commands: TypeAlias = "argparse._SubParsersAction[ArgumentParser]"


def _remote() -> ArgumentParser:
    remote = ArgumentParser(add_help=False)
    remote.add_argument(
        "--server",
        metavar="HOST:PORT",
        default=os.environ.get("PENSTOCK_SERVER", DEFAULT_SERVER),
        help=f"where the server is (default: PENSTOCK_SERVER, else {DEFAULT_SERVER})",
    )
    remote.add_argument(
        "-o", "--output", choices=("table", "json", "ndjson"), default="table", help="how to show"
    )
    return remote


def _add(
    commands: Commands, name: str, run: Callable[[Namespace], int], *parents: ArgumentParser
) -> ArgumentParser:
    about = (run.__doc__ or "").split("\n")[0]
    command: ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=about,
        parents=parents,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_serve(commands: Commands) -> None:
    from penstock.server import serving

    serving.add(commands, _add, positive)


def _add_send(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import commands as do
    from penstock.server import waiting

    send = _add(commands, "send", do.send, remote)
    send.add_argument("queue", help="created if absent")
    send.add_argument("body", nargs="*", help="one message each; none: lines of --file or stdin")
    send.add_argument("--file", metavar="PATH", help="send its lines; - is standard input")
    send.add_argument("--whole", action="store_true", help="the input is one message, not lines")
    send.add_argument("--durability", choices=("disk", "kernel"), default="disk")
    waiting.add_times(send)
    waiting.add_half(send)
    _add_carried(send)


def _add_carried(command: ArgumentParser) -> None:
    for name, about in (
        ("tag", "what filters sort the messages by"),
        ("key", "what they are ordered by"),
        ("routing-key", "words with dots, for filters with * and #"),
        ("message-id", "your own name of the message"),
        ("reply-to", "the queue that a reply goes to"),
        ("correlation", "what ties a reply to its request"),
    ):
        command.add_argument(f"--{name}", metavar="TEXT", default="", help=about)
    command.add_argument(
        "--property", metavar="NAME=VALUE", action="append", default=[], type=named,
        help="any number of them",
    )


def named(text: str) -> tuple[str, str]:
    """NAME=VALUE taken apart."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError
    return name, value


def _add_receive(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import commands as do

    receive = _add(commands, "receive", do.receive, remote)
    receive.add_argument("queue")
    receive.add_argument("-n", "--count", type=positive, default=1, help="how many at most")
    receive.add_argument("--wait", type=seconds, default=0.0, metavar="SECONDS")
    receive.add_argument("--lease", type=seconds, default=30.0, metavar="SECONDS")
    receive.add_argument("--group", default="", help="a group of the queue")
    receive.add_argument("--keep", action="store_true", help="do not confirm: they come again")
    receive.add_argument("--release", action="store_true", help="give them back instead")
    receive.add_argument("--delay", type=seconds, metavar="SECONDS",
                         help="until they come again (default: as the group's retries say)")
    receive.add_argument("--reason", default="", metavar="TEXT", help="why they are given back")
    receive.add_argument("--raw", action="store_true", help="bodies only, a line each")


def _add_peek_and_tail(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import commands as do

    for name, run, count, start in (
        ("peek", do.peek, 10, "earliest"),
        ("tail", do.tail, None, "latest"),
    ):
        command = _add(commands, name, run, remote)
        command.add_argument("queue")
        command.add_argument("-n", "--count", type=positive, default=count, help="how many")
        command.add_argument("--from", dest="start", metavar="PLACE", default=start, help=PLACES)
        command.add_argument("--raw", action="store_true", help="bodies only, a line each")


def _add_ship(commands: Commands) -> None:
    ship_command = _add(commands, "ship", ship)
    ship_command.add_argument(
        "--log", metavar="FILE", help="the log (default: the largest text log under /var/log)"
    )
    ship_command.add_argument("--data", metavar="DIR", help="the store's folder (default: a new)")
    ship_command.add_argument("--queue", default="log", help="(default: %(default)s)")
    ship_command.add_argument("--producers", type=positive, default=4, metavar="N")
    ship_command.add_argument("--consumers", type=positive, default=4, metavar="N")
    ship_command.add_argument("--tcp", metavar="HOST:PORT", default="127.0.0.1:0")
    ship_command.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:0")
    ship_command.add_argument("--workers", type=positive, default=1, metavar="N")
    ship_command.add_argument("--durability", choices=("disk", "kernel"), default="disk")
    after = ship_command.add_mutually_exclusive_group()
    after.add_argument("--once", action="store_true", help="exit after the comparison")
    after.add_argument("--serve", action="store_true", help="go on serving until Ctrl-C (default)")


def _add_queue(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import commands as do

    about = "Create, list, show, delete, purge queues."
    queue = commands.add_parser(
        "queue", help=about, description=about
    )
    works: Commands = queue.add_subparsers(metavar="WORK", required=True)
    _add(works, "list", do.queue_list, remote).add_argument(
        "--prefix", default="", metavar="TEXT", help="those whose names begin so")
    for name, run in (
        ("create", do.queue_create),
        ("show", do.queue_show),
        ("delete", do.queue_delete),
        ("purge", do.queue_purge),
        ("unpurge", do.queue_unpurge),
    ):
        work = _add(works, name, run, remote)
        work.add_argument("queues", nargs="+", metavar="queue")
        if name == "purge":
            work.add_argument("--keep-ms", type=int, default=0, metavar="N",
                              help="for so long unpurge takes it back")
    work = _add(works, "set", do.queue_set, remote)
    work.add_argument("queue")
    for name, about in do.QUEUE_SETTINGS.items():
        work.add_argument(f"--{name}", type=int, metavar="N", help=about)
    work.add_argument("--keep", choices=("all", "unconfirmed", "subscribed"))


def _add_looking(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import looking

    looking.add(commands, remote, _add, PLACES)


def _add_grouping(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import grouping

    grouping.add(commands, remote, _add, PLACES)


def _add_topics(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import publishing

    publishing.add(commands, remote, _add)


def _add_waiting(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import waiting

    waiting.add(commands, remote, _add)


def _add_quota(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import limiting

    limiting.add(commands, remote, _add)


def _add_keys(commands: Commands, remote: ArgumentParser) -> None:
    from penstock.server import keying

    keying.add(commands, remote, _add)


def _add_bench(commands: Commands) -> None:
    command = _add(commands, "bench", bench)
    # Its words are its own, and its extension is loaded only when it is asked for.
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="penstock bench -- --help")
    command.prefix_chars = "\0"


def _add_check(commands: Commands) -> None:
    command = _add(commands, "check", check)
    command.add_argument("data", metavar="DIR", help="the store's folder")
    command.add_argument("-o", "--output", choices=("table", "json", "ndjson"), default="table")


def _add_completion(commands: Commands) -> None:
    command = _add(commands, "completion", completion)
    command.add_argument("shell", choices=("bash", "zsh", "fish"))


def positive(text: str) -> int:
    """A whole number over 0."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def seconds(text: str) -> float:
    """A time of 0 s or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def ship(options: Namespace) -> int:
    """Ship every line of a log file through a server of its own, twice, and compare."""
    from penstock.server import ship as job

    return job.main(options)


def bench(options: Namespace) -> int:
    """Load a server and print its rate and latencies."""
    from penstock.server import bench as job

    own = ArgumentParser(prog="penstock bench", description=bench.__doc__, epilog=EXIT_CODES)
    own.formatter_class = argparse.RawDescriptionHelpFormatter
    job.add_arguments(own)
    code = job.main(own.parse_args([word for word in options.arguments if word != "--"]))
    return EXIT_UNREACHABLE if code == job.EXIT_UNREACHABLE else code


def check(options: Namespace) -> int:
    """Verify a store without opening it for writing."""
    from penstock.engine.check import check as verify
    from penstock.server.output import show

    if not os.path.isdir(options.data):
        raise FileNotFoundError(f"there is no folder {options.data}")
    report = verify(options.data)
    if options.output == "table":
        sys.stdout.writelines(f"{line}\n" for line in report.lines())
    else:
        show([{"problem": str(problem)} for problem in report.problems], options.output)
    return EXIT_FAILED if report.problems else EXIT_OK


def completion(options: Namespace) -> int:
    """Print a completion script: eval "$(penstock completion bash)"."""
    from penstock.server.completion import script

    sys.stdout.write(script(parser(), options.shell))
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
