"""Recovery, for whoever opens a store alone: the numbered steps of docs/architecture.md."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.engine.errors import CorruptionError
from penstock.engine.reclaim import settled

SEGMENT = re.compile(r"[0-9a-f]{8}\.seg")

if TYPE_CHECKING:
    from penstock.engine._core import Store

SEGMENT_HEADER = 4096


def recover(store: Store, root: str, repair: bool) -> None:
    """Bring the state to what the log says: the numbered steps of docs/architecture.md."""
    numbers = segments(root)
    if not numbers:
        store._create(1)
        store._start(0, 1, 1, False)
        return
    position, clean = newest_checkpoint(store, root)
    if not position and not repair:
        refuse_headless(root, numbers)
    start = position or numbers[0] << 32 | SEGMENT_HEADER
    if not clean:
        settle_segments(root, [number for number in numbers if number >= start >> 32])
    damaged = store._segments(
        numbers[-1], [n for n in numbers if used(root, n)]
    )
    if damaged and not repair:
        raise CorruptionError(
            f"{segment_path(root, damaged[0])}: the header is damaged, so its frames cannot "
            "be judged. Nothing was changed. Restore the file, or open with repair=True to "
            "leave it out"
        )
    for _ in damaged:
        store._count_damage()
    end, promised = store._replay(start, position)
    end = past_damage(store, root, end, promised, repair)
    last = numbers[-1]
    # Going on behind the end is safe only where nothing was ever written: a frame of a life that a
    # power cut ended could stand there and be taken for the next one.
    if clean and end == position and end >> 32 == last_used(root, numbers) and store._blank(end):
        store._start(end, 0, last, True)
        settled(store, numbers, end >> 32, end)
        return
    number = (end >> 32) + 1
    while used(root, number):
        number += 1
    if number > last:
        store._create(number)
    store._start(end, number, max(last, number), False)
    settled(store, numbers, number, end)


def refuse_headless(root: str, numbers: list[int]) -> None:
    """Raise CorruptionError if the log does not go back to its beginning: it needs a checkpoint."""
    first = next((number for number in numbers if used(root, number)), 0)
    if not first:
        return
    with open(segment_path(root, first), "rb") as file:
        before = int.from_bytes(file.read(72)[64:], "little")
    if before:
        raise CorruptionError(
            f"{root}/ckpt: no checkpoint is whole, and what the log had before "
            f"{segment_path(root, first)} was reclaimed. Nothing was changed. Restore a "
            "checkpoint, or open with repair=True to have what the rest of the log says"
        )


def settle_segments(root: str, numbers: list[int]) -> None:
    """Bring segments to the state a power cut would leave them in, before anything is read.

    What a killed process wrote is put on disk, so that it may be called durable; and the
    page cache is dropped, because after a failed fsync it can show bytes that the disk never got.
    """
    for number in numbers:
        descriptor = os.open(segment_path(root, number), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def segment_path(root: str, number: int) -> str:
    """The path of a segment's file."""
    return os.path.join(root, "log", f"{number:08x}.seg")


def newest_checkpoint(store: Store, root: str) -> tuple[int, bool]:
    """Load the newest whole checkpoint: (its position, whether it was a clean close)."""
    folder = os.path.join(root, "ckpt")
    for name in sorted((n for n in os.listdir(folder) if n != "new"), reverse=True):
        found = store._load(Path(folder, name).read_bytes())
        if found is not None:
            return found
    return 0, False


def past_damage(store: Store, root: str, end: int, promised: int, repair: bool) -> int:
    """The true end of the log: end if a crash tore it there, else report or leave out damage."""
    while True:
        promised = max(promised, store._promise_after(end))
        if promised <= end:
            return end
        following = store._frame_after(end)
        to = place(root, following[0]) if following else f"at least {place(root, promised)}"
        if not repair:
            raise CorruptionError(
                f"{place(root, end)}: acknowledged frames are damaged, from here to {to}. "
                "Nothing was changed. Restore the file, or open with repair=True to leave out "
                "what is damaged"
            )
        store._count_damage()
        if following is None:
            return end
        store._expect(following[1])
        end, promised = store._replay(following[0], promised)


def place(root: str, position: int) -> str:
    """A position in the words of the file system."""
    return f"{segment_path(root, position >> 32)} byte {position & 0xFFFFFFFF}"


def segments(root: str) -> list[int]:
    """The numbers of the segments there are, in order; what somebody else put there is not ours."""
    names = os.listdir(os.path.join(root, "log"))
    return sorted(int(name[:8], 16) for name in names if SEGMENT.fullmatch(name))


def last_used(root: str, numbers: list[int]) -> int:
    """The number of the last segment that was ever written to."""
    return max((number for number in numbers if used(root, number)), default=0)


def used(root: str, number: int) -> bool:
    """Whether a segment was ever written to: its header is there."""
    try:
        with open(segment_path(root, number), "rb") as file:
            return file.read(8) != bytes(8)
    except FileNotFoundError:
        return False
