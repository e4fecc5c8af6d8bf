"""A rule of safety that is broken on purpose."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """old stands exactly once in file; with new instead, one of tests must fail."""

    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
