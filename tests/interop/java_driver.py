"""The Java client of CMQ over TCP, run as a process that does what it is told line by line."""

import base64
import itertools
import os
import queue
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import pytest

JARS = Path(__file__).parents[2] / ".venv" / "interop" / "cmq-tcp"
DEMANDED = os.environ.get("PENSTOCK_INTEROP") == "1"


class Message(NamedTuple):
    id: int
    handle: int
    body: str


class Answer(NamedTuple):
    """What the client returned; raised: the class of the exception instead."""

    code: int
    text: str
    value: str = ""
    more: str = ""
    raised: str = ""

    @property
    def ids(self) -> list[int]:
        return [int(one) for one in self.value.split(",") if one]

    @property
    def messages(self) -> list[Message]:
        found = []
        for one in self.value.split(";") if self.value else []:
            id, handle, body = one.split(",")
            found.append(Message(int(id), int(handle), base64.b64decode(body).decode()))
        return found


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def require_driver() -> None:
    """Skip, or where it is demanded fail, without Java and the client's jars."""
    missing = None
    if shutil.which("java") is None:
        missing = "Java is not installed"
    elif not (JARS / "Driver.class").exists():
        missing = "the Java client was not set up: it needs java, javac, mvn and their registry"
    if missing and DEMANDED:
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


class Driver:
    """One program with the client in it; the context manager ends it."""

    def __init__(self, http: int, id: str, secret: str, method: str = "HmacSHA256") -> None:
        classpath = f"{JARS}:{JARS}/*"
        self.process = subprocess.Popen(
            ["java", "-Xmx256m", "-cp", classpath, "Driver", f"http://127.0.0.1:{http}", id, secret,
             method],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.numbers = itertools.count(1)
        self.answers: dict[str, queue.SimpleQueue[Answer]] = {}
        # The client logs to the same place.
        assert any(line == "ready\n" for line in self.output)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        for line in self.output:
            number, *rest = line.rstrip("\n").split("\t")
            if number not in self.answers:
                continue  # the client prints as well
            kind, *rest = rest
            if kind == "error":
                text = base64.b64decode(rest[2]).decode()
                answer = Answer(int(rest[1]), text, raised=rest[0])
            else:
                rest += [""] * (4 - len(rest))
                answer = Answer(int(rest[0]), base64.b64decode(rest[1]).decode(), *rest[2:4])
            self.answers[number].put(answer)

    def tell(self, command: str, *words: object) -> str:
        """Let it do something; its answer is awaited with take()."""
        number = f"n{next(self.numbers)}"
        self.answers[number] = queue.SimpleQueue()
        self.input.write("\t".join([number, command, *map(str, words)]) + "\n")
        self.input.flush()
        return number

    def take(self, number: str) -> Answer:
        return self.answers[number].get(timeout=60)

    def do(self, command: str, *words: object) -> Answer:
        return self.take(self.tell(command, *words))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.input.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()
