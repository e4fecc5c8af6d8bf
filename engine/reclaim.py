"""Disk comes back: which checkpoints are kept, and what they allow to be used again."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from penstock.engine._core import Reclaimer

if TYPE_CHECKING:
    from penstock.engine._core import Store

# Of a checkpoint: its position; the last two words of its state: number, index pages given back.
POSITION_AT, NUMBER_AT = 16, 88 + 30 * 8
KEPT = 2


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
