"""A process is killed at each step of a compaction, and whoever goes on finds all of it."""

from __future__ import annotations

import shutil
from pathlib import Path

from compaction_language import flood, given_up, sound, used
from engine_language import SEGMENT, in_child, messages, opened, quiet

from penstock.engine._core import Compactor, Reclaimer


def kill_while_compacting(path: Path, stop: int) -> None:
    other = quiet(opened(path))
    given_up(other)
    other._fault(5, 9, stop)
    Compactor(other).compact()
    given_up(other)
    Reclaimer(other).shed()
    Compactor(other).retire(insist=True)
    other._fault(0, 0)


def test_a_process_killed_while_it_compacts_leaves_it_to_the_next(tmp_path: Path) -> None:
    killed = 0
    for stop in range(12):
        path = tmp_path / f"store{stop}"
        store = quiet(opened(path))
        flood(store, turns=12)
        wanted = messages(store.queue("slow"))
        store.queue("busy").purge()
        killed += in_child(kill_while_compacting, path, stop) == -9
        assert messages(store.queue("slow")) == wanted
        sound(store, tmp_path / f"copy{stop}")
        given_up(store)
        Compactor(store).compact()
        given_up(store)
        Reclaimer(store).shed()
        Compactor(store).retire()
        assert messages(store.queue("slow")) == wanted
        assert used(path) < 4 * SEGMENT
        sound(store, tmp_path / f"copy{stop}")
        store.close()
        shutil.rmtree(path)
    assert killed >= 6
