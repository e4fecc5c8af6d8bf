"""Log that is made ahead of need."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import pytest

from penstock.engine import InvalidError, Store


def test_log_is_made_ready_while_little_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path, segment_size=1 << 20, ready=(5 << 20) + 1) as store:
        end = time.monotonic() + 60
        while store.stat()["ready"] < 6 << 20:
            assert time.monotonic() < end
            time.sleep(0.01)
        assert len(os.listdir(tmp_path / "log")) == 7
    with pytest.raises(InvalidError, match="ready is a number of bytes"):
        Store.open(tmp_path, ready=-1)


def test_no_log_is_made_ready_while_much_is_written(tmp_path: Path) -> None:
    with Store.open(tmp_path, segment_size=64 << 20, ready=0) as store:
        keeper = store._maintenance()
        keeper.stop()
        keeper.ready = 1 << 30
        keeper.busy = 0.0
        assert keeper.ahead() == store.stat()["ready"] // store.segment_size + 1 and keeper.short
        store.queue("red").append(bytes(2 << 20))
        assert keeper.ahead() == 1 and not keeper.short


def resident(path: Path, start: int, end: int) -> bool:
    """Whether these bytes of a file are in memory."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        pages = (ctypes.c_ubyte * ((end - start) // mmap.PAGESIZE))()
        first = ctypes.addressof(ctypes.c_char.from_buffer(mapped, start))
        assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), end - start, pages) == 0
        return all(pages)


def test_the_index_of_a_store_that_grows_has_its_next_pages_ahead_of_need(tmp_path: Path) -> None:
    path = tmp_path / "index"
    with Store.open(tmp_path, segment_size=64 << 20) as store:
        store._maintenance().stop()
        queue = store.queue("red")
        for _ in range(2):
            queue.append_many([b""] * 100_000, durability="kernel")
            size = path.stat().st_size
            store._rest(0)
        used = (store.stat()["index_pages"] + 1) * mmap.PAGESIZE
        assert used < size < used + used // 2 <= path.stat().st_size
        assert resident(path, used, used + used // 2 // mmap.PAGESIZE * mmap.PAGESIZE)
        size = path.stat().st_size
        store._rest(0)
        queue.append(b"")
        store._rest(0)
        assert path.stat().st_size == size
