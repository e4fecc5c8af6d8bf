"""What a process did while it was measured: syncs, syscalls, bytes for the disk, memory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

EVENTS = {
    "fdatasyncs": ("syscalls:sys_enter_fdatasync", "syscalls:sys_enter_fsync"),
    "syscalls": ("raw_syscalls:sys_enter",),
}


class Counting:
    """Counts a process's doings between enter and exit, as far as the kernel lets us."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.found: dict[str, float] = {}
        self._perf: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._written = written_bytes(self.pid)
        if shutil.which("perf"):
            events = ",".join(event for group in EVENTS.values() for event in group)
            self._perf = subprocess.Popen(
                ["perf", "stat", "-x,", "-e", events, "-p", str(self.pid)],
                stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            )
            # perf says nothing when it has attached.
            time.sleep(0.3)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._perf is not None:
            self._perf.send_signal(signal.SIGINT)
            _, text = self._perf.communicate(timeout=10)
            self.found.update(_parse(text))
        written = written_bytes(self.pid)
        if written is not None and self._written is not None:
            self.found["written"] = written - self._written


def written_bytes(pid: int) -> int | None:
    """The bytes that a process has caused to be written to a disk, by the kernel's account."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["write_bytes"])


def private_bytes(pid: int) -> int:
    """The private anonymous memory of a process and of its children."""
    total = 0
    for member in family(pid):
        for line in Path(f"/proc/{member}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total += int(line.split()[1]) * 1024
    return total


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found = [pid]
    for member in found:
        for task in Path(f"/proc/{member}/task").iterdir():
            found.extend(map(int, (task / "children").read_text().split()))
    return found


def filesystem(path: str) -> str:
    """The type of the file system that a path lies on: a sync on tmpfs costs nothing."""
    best = ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        inside = os.path.realpath(path) == mount or os.path.realpath(path).startswith(
            mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, kind)
    return best[1]


def _parse(text: str) -> dict[str, float]:
    counts: dict[str, float] = {}
    for line in text.splitlines():
        parts = line.split(",")
        for what, events in EVENTS.items():
            if len(parts) > 2 and parts[2] in events and parts[0].isdigit():
                counts[what] = counts.get(what, 0.0) + int(parts[0])
    return counts
