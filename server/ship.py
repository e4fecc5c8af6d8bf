"""The main job: ship every line of a log through a server of its own, twice, and compare.

The lines travel as they are, with their line feed if they have one, so that joined in order they
are the file. Each message carries its number in ext, for producers and consumers run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from penstock.aio import AsyncClient, AsyncQueue
from penstock.errors import ConnectionLostError, PenstockError
from penstock.model import Level
from penstock.server.broker.limits import Limits
from penstock.server.config import parse_address
from penstock.server.output import Progress

LOGS = Path("/var/log")
SNIFF_BYTES = 1 << 16
LINE_BYTES = Limits().message_bytes
IN_FLIGHT = 512
RECEIVE_COUNT = 256
LEASE_SECONDS = 60.0
WAIT_SECONDS = 0.2
IDLE_SECONDS = 20.0
STOP_SECONDS = 30.0
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_TERMINATED = 143


def main(options: Namespace) -> int:
    """Do the job and return 0, or 1 when what came back is not the file."""
    log = Path(options.log) if options.log else largest_log()
    lines = split(log.read_bytes())
    if not lines:
        raise PenstockError(f"{log} is empty: there is nothing to ship")
    longest = max(range(len(lines)), key=lambda at: len(lines[at]))
    if len(lines[longest]) > LINE_BYTES:
        raise PenstockError(
            f"line {longest + 1} of {log} has {len(lines[longest])} bytes, "
            f"and a message has at most {LINE_BYTES}")
    for address in (options.tcp, options.http):
        parse_address(address)
    # By default SIGTERM ends us without a word, and the server would be nobody's.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    data = options.data or tempfile.mkdtemp(prefix="penstock-")
    try:
        with Served(options, data) as served:
            say(f"log {log}: {len(lines):,} lines, {sum(map(len, lines)):,} bytes")
            say(f"store {data}, tcp {served.tcp}, http {served.http}")
            whole = run(ship(served.tcp, lines, options))
            if whole:
                say(f"verified {len(lines)} messages byte for byte")
            if not whole or options.once:
                return EXIT_OK if whole else EXIT_FAILED
            invite(served, options.queue)
            served.wait()
            return EXIT_OK
    finally:
        if not options.data:
            shutil.rmtree(data, ignore_errors=True)


def split(content: bytes) -> list[bytes]:
    """The lines with their line feeds: joined in order they are content."""
    lines = content.split(b"\n")
    last = lines.pop()
    return [line + b"\n" for line in lines] + ([last] if last else [])


def largest_log() -> Path:
    """The largest text file under /var/log that can be read."""
    found: list[tuple[int, Path]] = []
    for folder, _, names in os.walk(LOGS):
        for path in (Path(folder, name) for name in names):
            try:
                status = path.lstat()
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode) and status.st_size:
                found.append((status.st_size, path))
    for _, path in sorted(found, reverse=True):
        if is_text(path):
            return path
    raise FileNotFoundError(f"no text log under {LOGS} can be read: name one with --log")


def is_text(path: Path) -> bool:
    """Whether the file can be read and begins with lines of text."""
    try:
        with path.open("rb") as source:
            start = source.read(SNIFF_BYTES)
    except OSError:
        return False
    return b"\n" in start and not any(byte < 32 and byte not in b"\t\n\r\x1b" for byte in start)


def say(text: str) -> None:
    """A line for whoever watches, at once also through a pipe."""
    print(text, flush=True)


class Served:
    """A server as a process of its own, on ports that were free.

    Invariants:
      1. Inside the with block the process was ready; after it, it has ended.
    """

    def __init__(self, options: Namespace, data: str) -> None:
        self.tcp = self.http = ""
        command = [sys.executable, "-m", "penstock.server.cli", "serve", "--data", data]
        command += ["--tcp", options.tcp, "--http", options.http]
        command += ["--workers", str(options.workers)]
        # A session of its own: Ctrl-C is ours to hear, and the server is told by SIGTERM.
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def __enter__(self) -> Self:
        try:
            self._await_ready()
        except BaseException:
            self._stop()
            raise
        return self

    def _await_ready(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            if line.startswith("ready"):
                doors = dict(word.split("=", 1) for word in line.split() if "=" in word)
                self.tcp, self.http = doors.get("tcp", ""), doors.get("http", "")
                return
        raise ConnectionLostError(f"the server ended with {self._process.wait()}, never ready")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def wait(self) -> None:
        """Returns when Ctrl-C is pressed; raises ConnectionLostError when the server ends first."""
        try:
            code = self._process.wait()
        except KeyboardInterrupt:
            return
        raise ConnectionLostError(f"the server ended with {code}")


@dataclass
class Pass:
    """What one way through the queue brought and how long it took."""

    lines: list[bytes | None]
    left: int
    started: float = field(default_factory=time.perf_counter)
    again: int = 0
    finished: float = 0.0

    def take(self, number: int, body: bytes) -> None:
        """Keep a line; one that came before is counted and must be the same."""
        if not 0 <= number < len(self.lines):
            raise PenstockError(f"a message says that it is line {number}: it is not ours")
        if self.lines[number] is not None:
            self.again += 1
            if self.lines[number] == body:
                return
        else:
            self.left -= 1
        self.lines[number] = body
        if not self.left:
            self.finished = time.perf_counter()


def run(job: Coroutine[object, object, bool]) -> bool:
    """What the coroutine returns, on uvloop where it is installed."""
    loops: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        loops = uvloop.new_event_loop
    try:
        with asyncio.Runner(loop_factory=loops) as runner:
            return runner.run(job)
    except BaseExceptionGroup as group:
        # The tasks of a group fail together; the first cause is what there is to tell.
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None


async def ship(address: str, lines: list[bytes], options: Namespace) -> bool:
    """Whether all lines came back as they were, when sent and once more after a rewind."""
    clients = [
        await AsyncClient.connect(address)
        for _ in range(options.producers + options.consumers)
    ]
    try:
        queues = [await client.queue(options.queue) for client in clients]
        producers, consumers = queues[: options.producers], queues[options.producers :]
        # An earlier run in the same folder left messages that are not ours to compare.
        await consumers[0].seek("latest")
        receipt_times: list[float] = []
        offsets: list[int] = []
        first = Pass([None] * len(lines), len(lines))
        with Progress("ship", len(lines)) as progress:
            sending = produce(producers, lines, options.durability, receipt_times, offsets)
            receiving = consume(consumers, first, progress)
            async with asyncio.TaskGroup() as group:
                group.create_task(receiving)
                await sending
                sent = time.perf_counter()
        report("sent", len(lines), sent - first.started, receipt_times)
        report("received and confirmed", len(lines), first.finished - first.started, None)
        if not compare("first", lines, first):
            return False
        # By time, as a person would: to the moment at which the first of our messages was stored.
        message = (await consumers[0].peek(offset=min(offsets)))[0]
        sought = await consumers[0].seek(time=message.stored_us / 1e6)
        say(f"rewound to {message.stored_us} µs: {sought.messages:,} messages come again")
        second = Pass([None] * len(lines), len(lines))
        with Progress("again", len(lines)) as progress:
            await consume(consumers, second, progress)
        report("received again", len(lines), second.finished - second.started, None)
        return compare("second", lines, second)
    finally:
        for client in clients:
            await client.close()


async def produce(
    queues: list[AsyncQueue],
    lines: list[bytes],
    durability: Level,
    times: list[float],
    offsets: list[int],
) -> None:
    """Send every line once; the producers share the lines and keep IN_FLIGHT on their way each."""
    numbers = iter(range(len(lines)))

    async def sender(queue: AsyncQueue) -> None:
        for number in numbers:
            start = time.perf_counter()
            ext = number.to_bytes(8, "little")
            receipt = await queue.send(lines[number], durability, ext)
            times.append(time.perf_counter() - start)
            offsets.append(receipt.offset)

    async with asyncio.TaskGroup() as group:
        for queue in queues:
            for _ in range(min(IN_FLIGHT, 1 + len(lines) // len(queues))):
                group.create_task(sender(queue))


async def consume(queues: list[AsyncQueue], goal: Pass, progress: Progress) -> None:
    """Receive and confirm with all queues at once until goal has every line."""

    async def receiver(queue: AsyncQueue) -> None:
        fed = time.perf_counter()
        while goal.left:
            messages = await queue.receive(RECEIVE_COUNT, wait=WAIT_SECONDS, lease=LEASE_SECONDS)
            fed = time.perf_counter() if messages else fed
            if time.perf_counter() - fed > IDLE_SECONDS:
                raise PenstockError(f"{goal.left} messages did not come in {IDLE_SECONDS:.0f} s")
            before = goal.left
            for message in messages:
                goal.take(int.from_bytes(message.ext, "little"), message.body)
            progress.advance(before - goal.left)
            await queue.client.confirm(messages)

    receivers = [asyncio.ensure_future(receiver(queue)) for queue in queues]
    try:
        # Confirmations on their way are awaited, and long polls that find nothing any more.
        await asyncio.gather(*receivers)
    finally:
        for task in receivers:
            task.cancel()
        await asyncio.gather(*receivers, return_exceptions=True)


def compare(which: str, lines: list[bytes], got: Pass) -> bool:
    """Whether the lines that came are the file, byte for byte; says what differs."""
    if got.again:
        say(f"{which} pass: {got.again} messages came more than once")
    if b"".join(line or b"" for line in got.lines) == b"".join(lines):
        return True
    for number, (line, came) in enumerate(zip(lines, got.lines, strict=True)):
        if line != came:
            say(f"{which} pass: line {number} was {line!r} and came as {came!r}")
            break
    return False


def report(what: str, count: int, seconds: float, latencies: list[float] | None) -> None:
    """One line with the rate, and with the latencies if there are any."""
    line = f"{what:<22} {count:>9,} messages in {seconds:6.2f} s  {count / seconds:>9,.0f}/s"
    if latencies:
        ordered = sorted(latencies)
        middle, late = (ordered[int(len(ordered) * part)] * 1e3 for part in (0.5, 0.99))
        line += f"  p50 {middle:.2f} ms  p99 {late:.2f} ms"
    say(line)


def invite(served: Served, queue: str) -> None:
    """Say what can be tried now."""
    say(f"serving tcp {served.tcp} and http {served.http} until Ctrl-C. Try:")
    url = f"http://{served.http.removeprefix('http://')}"
    say(f"  curl {url}/v1/queues/{queue}")
    say(
        f"  curl -X POST -H 'content-type: application/octet-stream' -d hello"
        f" {url}/v1/queues/{queue}/messages"
    )
    say(f"  penstock peek {queue} --server {served.tcp}")
