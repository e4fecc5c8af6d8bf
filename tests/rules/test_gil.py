"""No thread waits for a lock that processes share while it keeps the interpreter from the others.

Whoever has such a lock may be another process, and may have been stopped. What is read here is
text: functions that are not nogil, and in them what stands outside of `with nogil`.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from tree import ROOT

LOCKS = {"store_lock", "stripe_lock", "sight_lock", "syncs_lock", "futex_wait"}
HEAD = re.compile(r"^(\s*)(?:cdef|cpdef|def)\s[^=(]*?(\w+)\(")
CALLED = re.compile(r"(?<![.\w])(\w+)\(")


class Function(NamedTuple):
    """One function: where it is, whether it runs without the interpreter, its lines."""

    file: str
    name: str
    nogil: bool
    lines: list[str]


def functions() -> Iterator[Function]:
    for path in sorted((ROOT / "engine").glob("*.pxi")):
        found: Function | None = None
        head = ""
        for line in path.read_text().splitlines():
            begun = HEAD.match(line) if not head else None
            if begun or head:
                head += line
                if not re.search(r":\s*$", line):
                    # A declaration of a variable with a call in it ends without a colon.
                    if begun and line.count("(") == line.count(")"):
                        head = ""
                    continue
                name = HEAD.match(head)
                assert name is not None
                found = Function(path.name, name.group(2), "nogil" in head, [])
                yield found
                head = ""
            elif found is not None:
                found.lines.append(line.partition("#")[0])


def outside(lines: list[str]) -> Iterator[str]:
    """The lines that do not stand below `with nogil:`."""
    released: int | None = None
    for line in lines:
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        if released is not None and depth > released:
            continue
        released = depth if line.strip() == "with nogil:" else None
        yield line


def waiting(known: list[Function]) -> set[str]:
    """The functions that take a shared lock, by themselves or through others."""
    found = set(LOCKS)
    while True:
        more = {
            one.name for one in known if one.nogil and one.name not in found
            and any(name in found for line in one.lines for name in CALLED.findall(line))
        }
        if not more:
            return found
        found |= more


def test_a_lock_that_processes_share_is_waited_for_without_the_interpreter() -> None:
    known = list(functions())
    waits = waiting(known)
    assert {"receipts_settle", "round_commit"} & waits, "the functions were not found"
    assert not [
        f"{one.file}: {one.name}: {line.strip()}"
        for one in known if not one.nogil
        for line in outside(one.lines)
        for name in CALLED.findall(line) if name in waits
    ]
