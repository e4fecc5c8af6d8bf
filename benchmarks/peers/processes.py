"""Servers as groups of processes: started, watched (CPU, memory, the machine) and stopped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import slow_disk

TICKS = os.sysconf("SC_CLK_TCK")
START_TIMEOUT_S = 90.0
TURN_S = 0.05


class MissingError(Exception):
    """A peer that cannot run here, and why."""


@dataclass
class Server:
    """A peer that accepts connections at an address; group is its process group."""

    address: str
    group: int
    topic: str = "bench"


def start(stack: ExitStack, folder: Path, words: list[str], port: int, delay_ms: float = 0.0,
          **environment: str) -> Server:
    """Start a command in a group of its own and wait until something listens at the port.

    With delay_ms every sync of the group takes so much longer: a slower disk.
    """
    try:
        words = [*slow_disk.words(delay_ms), *words]
    except slow_disk.NoSlowDiskError as missing:
        raise MissingError(str(missing)) from None
    log = stack.enter_context(open(folder / "log", "ab"))
    try:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log,
                                   env={**os.environ, **environment}, start_new_session=True)
    except FileNotFoundError:
        raise MissingError(f"{Path(words[0]).name} is not installed") from None
    stack.callback(stop, process)
    # Turns are counted, not time: a machine that stood still was not a server that did not start.
    for _ in range(int(START_TIMEOUT_S / TURN_S)):
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return Server(f"127.0.0.1:{port}", process.pid)
        except OSError:
            time.sleep(TURN_S)
    lines = (folder / "log").read_text(errors="replace").strip().splitlines() or ["no word"]
    raise MissingError(f"{Path(words[0]).name} does not start: {lines[-1][:200]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the group and what left it for a session of its own; its data is thrown away anyway."""
    while found := members(process.pid):
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(TURN_S)
    process.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def members(group: int) -> list[int]:
    """The living processes of a group, and those that left it for a session of their own."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := _stat(int(entry))) and fields[0] != "Z":
            parents[int(entry)] = int(fields[1])
            if int(fields[2]) == group:
                found.add(int(entry))
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return sorted(found)


def cpu_seconds(group: int) -> float:
    """User and system time of a group so far."""
    return sum((int(fields[11]) + int(fields[12])) / TICKS
               for pid in members(group) if (fields := _stat(pid)))


def memory_bytes(group: int) -> tuple[int, int]:
    """Resident memory of a group, and the private part of it."""
    resident = private = 0
    for pid in members(group):
        try:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        resident += int(told.get("VmRSS", "0 kB").split()[0]) * 1024
        private += int(told.get("RssAnon", "0 kB").split()[0]) * 1024
    return resident, private


def machine_cpu_seconds() -> float:
    """What all processes of the machine have used so far."""
    fields = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4] - fields[7]) / TICKS


def disk(path: Path) -> tuple[int, int]:
    """Bytes written and flushes made by the device below a path, neighbours included."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    try:
        fields = Path(f"/sys/dev/block/{number}/stat").read_text().split()
    except OSError:
        return 0, 0
    return int(fields[6]) * 512, int(fields[15]) if len(fields) > 15 else 0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []
