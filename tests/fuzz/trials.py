"""The executions of a fuzz test, which all say how many they were."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from mutation import Mutator

DONE: list[tuple[str, int, float, int]] = []


class Trials:
    """The executions of one test."""

    def __init__(self, name: str, seconds: float, seed: int) -> None:
        self.name = name
        self.seconds = seconds
        self.seed = seed

    def mutants(self, corpus: Sequence[bytes], short: int) -> Iterator[bytes]:
        """The corpus itself, then mutants of it: short of them, or for as long as was asked."""
        mutator = Mutator(self.seed, corpus)
        for number in self.numbers(len(corpus) + short):
            yield corpus[number] if number < len(corpus) else mutator.mutant()

    def numbers(self, short: int) -> Iterator[int]:
        """0, 1, 2, …: short of them, or for as long as was asked."""
        began = time.monotonic()
        count = 0
        try:
            while count < short or (self.seconds and time.monotonic() - began < self.seconds):
                yield count
                count += 1
        finally:
            DONE.append((self.name, count, time.monotonic() - began, self.seed))
