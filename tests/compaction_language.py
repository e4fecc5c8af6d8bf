"""The words in which tests of compaction speak: sparse segments, and what must be true of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from engine_language import crashed, messages, opened, quiet

from penstock.engine import Store
from penstock.engine._core import Compactor, Reclaimer
from penstock.engine.check import check
from penstock.engine.reclaim import save


def flood(store: Store, *, turns: int = 12, slow: str = "slow", busy: str = "busy") -> None:
    """A queue of which one message comes for each twenty of another."""
    for number in range(turns):
        store._prepare()
        store.queue(slow).append(b"%d" % number * 1000, durability="kernel")
        store.queue(busy).append_many([b"x" * 15000] * 20, durability="kernel")
    store._flush()


def given_up(store: Store) -> None:
    """Give up what was purged, and let checkpoints know of it."""
    steps = Reclaimer(store)
    while not steps.give_up():
        pass
    for _ in range(2):
        steps.mark()
        save(store)
    steps.recycle()


def compacted(store: Store, share: int = 30) -> dict[str, Any]:
    """Compact, and use again what was copied; what was copied."""
    given_up(store)
    found = Compactor(store).compact(share)
    assert found is not None
    given_up(store)
    Reclaimer(store).shed()
    assert Compactor(store).retire() is not None
    return found


def used(path: Path | str) -> int:
    """What a store's log takes: segments that were written to, and cold files."""
    root = Path(path)
    total = sum(file.stat().st_size for file in root.glob("cold/*.cold"))
    for file in root.glob("log/*.seg"):
        with open(file, "rb") as segment:
            total += file.stat().st_size if segment.read(8) != bytes(8) else 0
    return total


def sound(store: Store, to: Path) -> None:
    """The store, a crash of it and its next life hold the same, and check finds nothing."""
    held = {name: messages(store.queue(name)) for name in store.queues()}
    assert check(store.path).problems == []
    assert store.stat()["corrupt"] == 0
    copy = crashed(store, to)
    assert check(copy).problems == []
    with quiet(opened(copy)) as again:
        assert {name: messages(again.queue(name)) for name in again.queues()} == held
        assert again.stat()["corrupt"] == 0
    assert check(copy).problems == []
    with quiet(opened(copy)) as again:
        assert {name: messages(again.queue(name)) for name in again.queues()} == held
    shutil.rmtree(copy)
