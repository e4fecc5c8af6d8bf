"""Pages of the log that cannot be read: their map raises SIGBUS, here as the file was cut."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from pathlib import Path

import pytest
from engine_language import SEGMENT, crashed, deliveries, in_child, messages, opened, quiet
from stepping import may_step, signals

from penstock.engine import CorruptionError

BODY = 100_000
WHOLE = 3
CUT = 4096 + WHOLE * (BODY + 4096)


def stored(path: Path) -> Path:
    """A crashed store with eight messages of 100,000 bytes in its first segment."""
    with quiet(opened(path / "store")) as store:
        queue = store.queue("q")
        for number in range(8):
            queue.append(b"%d" % number * BODY)
        return crashed(store, path / "crashed")


def test_messages_on_unreadable_pages_are_damaged_and_the_others_served(tmp_path: Path) -> None:
    path = stored(tmp_path)

    def work() -> None:
        with quiet(opened(path)) as store:
            # One that was never looked at, so that no page of it is in memory.
            queue = store.queue("q")
            os.truncate(path / "log" / "00000001.seg", CUT)
            assert list(messages(queue)) == list(range(WHOLE))
            assert list(deliveries(queue.group())) == list(range(WHOLE))
            assert store.stat()["corrupt"] >= 8 - WHOLE
            assert queue.append(b"goes on").offset == 8
            assert deliveries(queue.group()) == {8: b"goes on"}

    assert in_child(work) == 0


def test_a_store_whose_log_cannot_be_read_to_its_end_is_refused(tmp_path: Path) -> None:
    path = stored(tmp_path)

    def work() -> None:
        with quiet(opened(path)) as store:
            store.checkpoint()
            left = crashed(store, tmp_path / "left")
        os.truncate(left / "log" / "00000001.seg", CUT)
        for name in (left / "ckpt").iterdir():
            name.unlink()
        with pytest.raises(CorruptionError):
            opened(left)

    assert in_child(work) == 0


@pytest.mark.skipif(not may_step(), reason="this machine lets nobody see a child's signals")
def test_a_page_that_cannot_be_read_is_not_tried_word_by_word(tmp_path: Path) -> None:
    path = stored(tmp_path)
    os.truncate(path / "log" / "00000001.seg", CUT)

    def work() -> None:
        with contextlib.suppress(CorruptionError):
            opened(path).close()

    # Two looks behind the end, each at a page and once more to see that it cannot be read.
    most = 4 * (SEGMENT - CUT) // 4096 + 100
    assert (SEGMENT - CUT) // 4096 <= signals(work, signal.SIGBUS, most) <= most


def test_a_bus_error_of_the_program_is_not_ours(tmp_path: Path) -> None:
    def work() -> None:
        faulthandler.disable()
        with quiet(opened(tmp_path / "store")):
            os.kill(os.getpid(), signal.SIGBUS)
            os.kill(os.getpid(), signal.SIGBUS)

    assert in_child(work) == -signal.SIGBUS
