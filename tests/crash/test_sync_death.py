"""Who leads a sync dies with an error that nobody else is told: the bytes are written again.

Linux tells an error of write-back to whoever has the file open, once, and to nobody who opens it
after somebody was told. The page cache goes on to show what the disk never got.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import crashed, messages, opened, quiet, started
from power import SYNC, WRITE, Event, events

from penstock.engine import Store, StorePoisonedError
from penstock.engine._core import Lane

FAULT_SYNC = 2
SYNC_FAILED = 3      # the place between the error and its telling
WITHIN_S = 60


def dies_with_an_error(path: Path, body: bytes, trace: int) -> None:
    """Append; the sync fails, and the process dies before it has told anybody."""
    store = quiet(opened(path))
    store._trace(trace)
    queue = store.queue("red")
    lane = Lane(store)
    store._fault(FAULT_SYNC, errno.EIO)
    lane._hold(SYNC_FAILED, True)

    def die() -> None:
        while not lane._holding(SYNC_FAILED):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=die).start()
    queue.append(body)


class Survivor:
    """A store one of whose processes died so, and what the disk has of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = quiet(opened(path / "store"))
        self.store.queue("red").append(b"on disk")
        self.disk = crashed(self.store, path / "disk")
        self.file = os.open(path / "trace", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        died = started(dies_with_an_error, path / "store", b"perhaps", self.file)
        died.join(WITHIN_S)
        assert died.exitcode == -signal.SIGKILL
        self.lost = os.fstat(self.file).st_size
        assert self.lost and not self.store.stat()["poisoned"]
        self.late: Store | None = None

    def joined_late(self) -> Store:
        """A store opened now: the kernel tells it nothing of the error."""
        self.late = quiet(opened(self.path / "store"))
        self.late._trace(self.file)
        return self.late

    def since(self) -> list[Event]:
        """What was written and synced after the death; what was written before it is lost."""
        trace = (self.path / "trace").read_bytes()
        return [event for _, event in events(trace[self.lost:])]

    def after_a_power_cut(self) -> dict[int, bytes]:
        """What a store finds on the disk: the writes since the death that were synced."""
        unsynced: list[Event] = []
        for event in self.since():
            if event.kind == WRITE:
                unsynced.append(event)
            if event.kind == SYNC:
                with open(self.disk / "log" / f"{event.segment:08x}.seg", "r+b") as file:
                    for write in unsynced:
                        file.seek(write.byte)
                        file.write(write.data)
                unsynced.clear()
        with opened(self.disk) as store:
            return messages(store.queue("red"))

    def close(self) -> None:
        if self.late is not None:
            self.late.close()
        self.store.close()
        os.close(self.file)


@pytest.fixture
def survivor(tmp_path: Path) -> Iterator[Survivor]:
    found = Survivor(tmp_path)
    yield found
    found.close()


def test_who_opens_the_segment_later_proves_what_the_dead_one_wrote(survivor: Survivor) -> None:
    late = survivor.joined_late()
    assert late.queue("red").append(b"later").durability == "disk"
    shown = messages(late.queue("red"))
    assert shown == {0: b"on disk", 1: b"perhaps", 2: b"later"}
    assert survivor.after_a_power_cut() == shown


def test_who_only_flushes_proves_it_too(survivor: Survivor) -> None:
    late = survivor.joined_late()
    late._flush()
    assert messages(late.queue("red")) == {0: b"on disk", 1: b"perhaps"}
    assert survivor.after_a_power_cut() == {0: b"on disk", 1: b"perhaps"}


def test_a_doubt_is_settled_once(survivor: Survivor) -> None:
    late = survivor.joined_late()
    late.queue("red").append(b"later")
    survivor.store._trace(survivor.file)
    survivor.store.queue("red").append(b"again")
    later = quiet(opened(survivor.path / "store"))
    later._trace(survivor.file)
    later.queue("red").append(b"and again")
    later.close()
    assert [event.kind for event in survivor.since()] == [WRITE, WRITE, SYNC] + [WRITE, SYNC] * 2


def test_who_had_the_segment_open_is_told_by_the_kernel_and_writes_nothing_again(
    survivor: Survivor,
) -> None:
    survivor.store._trace(survivor.file)
    assert survivor.store.queue("red").append(b"later").offset == 2
    assert [event.kind for event in survivor.since()] == [WRITE, SYNC]


@pytest.mark.parametrize("part", ["a byte of", "all of"])
def test_what_the_page_cache_no_longer_has_is_lost_and_poisons(
    survivor: Survivor, part: str
) -> None:
    late = survivor.joined_late()
    durable, written = late.stat()["durable"], late.stat()["written"]
    path = survivor.path / "store" / "log" / f"{durable >> 32:08x}.seg"
    size = written - durable
    with open(path, "r+b") as file:
        file.seek((written if part == "a byte of" else durable) & 0xFFFFFFFF)
        if part == "a byte of":
            file.seek(file.tell() - size // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        else:
            file.write(bytes(size))
    with pytest.raises(StorePoisonedError):
        late.queue("red").append(b"later")
    assert survivor.store.stat()["poisoned"]
    assert messages(late.queue("red")) == {0: b"on disk"}
