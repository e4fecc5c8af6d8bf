"""What is given back wakes those who wait for its group, in every process, and nobody else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from penstock.engine import Store

sys.path.insert(0, str(Path(__file__).parent))
from server_inside import Doors, play

LEASE_MS = 600_000


@pytest.mark.parametrize("elsewhere", [False, True])
def test_only_the_group_is_woken(tmp_path: Path, elsewhere: bool) -> None:
    async def work(doors: Doors) -> None:
        queue = doors.store.queue("q")
        queue.append(b"x", durability="disk")
        groups = {name: queue.group(name) for name in ("", "a", "b")}
        taken = {name: group.receive(1, lease_ms=LEASE_MS) for name, group in groups.items()}
        other = Store.open(doors.store.path)
        doors.hub.on_ready()        # what was committed so far has woken whom it may
        waiting = {name: doors.hub.wait(queue.id, group.id, 60_000)
                   for name, group in groups.items()}
        by_zero = doors.hub.wait(queue.id, 0, 60_000)
        if elsewhere:
            other.queue("q").group("a").release(taken["a"].receipts, delay_ms=0)
        else:
            groups["a"].release(taken["a"].receipts, delay_ms=0)
        doors.hub.on_ready()
        assert {name: one.done() for name, one in waiting.items()} == {
            "": False, "a": True, "b": False}
        # The queue's own group has two names.
        groups[""].release(taken[""].receipts, delay_ms=0)
        doors.hub.released()
        assert waiting[""].done() and by_zero.done() and not waiting["b"].done()
        # A commit may concern anybody.
        queue.append(b"y", durability="disk")
        doors.hub.on_ready()
        assert waiting["b"].done()
        other.close()

    play(tmp_path / "s", work)


def test_more_releases_than_are_told_apart_wake_all(tmp_path: Path) -> None:
    async def work(doors: Doors) -> None:
        queue = doors.store.queue("q")
        queue.append_many([b"x"] * 100, durability="disk")
        group, other = queue.group("a"), queue.group("b")
        batch = group.receive(100, lease_ms=LEASE_MS)
        other.receive(100, lease_ms=LEASE_MS)
        doors.hub.on_ready()
        waiting = doors.hub.wait(queue.id, other.id, 60_000)
        for at in range(100):
            group.release(batch.receipts[24 * at:24 * at + 24], delay_ms=0)
        doors.hub.on_ready()
        assert waiting.done()

    play(tmp_path / "s", work)
