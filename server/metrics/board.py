"""Counters of all workers in memory that they share, so that whoever is asked answers for all."""

import mmap
from collections.abc import Iterable

ROW = 4096  # bytes a worker has: 512 numbers


class Board:
    """One row of numbers for each worker, and one for the parent.

    Invariants: 1. A row is written by one process at a time: the worker's, and before it is started
    by nobody. 2. Counters never fall: a worker begins where the one that died before it ended.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self.numbers = memoryview(mmap.mmap(-1, ROW * (workers + 1))).cast("Q")
        self.index = 0
        self.base: list[int] = []

    def begin(self, index: int, counters: Iterable[bool]) -> None:
        """Take a worker's row over; counters says which of its numbers are counters."""
        self.index = index
        row = self.row(index)
        self.base = [row[at] if is_counter else 0 for at, is_counter in enumerate(counters)]

    def put(self, values: Iterable[int]) -> None:
        """Publish this worker's numbers."""
        row = self.row(self.index)
        for at, (base, value) in enumerate(zip(self.base, values, strict=True)):
            row[at] = base + value

    def end(self, index: int, counters: Iterable[bool]) -> None:
        """A worker is gone: it has no connections any more. Called by the parent."""
        row = self.row(index)
        for at, is_counter in enumerate(counters):
            if not is_counter:
                row[at] = 0

    def sums(self, count: int) -> list[int]:
        """The first count numbers, added up over the workers."""
        return [sum(self.row(index)[at] for index in range(self.workers)) for at in range(count)]

    def restarted(self) -> None:
        """Count a worker that was started again. Called by the parent."""
        self.row(self.workers)[0] += 1

    @property
    def restarts(self) -> int:
        """How many workers were started again."""
        return int(self.row(self.workers)[0])

    def row(self, index: int) -> memoryview:
        return self.numbers[index * ROW // 8 : (index + 1) * ROW // 8]
