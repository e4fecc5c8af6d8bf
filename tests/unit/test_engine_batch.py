"""Several messages at once: read, written, atomic, and by several threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from engine_language import crashed, in_child, messages, opened, quiet

from penstock.engine import QueueNotFoundError, TooLargeError
from penstock.engine.store import ENTRY


def test_a_batch_is_arrays_and_views(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        bodies = [b"", b"a", b"bb" * 4000, bytes(range(256))]
        queue.append(bodies[0], ext=b"e0")
        queue.append_many(bodies[1:])
        batch = queue.read()
        assert len(batch) == 4
        assert batch.tolist() == bodies == [bytes(view) for view in batch]
        assert batch.offsets.tolist() == [0, 1, 2, 3] and batch.offsets.dtype == np.uint64
        assert batch.sizes.tolist() == list(map(len, bodies)) and batch.sizes.dtype == np.uint32
        assert (np.diff(batch.timestamps.astype(np.int64)) >= 0).all()
        assert batch.attempts.tolist() == [0] * 4
        assert bytes(batch[-1]) == bodies[-1] and [bytes(v) for v in batch[1:3]] == bodies[1:3]
        assert batch.ext(0) == b"e0" and batch.ext(1) == b""
        for outside in (4, -5):
            with pytest.raises(IndexError):
                batch[outside]
        with pytest.raises(IndexError):
            batch.ext(4)


def test_a_view_cannot_be_written_and_outlives_batch_and_store(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    queue = store.queue("red")
    queue.append(b"still here")
    view = queue.read()[0]
    assert view.readonly
    store.close()
    del store, queue
    assert bytes(view) == b"still here"


def test_an_atomic_batch_is_stored_when_its_block_ends(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        red, blue = store.queue("red"), store.queue("blue")
        with store.batch() as together:
            together.append(red, b"one", ext=b"e")
            together.append(blue, b"two")
            together.append(red, b"three")
            assert messages(red) == {}
        assert [(r.queue, r.offset, r.durability) for r in together.receipts] == [
            (red.id, 0, "disk"),
            (blue.id, 0, "disk"),
            (red.id, 1, "disk"),
        ]
        assert messages(red) == {0: b"one", 1: b"three"} and messages(blue) == {0: b"two"}
        assert red.read().ext(0) == b"e"


def test_an_atomic_batch_that_fails_stores_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        red, blue = store.queue("red"), store.queue("blue")
        with pytest.raises(KeyError), store.batch() as together:
            together.append(red, b"one")
            raise KeyError
        store.delete("blue")
        with pytest.raises(QueueNotFoundError), store.batch() as together:
            together.append(red, b"one")
            together.append(blue, b"two")
        with pytest.raises(TooLargeError), store.batch() as together:
            for _ in range(3):
                together.append(red, bytes(300_000))
        assert messages(red) == {}
        with store.batch():
            pass


def test_an_atomic_batch_is_whole_or_absent_after_a_crash(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        red, blue = store.queue("red"), store.queue("blue")
        for _ in range(3):
            with store.batch() as together:
                together.append(red, b"r" * 5000)
                together.append(blue, b"b" * 5000)
        copy = crashed(store, tmp_path / "copy")
    log = copy / "log" / "00000001.seg"
    data = log.read_bytes()
    end = len(data.rstrip(b"\0"))
    # The tail of the last frame never reached the disk.
    log.write_bytes(data[: end - 2000] + bytes(len(data) - end + 2000))
    with opened(copy) as store:
        assert len(messages(store.queue("red"))) == len(messages(store.queue("blue"))) == 2


def batch_in_threads(path: Path) -> None:
    with opened(path) as store:
        red, blue = store.queue("red"), store.queue("blue")

        def work() -> None:
            for _ in range(200):
                with store.batch() as together:
                    together.append(red, b"r")
                    together.append(blue, b"b")

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(messages(red)) == len(messages(blue)) == 1200


def test_atomic_batches_of_several_threads_do_not_block_one_another(tmp_path: Path) -> None:
    assert in_child(batch_in_threads, tmp_path / "store") == 0


def test_threads_append_side_by_side(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        receipts: list[tuple[int, bytes]] = []

        def work(number: int) -> None:
            for at in range(300):
                body = b"%d:%d" % (number, at)
                receipts.append((queue.append(body).offset, body))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert messages(queue) == dict(receipts)
        assert len(receipts) == 2400
        # Group commit: they share their syncs.
        assert store.stat()["fsyncs"] < 2400


def test_a_waiting_receiver_lets_the_other_threads_run(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        found: list[bytes] = []
        thread = threading.Thread(
            target=lambda: found.extend(queue.group().receive(1, wait_ms=20_000).tolist())
        )
        start = time.monotonic()
        thread.start()
        queue.append(b"wake up")
        thread.join()
        assert found == [b"wake up"]
        assert time.monotonic() - start < 5


def test_the_index_is_a_view_of_what_is_visible(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"x" * at for at in range(300)])
        entries = queue.index(0, 300)
        assert entries.dtype == ENTRY and len(entries) == 300
        assert (np.diff(entries["position"].astype(np.int64)) > 0).all()
        assert entries["stored_us"].tolist() == queue.read().timestamps.tolist()
        chunks = queue.index_chunks(100, 300)
        assert [len(chunk) for chunk in chunks] == [28, 128, 44]
        assert not any(chunk.flags.writeable for chunk in chunks)
        assert len(queue.index(200, 100)) == len(queue.index(300, 400)) == 0
        assert len(queue.index(290, 400)) == 10


def test_a_batch_into_a_queue_that_is_deleted_meanwhile_is_stored_nowhere(tmp_path: Path) -> None:
    stored = refused = 0
    ended = threading.Event()
    with quiet(opened(tmp_path / "store")) as store:
        kept = store.queue("kept")

        def churn() -> None:
            while not ended.is_set():
                store.queue("churned")
                store.delete("churned")

        churner = threading.Thread(target=churn)
        churner.start()
        try:
            for _ in range(1000):
                churned = store.queue("churned")
                try:
                    with store.batch() as batch:
                        batch.append(kept, b"both")
                        batch.append(churned, b"both")
                    stored += 1
                except QueueNotFoundError:
                    refused += 1
        finally:
            ended.set()
            churner.join()
        assert len(messages(kept)) == stored
        assert refused
