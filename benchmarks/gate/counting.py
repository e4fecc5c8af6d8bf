"""Counts of a work that come out the same on a busy machine: per call, start-up taken off.

Each counter runs the work in a process of its own, once with few calls and once with many; the
difference, divided by the calls between, has no start-up and no shut-down in it. A counter that
this machine lacks says so, and is left out of the comparison by name.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORKS = HERE / "works.py"
TIMEOUT_S = 600
FEW = 20
LARGE = {"append-64", "append-1000", "take-confirm-32", "read-1000", "fan-out-100"}
# How often these are made depends on who is scheduled when, not on the code alone.
WAITS = {"futex", "epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "clock_nanosleep",
         "restart_syscall", "sched_yield", "nanosleep", "read", "madvise", "munmap", "mmap"}
Figures = dict[str, float]


class MissingError(Exception):
    """A counter that this machine does not have, and why."""


@dataclass(frozen=True)
class Counter:
    """Something that runs a work so often and tells figures that grow with the calls."""

    name: str
    run: Callable[[Path | None, str, int], Figures]
    calls: int
    # A figure may be worse by this share before it counts as worse, and a whole run by so much:
    # a checkpoint that falls into one run and not into the other is no regression.
    share: float
    noise: float
    # What a figure of this counter means for the gate: it fails, or it only warns.
    fails: bool = True
    from_start: bool = False

    def between(self, work: str) -> int:
        """The calls that are counted: those of many messages are made less often."""
        return self.calls // 10 if work in LARGE else self.calls

    def worse(self, work: str, base: float, now: float) -> bool:
        """Whether a figure grew by more than it may."""
        return now > base * (1 + self.share) + self.noise / self.between(work)


def own(tree: Path | None, work: str, count: int) -> Figures:
    """What the store itself counts: syncs and bytes, exactly."""
    told = _told(_python(tree, work, count))
    return {"fdatasyncs": told["fsyncs"], "bytes": told["bytes_written"]}


def seconds(tree: Path | None, work: str, count: int) -> Figures:
    return {"seconds": _told(_python(tree, work, count))["seconds"]}


def syscalls(tree: Path | None, work: str, count: int) -> Figures:
    """All system calls but those that wait, of all threads."""
    if not shutil.which("strace"):
        raise MissingError("strace is not installed")
    with tempfile.NamedTemporaryFile("r") as told:
        _python(tree, work, count, ["strace", "-f", "-qq", "-c", "-U", "calls,name",
                                    "-o", told.name])
        found = dict(_counts(told.read()))
    return {"syscalls": sum(n for name, n in found.items() if name not in WAITS),
            "pwrites": found.get("pwrite64", 0) + found.get("pwritev", 0)}


def _counted(tree: Path | None, work: str, count: int) -> tuple[int, int]:
    """Allocations and copied bytes of the thread that does the work."""
    with tempfile.NamedTemporaryFile("r") as told:
        _python(tree, work, count, environment={
            "LD_PRELOAD": str(_preload()), "PYTHONMALLOC": "malloc",
            "PENSTOCK_COUNTED": told.name})
        made, copied = told.read().split()
    return int(made), int(copied)


def allocations(tree: Path | None, work: str, count: int) -> Figures:
    """malloc, calloc and realloc, those of Python's objects included."""
    return {"allocations": _counted(tree, work, count)[0]}


def copies(tree: Path | None, work: str, count: int) -> Figures:
    """Bytes copied from memory to memory; what the kernel copies is in the bytes written."""
    return {"copied": _counted(tree, work, count)[1]}


def instructions(tree: Path | None, work: str, count: int) -> Figures:
    """Instructions in user space of the thread that does the work, as callgrind counts them."""
    if not shutil.which("valgrind"):
        raise MissingError("valgrind is not installed")
    with tempfile.TemporaryDirectory(prefix="penstock-gate-") as folder:
        _python(tree, work, count,
                ["valgrind", "--tool=callgrind", "--separate-threads=yes",
                 f"--callgrind-out-file={folder}/out"],
                {"LD_PRELOAD": str(_preload()), "PENSTOCK_SMALL_MAPS": "1"})
        found = re.search(r"^totals: (\d+)", Path(folder, "out-01").read_text(), re.MULTILINE)
    if found is None:
        raise MissingError("callgrind told no totals")
    return {"instructions": int(found[1])}


COUNTERS = {counter.name: counter for counter in (
    Counter("own", own, 200, 0.01, 1),
    Counter("syscalls", syscalls, 2000, 0.05, 60),
    Counter("allocations", allocations, 2000, 0.03, 100),
    Counter("copies", copies, 2000, 0.03, 2000),
    Counter("instructions", instructions, 400, 0.02, 20_000),
    Counter("seconds", seconds, 1000, 0.15, 0.0, fails=False, from_start=True),
)}


class Counting:
    """One work in one tree (None: what is installed) under one counter, round after round.

    What other threads do beside the work only ever adds to a count, so the least of the rounds
    is the nearest to the work's own.
    """

    def __init__(self, counter: Counter, tree: Path | None, work: str) -> None:
        self.counter, self.tree, self.work = counter, tree, work
        self.few: Figures = {}
        self.many: Figures = {}

    def round(self) -> None:
        between = self.counter.between(self.work)
        run = self.counter.run
        if self.counter.from_start:
            self._take(self.many, run(self.tree, self.work, between))
        else:
            self._take(self.few, run(self.tree, self.work, FEW))
            self._take(self.many, run(self.tree, self.work, FEW + between))

    def per_call(self) -> Figures:
        """The figures of one call."""
        between = self.counter.between(self.work)
        return {name: (value - self.few.get(name, 0.0)) / between
                for name, value in self.many.items()}

    @staticmethod
    def _take(least: Figures, found: Figures) -> None:
        for name, value in found.items():
            least[name] = min(value, least.get(name, value))


def _python(tree: Path | None, work: str, count: int, before: list[str] | None = None,
            environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    # One hash seed: Python would otherwise choose one for each process.
    inherited = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    if tree is not None:
        inherited["PYTHONPATH"] = os.fspath(tree / "build" / "names")
    python = [sys.executable, "-P", os.fspath(WORKS)]
    with tempfile.TemporaryDirectory(prefix="penstock-gate-") as folder:
        store = f"{folder}/store"
        subprocess.run([*python, "make", work, store], env=inherited, timeout=TIMEOUT_S, check=True)
        done = subprocess.run(
            [*(before or []), *python, work, str(count), store],
            env={**inherited, **(environment or {})},
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        refused = re.search(r"(ptrace|PTRACE)[^\n]*", done.stderr)
        if before and refused:
            raise MissingError(refused[0])
        raise RuntimeError(f"{work} failed in {tree}: {done.stderr.strip()[-500:]}")
    return done


def _told(done: subprocess.CompletedProcess[str]) -> Figures:
    figures: Figures = json.loads(done.stdout)
    return figures


def _counts(text: str) -> list[tuple[str, int]]:
    rows = (line.split() for line in text.splitlines())
    return [(row[1], int(row[0])) for row in rows
            if len(row) == 2 and row[0].isdigit() and row[1] != "total"]


@functools.cache
def _preload() -> Path:
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        raise MissingError("there is no C compiler")
    library = Path(tempfile.mkdtemp(prefix="penstock-gate-"), "preload.so")
    words = ["-O2", "-fno-builtin", "-fno-tree-loop-distribute-patterns", "-shared", "-fPIC"]
    done = subprocess.run([compiler, *words, "-o", str(library), str(HERE / "preload.c")],
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise MissingError(f"preload.c: {done.stderr.strip()[-200:]}")
    return library
