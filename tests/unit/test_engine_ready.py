"""Log that is made ahead of need."""

from __future__ import annotations

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
