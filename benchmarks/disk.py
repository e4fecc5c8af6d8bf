"""Where the suites keep their files: on the disk that PENSTOCK_BENCH_DATA names.

    make asv DATA=/mnt/disk

Without it they are temporary files, or below build where those are kept in memory: a sync costs
nothing there, so such a folder is refused if it is named.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from .sidebyside.counters import filesystem

NAMED = "PENSTOCK_BENCH_DATA"
PREFIX = "penstock-asv-"
BESIDE = Path(__file__).resolve().parents[1] / "build"
IN_MEMORY = ("tmpfs", "ramfs")


class NoDiskError(Exception):
    """The folder is not on a disk."""


def folder() -> str:
    """The folder in which temporary ones are made."""
    chosen = os.environ.get(NAMED)
    if chosen is None:
        chosen = tempfile.gettempdir()
        if filesystem(chosen) in IN_MEMORY:
            BESIDE.mkdir(exist_ok=True)
            chosen = os.fspath(BESIDE)
    if not os.path.isdir(chosen):
        raise NoDiskError(f"{NAMED} names no folder: {chosen}")
    if filesystem(chosen) in IN_MEMORY:
        raise NoDiskError(f"{chosen} is in memory, and a sync costs nothing there: name a folder "
                          f"on a disk with {NAMED} (make asv DATA=...)")
    return chosen
