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
    """Counts a process's doings between enter and exit, as far as the kernel lets us.

    "written" is what the whole device took for the file system of a path, neighbours included.
    The kernel's account of one process is no measure of it: a page cache of large folios counts
    a folio of up to 2 MiB for each small write into it. It is kept as "accounted".
    """

    def __init__(self, pid: int, path: str) -> None:
        self.pid = pid
        self.path = path
        self.found: dict[str, float] = {}
        self._perf: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        # What others have left in the cache would else be counted here, and ours after it.
        os.sync()
        self._accounted = accounted_bytes(self.pid)
        self._device = device_bytes(self.path)
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
        os.sync()
        self._add("accounted", self._accounted, accounted_bytes(self.pid))
        self._add("written", self._device, device_bytes(self.path))

    def _add(self, name: str, before: int | None, after: int | None) -> None:
        if before is not None and after is not None:
            self.found[name] = after - before


def device_bytes(path: str) -> int | None:
    """The bytes that the block device below a path has written since it came up."""
    device = os.stat(path).st_dev
    try:
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text()
    except OSError:
        return None
    return int(text.split()[6]) * 512


def accounted_bytes(pid: int) -> int | None:
    """The bytes of the cache that a process has dirtied, by the kernel's account."""
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
