"""The thread that places delayed messages into their queues when they are due."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from penstock.engine.errors import EngineError

if TYPE_CHECKING:
    from penstock.engine._core import Store

SLEEP_MS = 100  # at most, so that a process takes over from one that died


class Timekeeper(threading.Thread):
    """Fires what is due, if no other process does; begun when the first message waits."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="penstock-timekeeper", daemon=True)
        self.pending = store.pending
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                self.pending._keep(SLEEP_MS)
            except EngineError:
                return

    def stop(self) -> None:
        self.ended.set()
        self.pending._wake()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()
