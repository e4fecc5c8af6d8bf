"""Disk comes back: which checkpoints are kept, and what they allow to be used again."""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

from penstock.engine._core import Reclaimer

if TYPE_CHECKING:
    from penstock.engine._core import Store

# Of a checkpoint: its position; the last two words of its state: number, index pages given back.
POSITION_AT, NUMBER_AT = 16, 88 + 30 * 8
KEPT = 2
# Seconds without a checkpoint after which one is taken for the sake of what is dead.
PATIENCE_S = 1.0
# Seconds between two looks at what queues' settings keep.
RETENTION_S = 0.2
# Turns after which a dead segment that somebody has mapped is removed instead of used again.
TURNS = 20


def checkpoints(root: str) -> list[str]:
    """The paths of the checkpoints, oldest first."""
    folder = os.path.join(root, "ckpt")
    return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name != "new"]


def forget_checkpoints(root: str, kept: int = KEPT) -> None:
    """Remove all but the newest checkpoints."""
    for path in checkpoints(root)[:-kept]:
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue  # another process was at it too


def keep(store: Store, least: int = KEPT) -> None:
    """Tell the store what the checkpoints kept may lead to; all else may be used again.

    With fewer than so many checkpoints nothing may.
    """
    facts = []
    for path in checkpoints(store.path):
        try:
            with open(path, "rb") as file:
                head = file.read(NUMBER_AT + 16)
        except FileNotFoundError:
            continue
        if len(head) == NUMBER_AT + 16:
            facts.append((*struct.unpack_from("<QQ", head, NUMBER_AT),
                          *struct.unpack_from("<Q", head, POSITION_AT)))
    if len(facts) >= least:
        Reclaimer(store).keep(*(min(column) for column in zip(*facts, strict=True)))


def save(store: Store, *, clean: bool = False) -> None:
    """Take a checkpoint; clean: the last one's. On a full disk the oldest one makes room for it."""
    try:
        store._checkpoint(clean)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        forget_checkpoints(store.path, 1)
        store._checkpoint(clean)
    forget_checkpoints(store.path)
    keep(store)


def settled(store: Store, numbers: list[int], current: int, end: int) -> None:
    """The last step: which segments are closed, and what the checkpoints kept may lead to."""
    Reclaimer(store).seal([number for number in numbers if number < current], end)
    keep(store)


class Reclaim:
    """When what is done: give messages up, use dead segments again, take checkpoints for that."""

    def __init__(self, store: Store, ready: int = 0) -> None:
        self.store = store
        self.steps = Reclaimer(store)
        self.steps.spare(-(-ready // store.segment_size))
        self.mapped = 0
        self.checkpoint = 0
        self.since = 0.0
        self.looked = 0.0
        self.waits = False
        # Whether what was copied waits for checkpoints; see compaction.py.
        self.copied = False

    def turn(self, now: float) -> None:
        """One round of work, at a monotonic time in seconds; cheap when there is none."""
        if now - self.looked >= RETENTION_S:
            self.looked = now
            self.steps.retain()
        self.steps.give_up()
        found = self.steps.recycle(self.mapped >= TURNS)
        if found is None:
            self.steps.shed()
            return
        _, mapped, waiting = found
        waiting += self.copied
        self.waits = bool(mapped or waiting)
        self.mapped = self.mapped + 1 if mapped else 0
        stat = self.store.stat()
        if stat["checkpoint"] != self.checkpoint:
            self.checkpoint, self.since = stat["checkpoint"], now
        elif waiting and (now - self.since >= PATIENCE_S or stat["full"]):
            self.steps.mark()
            save(self.store)
        self.steps.shed()
