"""Death at any store to shared memory: a process is driven one instruction at a time, and killed.

The kernel single-steps the child (ptrace); after each step what it shares with others is compared
with what it was. So a test can let it die after its first store, its second, and so on, until it
lives.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP = 0, 7, 9

# Of the control file (engine/_control.pxi): the table of groups, and the arena with the trees.
GROUPS_AT = 65536 + 131072 * 256
ARENA_AT = GROUPS_AT + 262144 * 256 + 16384 * 64 + 524288 * 4
PAGE = 4096

libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request: int, pid: int, data: int = 0) -> None:
    """Call it, or raise OSError."""
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(pid), None, ctypes.c_long(data)) < 0:
        raise OSError(ctypes.get_errno(), "ptrace")


def may_step() -> bool:
    """Whether this machine lets a process step its child."""
    child = os.fork()
    if child == 0:
        os._exit(libc.ptrace(ctypes.c_long(PTRACE_TRACEME), 0, None, None) < 0)
    return os.waitpid(child, 0)[1] == 0


class Shared:
    """The groups and the first pages of the arena, as all processes see them."""

    def __init__(self, store: str, groups: int = 64, pages: int = 64) -> None:
        file = os.open(Path(store, "control"), os.O_RDONLY)
        try:
            self.map = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        finally:
            os.close(file)
        self.parts = [(GROUPS_AT, GROUPS_AT + groups * 256), (ARENA_AT, ARENA_AT + pages * PAGE)]

    def seen(self) -> list[bytes]:
        """What stands there now."""
        return [self.map[start:end] for start, end in self.parts]

    def close(self) -> None:
        self.map.close()


def begin(ready: Callable[[], Callable[[], object]]) -> int:
    """A child that stands still before the act that ready() prepares and returns."""
    child = os.fork()
    if child == 0:
        try:
            act = ready()
            libc.ptrace(ctypes.c_long(PTRACE_TRACEME), 0, None, None)
            os.kill(os.getpid(), signal.SIGSTOP)
            act()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return child


def halt_after(ready: Callable[[], Callable[[], object]], store: str, stores: int) -> int:
    """A child that stands still after so many changes of what is shared; 0 if it ended first."""
    shared = Shared(store)
    child = begin(ready)
    try:
        _, status = os.waitpid(child, 0)
        assert os.WIFSTOPPED(status), f"the act could not be prepared: {status}"
        before = shared.seen()
        while stores:
            ptrace(PTRACE_SINGLESTEP, child)
            _, status = os.waitpid(child, 0)
            if not os.WIFSTOPPED(status):
                assert status == 0, f"the act failed: {status}"
                return 0
            now = shared.seen()
            stores -= now != before
            before = now
        return child
    finally:
        shared.close()


def die(child: int) -> None:
    """Kill one that stands still."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def die_after(ready: Callable[[], Callable[[], object]], store: str, stores: int) -> bool:
    """Let a child die when the act has changed so often what is shared; False if it ended first."""
    child = halt_after(ready, store, stores)
    if child:
        die(child)
    return child != 0


def deaths(
    ready: Callable[[], Callable[[], object]], store: str, *, first: int = 1, step: int = 1
) -> Iterator[int]:
    """Let one child after another die, each some stores later than the last, until one lives."""
    stores = first
    while die_after(ready, store, stores):
        yield stores
        stores += step


def signals(act: Callable[[], object], number: int, most: int) -> int:
    """How often a child that does an act gets a signal; more than most are not waited for."""
    child = begin(lambda: act)
    _, status = os.waitpid(child, 0)
    count = 0
    while count <= most:
        stopped = os.WSTOPSIG(status)
        count += stopped == number
        ptrace(PTRACE_CONT, child, 0 if stopped == signal.SIGSTOP else stopped)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            assert status == 0, f"the act failed: {status}"
            return count
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return count
