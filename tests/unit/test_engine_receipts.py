"""Receipts that are forged, late, foreign or of the wrong shape."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine_language import FORGED, LONG, STALE, opened, split

from penstock.engine import InvalidError


def test_a_receipt_with_any_bit_flipped_is_forged(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"one", b"two"])
        group = queue.group()
        receipt = group.receive(1, lease_ms=LONG).receipts
        forged = b"".join(
            bytes(byte ^ (1 << bit % 8 if at == bit // 8 else 0) for at, byte in enumerate(receipt))
            for bit in range(192)
        )
        assert set(group.confirm(forged)) == {FORGED}
        assert set(group.release(forged)) == {FORGED}
        assert set(group.extend(forged, lease_ms=1)) == {FORGED}
        assert group.confirm(receipt) == b"\0"


def test_a_receipt_counts_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append(b"one")
        group = queue.group()
        receipt = group.receive(1, lease_ms=LONG).receipts
        assert group.confirm(receipt + receipt) == bytes([0, STALE])
        assert group.confirm(receipt) == bytes([STALE])
        assert group.release(receipt) == bytes([STALE])
        assert group.extend(receipt, lease_ms=LONG) == bytes([STALE])


def test_each_receipt_has_its_own_verdict(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue, other = store.queue("red"), store.queue("blue")
        queue.append_many([b"one", b"two", b"three"])
        other.append(b"four")
        late = queue.group().receive(1, lease_ms=0).receipts
        good = split(queue.group().receive(3, lease_ms=LONG).receipts)
        foreign = other.group().receive(1, lease_ms=LONG).receipts
        given = b"".join([good[2], bytes(24), late, foreign, good[0], good[1]])
        assert queue.group().confirm(given) == bytes([0, FORGED, STALE, 0, 0, 0])
        assert other.group().stat()["floor"] == 1
        assert queue.group().stat()["floor"] == 3


def test_a_receipt_of_another_store_is_forged(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        for store in (one, two):
            store.queue("red").append(b"x")
        receipt = one.queue("red").group().receive(1, lease_ms=LONG).receipts
        two.queue("red").group().receive(1, lease_ms=LONG)
        assert two.queue("red").group().confirm(receipt) == bytes([FORGED])


def test_a_receipt_of_a_deleted_queue_is_worth_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue("red").append(b"x")
        receipt = store.queue("red").group().receive(1, lease_ms=LONG).receipts
        store.delete("red")
        store.queue("red").append(b"y")
        store.queue("red").group().receive(1, lease_ms=LONG)
        assert store.queue("red").group().confirm(receipt)[0] in (STALE, FORGED)


@pytest.mark.parametrize("size", [0, 1, 23, 25])
def test_receipts_of_the_wrong_size_are_refused(size: int, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        group = store.queue("red").group()
        for act in (group.confirm, group.release, lambda r: group.extend(r, lease_ms=1)):
            with pytest.raises(InvalidError):
                act(bytes(size))
