"""Receipts as one number: the same in every process, refused when late or made up."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from engine_language import LONG, opened, split

from penstock.engine import QueueNotFoundError
from penstock.engine._core import short_receipts, whole_receipts


def test_a_number_stands_for_its_receipt(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"%d" % at for at in range(1000)])
        group = queue.group()
        receipts = split(group.receive(1000, lease_ms=LONG).receipts)
        numbers = short_receipts(b"".join(receipts))
        assert len(set(numbers)) == 1000 and all(0 <= number < 1 << 63 for number in numbers)
        assert whole_receipts(group, numbers) == receipts
        assert group.confirm(b"".join(whole_receipts(group, numbers[::2]))) == bytes(500)
        assert whole_receipts(group, numbers) == [
            None if at % 2 == 0 else receipt for at, receipt in enumerate(receipts)]


def test_what_is_late_or_made_up_stands_for_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue, other = store.queue("red"), store.queue("blue")
        queue.append_many([b"one", b"two"])
        other.append_many([b"one", b"two"])
        group = queue.group()
        late = short_receipts(group.receive(2, lease_ms=0).receipts)
        good = short_receipts(group.receive(2, lease_ms=LONG).receipts)
        other.group().receive(2, lease_ms=LONG)
        assert not set(late) & set(good)
        assert whole_receipts(group, late) == [None, None]
        assert whole_receipts(other.group(), good) == [None, None]
        assert whole_receipts(queue.group("else"), good) == [None, None]
        flipped = [number ^ 1 << bit for number in good for bit in range(64)]
        assert whole_receipts(group, flipped) == [None] * 128
        assert whole_receipts(group, [-1, 1 << 63, 1 << 64, 1 << 200]) == [None] * 4
        rolled = random.Random(1)
        invented = [rolled.getrandbits(63) for _ in range(10000)]
        assert whole_receipts(group, invented) == [None] * 10000
        with pytest.raises(TypeError):
            whole_receipts(group, ["1"])
        assert group.confirm(b"".join(whole_receipts(group, good))) == bytes(2)
        store.delete("red")
        with pytest.raises(QueueNotFoundError):
            whole_receipts(group, good)


def test_a_number_is_known_to_every_process_with_the_store_open(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, opened(tmp_path / "store") as again:
        store.queue("red").append(b"one")
        number = short_receipts(store.queue("red").group().receive(1, lease_ms=LONG).receipts)
        group = again.queue("red").group()
        assert group.confirm(b"".join(whole_receipts(group, number))) == b"\0"
    with opened(tmp_path / "store") as store:
        assert whole_receipts(store.queue("red").group(), number) == [None]
