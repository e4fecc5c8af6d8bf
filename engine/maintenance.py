"""What a process does for its open store beside its callers, on one thread."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

from penstock.engine.compaction import Compaction
from penstock.engine.errors import EngineError
from penstock.engine.reclaim import Reclaim, save
from penstock.engine.timekeeper import Timekeeper

if TYPE_CHECKING:
    from penstock.engine._core import Store

CHECKPOINT_BYTES = 64 << 20
IDLE_MS = 1000  # between two looks of the maintenance thread when nothing happens
AHEAD = 4  # segments made ahead of need at most
BUSY_BYTES = 1 << 20  # between two turns: who writes more than that is not to be disturbed
QUIET_S = 1.0  # so long since then, before more is made ready
LOW = 8  # segments for which there must be room, else one is kept for confirmations


class Maintenance(threading.Thread):
    """Makes segments ahead of need, flushes what was sent at kernel durability, checkpoints."""

    def __init__(self, store: Store, ready: int = 0) -> None:
        super().__init__(name="penstock-maintenance", daemon=True)
        self.store = store
        self.ready = ready
        self.ended = threading.Event()
        self.written = store.stat()["written"]
        self.busy = time.monotonic()
        self.short = False  # of what is to be ready
        self.keeper: Timekeeper | None = None
        self.compaction: Compaction | None = None
        self.reclaim = Reclaim(store, ready)

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self.store._rest(0 if self.reclaim.waits or self.short else IDLE_MS)
                if not self.ended.is_set():
                    self.turn()
            except EngineError:
                return
            except OSError:
                # A checkpoint that cannot be written costs time at the next open, nothing else.
                self.ended.wait(1)

    def turn(self) -> None:
        """One round of work; cheap when there is none."""
        if self.store.stat()["poisoned"]:
            return
        if not self.store._prepare(self.ahead()):
            self.short = False  # no room: it is tried again at the next look
        self.store._flush()
        if self.keeper is None and len(self.store.pending):
            self.keeper = Timekeeper(self.store)
            self.keeper.start()
        if self.compaction is None and self.store.stat()["segments"] > 3:
            self.compaction = Compaction(self.store)
            self.compaction.start()
        if self.store._due_checkpoint(CHECKPOINT_BYTES):
            save(self.store)
        self.reclaim.turn(time.monotonic())

    def ahead(self) -> int:
        """How many segments to have made: more when they were used up fast since the last turn."""
        stat = self.store.stat()
        grown = stat["written"] - self.written
        used_up = (stat["written"] >> 32) - (self.written >> 32)
        self.written, self.short = stat["written"], False
        if grown > BUSY_BYTES:
            self.busy = time.monotonic()
        if used_up:
            return min(1 + 2 * used_up, AHEAD)
        if self.low():
            # One more stands by, which messages do not get.
            return 2
        if stat["ready"] >= self.ready or time.monotonic() - self.busy < QUIET_S:
            return 1
        self.short = True
        return stat["ready"] // self.store.segment_size + 1

    def low(self) -> bool:
        """Whether the file system has room for a few segments only."""
        facts = os.statvfs(self.store.path)
        return facts.f_bavail * facts.f_frsize < LOW * self.store.segment_size

    def stop(self) -> None:
        self.ended.set()
        self.store._rouse()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()
        if self.keeper is not None:
            self.keeper.stop()
        if self.compaction is not None:
            self.compaction.stop()
