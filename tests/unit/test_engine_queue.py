"""Appending and reading: offsets, durability, limits, times, producers, many segments."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from engine_language import crashed, in_child, messages, opened, quiet

from penstock.engine import InvalidError, TooLargeError

FORGOTTEN = 2**64 - 1
REMEMBERED = 1024


def test_a_receipt_says_where_and_how_well_a_message_is_stored(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        queue = store.queue("red")
        one = queue.append(b"one")
        assert (one.queue, one.offset, one.count) == (queue.id, 0, 1)
        assert (one.durability, one.duplicate) == ("disk", False)
        two = queue.append(b"two", durability="kernel")
        assert (two.offset, two.durability) == (1, "kernel")
        assert one.id != two.id
        assert store.stat()["durable"] < store.stat()["written"]
        assert messages(queue) == {0: b"one"}
        store._flush()
        assert messages(queue) == {0: b"one", 1: b"two"}
        assert store.stat()["durable"] == store.stat()["written"]


def test_the_default_durability_is_that_of_the_store(tmp_path: Path) -> None:
    with opened(tmp_path / "store", durability="kernel") as store:
        assert store.queue("red").append(b"x").durability == "kernel"
        assert store.queue("red").append(b"x", durability="disk").durability == "disk"


@pytest.mark.parametrize("body", [b"b", bytearray(b"b"), memoryview(b"b"), np.zeros(4, np.uint8)])
def test_any_buffer_is_a_body(body: bytes, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue("red").append(body)
        assert messages(store.queue("red")) == {0: bytes(body)}


def test_a_packed_batch_is_one_operation(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        frames = store.stat()["frames"]
        receipt = queue.append_packed(b"onetwothree", np.array([3, 3, 0, 5], np.uint32))
        assert (receipt.offset, receipt.count) == (0, 4)
        assert store.stat()["frames"] == frames + 1
        assert list(messages(queue).values()) == [b"one", b"two", b"", b"three"]
        for bodies, sizes in ((b"one", [2]), (b"one", [4]), (b"", [])):
            with pytest.raises(InvalidError):
                queue.append_packed(bodies, sizes)
        with pytest.raises(InvalidError):
            queue.append_many([])


def test_what_is_over_a_limit_is_refused_and_leaves_no_trace(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        with pytest.raises(TooLargeError):
            queue.append(bytes(1 << 20))
        with pytest.raises(TooLargeError):
            queue.append(b"x", ext=bytes(65536))
        with pytest.raises(TooLargeError):
            queue.append_many([bytes(300_000)] * 2)
        assert queue.append(bytes(500_000), ext=bytes(1000)).offset == 0


def test_reading_begins_where_it_is_told_and_ends_at_its_limits(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"%03d" % at for at in range(300)])
        assert queue.read(offset=290).offsets.tolist() == list(range(290, 300))
        assert len(queue.read(offset=300)) == len(queue.read(offset=10**12)) == 0
        assert len(queue.read(max_messages=7)) == 7
        few = queue.read(max_bytes=1000)
        assert 0 < len(few) < 30
        assert len(queue.read(max_bytes=1)) == 1


def test_reading_begins_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        for at in range(20):
            queue.append(b"%d" % at)
        times = queue.read().timestamps.tolist()
        for at, stored_us in enumerate(times):
            expected = times.index(stored_us)
            assert queue.offset_at(stored_us) == expected, at
            assert queue.read(time_us=stored_us).offsets[0] == expected
        assert queue.offset_at(0) == 0
        assert queue.offset_at(times[-1] + 1) == 20
        assert (queue.offset_at(-1), queue.offset_at(1 << 64)) == (0, 20)
        assert abs(times[0] - time.time_ns() // 1000) < 60_000_000


def test_a_log_of_many_segments_is_one_log(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        for number in range(12):
            queue.append_many([b"%x" % number * 1000] * 300, durability="kernel")
        queue.append(b"last")
        assert store.stat()["segments"] >= 4
        copy = crashed(store, tmp_path / "copy")
        expected = messages(queue)
        assert len(expected) == 3601 and expected[3600] == b"last"
    for path in (tmp_path / "store", copy):
        with opened(path) as store:
            assert messages(store.queue("red")) == expected
            assert store.queue("red").append(b"more").offset == 3601


def test_a_producers_number_is_stored_once(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        first = queue.append(b"a", producer=7, sequence=1)
        again = queue.append(b"a", producer=7, sequence=1)
        assert (again.offset, again.duplicate, first.duplicate) == (0, True, False)
        assert not queue.append(b"b", producer=8, sequence=1).duplicate
        batch = queue.append_many([b"c", b"d"], producer=7, sequence=2)
        assert (batch.offset, batch.count) == (2, 2)
        repeated = queue.append_many([b"c", b"d"], producer=7, sequence=2)
        assert (repeated.offset, repeated.duplicate) == (2, True)
        assert list(messages(queue).values()) == [b"a", b"b", b"c", b"d"]


def test_the_last_numbers_of_a_producer_keep_their_offsets(tmp_path: Path) -> None:
    last = REMEMBERED + 200
    with opened(tmp_path / "store", durability="kernel") as store:
        queue = store.queue("red")
        for sequence in range(1, last + 1):
            queue.append(b"x", producer=7, sequence=sequence)
        for sequence in (201, last):
            receipt = queue.append(b"x", producer=7, sequence=sequence)
            assert (receipt.duplicate, receipt.offset) == (True, sequence - 1)
        for sequence in (1, 200):
            receipt = queue.append(b"x", producer=7, sequence=sequence)
            assert (receipt.duplicate, receipt.offset) == (True, FORGOTTEN)
        assert queue.stat()["next"] == last


@pytest.mark.parametrize("how", ["closed", "crashed", "checkpointed and crashed", "killed"])
def test_a_producers_numbers_outlive_the_store(how: str, tmp_path: Path) -> None:
    def work() -> None:
        quiet(opened(path)).queue("red").append(b"b", producer=7, sequence=2)

    path = tmp_path / "store"
    with quiet(opened(path)) as store:
        store.queue("red").append(b"a", producer=7, sequence=1)
        if how == "checkpointed and crashed":
            store.checkpoint()
        if how == "killed":
            assert in_child(work) == 0
        else:
            store.queue("red").append(b"b", producer=7, sequence=2)
        if how != "closed":
            path = crashed(store, tmp_path / "copy")
    with opened(path) as store:
        queue = store.queue("red")
        for sequence in (1, 2):
            receipt = queue.append(b"again", producer=7, sequence=sequence)
            assert (receipt.duplicate, receipt.offset) == (True, sequence - 1)
        assert queue.append(b"c", producer=7, sequence=3).offset == 2
