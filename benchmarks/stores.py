"""Stores for the suites: made before the clock runs, filled from a seed, their pages touched.

They lie on the disk that disk.py names."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

from penstock.engine import Store

from .disk import PREFIX, folder

SEED = 20240229
SIZE = 128
LEVELS = ["disk", "kernel"]


def bodies(count: int, size: int = SIZE) -> list[bytes]:
    """Always the same messages."""
    chance = random.Random(SEED)
    return [chance.randbytes(size) for _ in range(count)]


class Prepared:
    """A store in a directory of its own. A suite inherits setup and teardown."""

    timeout = 300

    def prepare(self, count: int = 0, size: int = SIZE) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder()))
        self.store: Any = Store.open(self.folder / "store")
        self.queue = self.store.queue("bench")
        # The first append makes the segment; that is recovery's figure, not this one's.
        for _ in range(-(-count // 1000) or 1):
            self.queue.append_many(bodies(1000, size), durability="kernel")
        self.store.checkpoint()

    def teardown(self, *_: object) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def spent(self, *names: str) -> list[int]:
        stat = self.store.stat()
        return [stat[name] for name in names]
