"""The thread that makes sparse segments dense, so that an unread queue costs its own bytes."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

from penstock.engine._core import Compactor
from penstock.engine.errors import EngineError

if TYPE_CHECKING:
    from penstock.engine._core import Store

# Per cent of a segment that is needed, below which it is copied at once, and once it is old.
SPARSE, OLD = 30, 80
OLD_S = 3600.0
RATE = 16 << 20  # bytes a second, so that sends do not notice
LOOK_S = 1.0
# Looks after which a copied segment that somebody has mapped is removed instead of used again.
TURNS = 20
# Where the file system has room for fewer segments, a reserve is kept and copying does not wait.
LOW = 8


class Compaction(threading.Thread):
    """Looks once a second; a store of which little is sparse costs a glance."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="penstock-compaction", daemon=True)
        self.store = store
        self.steps = Compactor(store)
        self.ended = threading.Event()
        self.mapped = 0
        self.dense = time.monotonic()
        # What was refused, and when: looked at again after an hour.
        self.refused: dict[int, float] = {}

    def run(self) -> None:
        while not self.ended.wait(LOOK_S):
            try:
                self.turn(time.monotonic())
            except EngineError:
                return
            except OSError:
                # A copy that cannot be written leaves everything where it is.
                self.ended.wait(10 * LOOK_S)

    def turn(self, now: float) -> None:
        """One look, at a monotonic time in seconds."""
        low = self.low()
        if low:
            self.reserve()
        self.refused = {number: at for number, at in self.refused.items() if now - at < OLD_S}
        old = now - self.dense >= OLD_S
        if old:
            self.dense = now
        found = self.steps.compact(
            OLD if old or low else SPARSE, rate=0 if low else RATE, refused=list(self.refused))
        if found is not None:
            self.refused.update(dict.fromkeys(found["refused"], now))
        self.give_back()

    def give_back(self) -> None:
        """Use what was copied again, once the checkpoints kept allow it."""
        gone = self.steps.retire(self.mapped >= TURNS)
        if gone is not None:
            self.mapped = self.mapped + 1 if gone[1] else 0
            self.store._maintenance().reclaim.copied = gone[2] > 0

    def low(self) -> bool:
        """Whether the file system has room for a few segments only."""
        facts = os.statvfs(self.store.path)
        return facts.f_bavail * facts.f_frsize < LOW * self.store.segment_size

    def reserve(self) -> None:
        """Keep room for one copy, so that a full disk can be made emptier."""
        path = os.path.join(self.store.path, "cold", "reserve")
        facts = os.statvfs(self.store.path)
        if os.path.exists(path) or facts.f_bavail * facts.f_frsize < 2 * self.store.segment_size:
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.suppress(OSError), open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, self.store.segment_size // 4 * 3)

    def stop(self) -> None:
        self.ended.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()
