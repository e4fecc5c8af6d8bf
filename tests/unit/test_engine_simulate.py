"""What benchmarks simulate a huge queue with: the way to a message is the real one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from engine_language import opened, quiet
from penstock.engine._core import _look_up, _simulate

# Behind so many messages the tree of the index has one level more than behind a hundred million.
MANY = 200_000_000


def test_what_is_sent_behind_simulated_messages_is_found_and_nothing_else(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        queue, other = store.queue("huge"), store.queue("small")
        for at in (0, 1_000_064, MANY):
            _simulate(queue, at)
            assert queue.append_many([b"%d" % at, b"next"]).offset == at
            # The index goes on for others as well.
            assert other.append(b"beside").count == 1
        group = queue.group()
        for at in (MANY, 0, 1_000_064):
            group.seek(offset=at)
            batch = group.receive(2)
            assert batch.tolist() == [b"%d" % at, b"next"] and batch.offsets[0] == at
        found = np.array([0, 1, 1_000_064, 1_000_065, MANY, MANY + 1], np.uint64)
        assert _look_up(queue, found) == len(found)
        nothing = np.array([2, 1_000_063, 1_000_066, MANY - 1, MANY + 2], np.uint64)
        assert _look_up(queue, nothing) == 0
        assert other.stat()["next"] == 3


def test_a_queue_does_not_go_back(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        queue = store.queue("red")
        queue.append_many([b"x"] * 300)
        _simulate(queue, 100)
        assert queue.append(b"y").offset == 300
