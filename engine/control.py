"""How the control file begins: who has the store open, and how far it is written."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from penstock.engine.errors import StoreLockedError

MAGIC = 0x314C525453544E50
VERSION = 5         # of the layout in _control.pxi
READY, CLOSED = 1, 2
HEAD = struct.Struct("<QII16sQQ")


class Control(NamedTuple):
    """What anybody may read of it."""

    magic: int
    version: int
    ready: int
    boot: bytes
    epoch: int
    written: int


def control(root: str) -> Control | None:
    """The beginning of the control file, None if there is none."""
    try:
        with open(os.path.join(root, "control"), "rb") as file:
            return Control._make(HEAD.unpack(file.read(HEAD.size)))
    except (OSError, struct.error):
        return None


def left_as(root: str, state: int) -> bool:
    """Whether the control file is of this boot and says that the store is ready, or closed."""
    found = control(root)
    return found is not None and found[:4] == (MAGIC, VERSION, state, boot_id())


def refuse_other_version(root: str) -> None:
    """Raise StoreLockedError if the control file was made by code that lays it out differently."""
    found = control(root)
    if found is not None and found.magic == MAGIC and found.version != VERSION:
        raise StoreLockedError(
            f"{root} is in use by another version of Penstock, whose control file has version "
            f"{found.version} where this one has {VERSION}: close the store there first"
        )


def boot_id() -> bytes:
    """16 bytes that change with each start of the kernel: what memory held is gone with it."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text()
    return bytes.fromhex(text.strip().replace("-", ""))
