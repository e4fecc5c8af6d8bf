"""A disk that fails or is full: who is told, what goes on, and what a new opening finds."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from engine_language import (
    LONG,
    crashed,
    deliveries,
    in_child,
    messages,
    opened,
    quiet,
    split,
    started,
)

from penstock.engine import QueueNotFoundError, Store, StoreFullError, StorePoisonedError

WRITE, SYNC, SEGMENT_CREATION, WRITE_BACK = 1, 2, 3, 6


@pytest.mark.parametrize("kind", [WRITE, SYNC])
@pytest.mark.parametrize("act", ["append", "append_many", "batch", "confirm", "queue", "seek"])
def test_a_failed_write_or_sync_poisons_whatever_met_it(
    kind: int, act: str, tmp_path: Path
) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append_many([b"one", b"two"])
    group = queue.group()
    batch = group.receive(1, lease_ms=LONG)

    def atomic() -> None:
        with store.batch() as together:
            together.append(queue, b"lost")

    acts: dict[str, Callable[[], object]] = {
        "append": lambda: queue.append(b"lost"),
        "append_many": lambda: queue.append_many([b"lost", b"lost"]),
        "batch": atomic,
        "confirm": lambda: group.confirm(batch.receipts),
        "queue": lambda: store.queue("new"),
        "seek": lambda: group.seek(offset=0),
    }
    store._fault(kind, errno.EIO)
    with pytest.raises(StorePoisonedError):
        acts[act]()
    store._fault(0, 0)
    for name, other in acts.items():
        # A confirmation that failed took its lease along: it is stale, and never "done".
        if name == "confirm" and act in ("confirm", "seek"):
            continue
        with pytest.raises(StorePoisonedError):
            other()
    with pytest.raises(StorePoisonedError):
        group.receive(1)
    assert store.stat()["poisoned"]
    assert messages(queue) == {0: b"one", 1: b"two"}
    assert batch.tolist() == [b"one"]
    store.close()
    with opened(tmp_path / "store") as again:
        found = messages(again.queue("red"))
        assert found[0] == b"one" and found[1] == b"two"
        assert again.queue("red").append(b"three").durability == "disk"


def test_what_was_written_but_not_synced_is_not_shown(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append(b"on disk")
    store._fault(SYNC, errno.EIO)
    with pytest.raises(StorePoisonedError):
        queue.append(b"who knows")
    assert messages(queue) == {0: b"on disk"}
    assert queue.stat()["visible"] == 1
    store.close()


def test_everybody_in_the_failed_group_is_told(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    stored: list[int] = []
    told: list[int] = []

    def work(number: int) -> None:
        for _ in range(1000):
            try:
                stored.append(queue.append(b"%d" % number).offset)
            except StorePoisonedError:
                told.append(number)
                return

    store._fault(SYNC, errno.EIO, 50)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == list(range(8))
    assert set(stored) <= set(messages(queue))
    store.close()
    with opened(tmp_path / "store") as again:
        assert set(stored) <= set(messages(again.queue("red")))


def test_the_other_processes_learn_that_the_store_is_poisoned(tmp_path: Path) -> None:
    def use(path: Path) -> None:
        with pytest.raises(StorePoisonedError):
            opened(path).queue("red").append(b"no")

    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    store._fault(SYNC, errno.EIO)
    with pytest.raises(StorePoisonedError):
        queue.append(b"lost")
    assert in_child(use, tmp_path / "store") == 0
    store.close()


def filled(store: Store) -> int:
    """Fill the segment under way while the next cannot be made; how many were stored before."""
    count = 0
    store._prepare()
    while store.stat()["segments"] < 3:
        store.queue("red").append(bytes(30_000), durability="kernel")
        store._prepare()
        count += 1
    store._fault(SEGMENT_CREATION, errno.ENOSPC)
    while (store.stat()["written"] >> 32) < store.stat()["segments"]:
        store.queue("red").append(bytes(30_000), durability="kernel")
        count += 1
    store._prepare()
    return count


def test_a_full_disk_refuses_appends_and_nothing_else(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    count = filled(store)
    store._flush()
    with pytest.raises(StoreFullError) as told:
        queue.append(b"no room")
    assert told.value.errno == errno.ENOSPC
    assert len(messages(queue)) == count
    batch = queue.group().receive(10, lease_ms=LONG)
    assert set(queue.group().confirm(batch.receipts)) == {0}
    again = queue.group().receive(1, lease_ms=LONG)
    assert queue.group().release(again.receipts) == b"\0"
    store._fault(0, 0)
    assert store._prepare()
    assert queue.append(b"room again").offset == count
    store.close()
    with opened(tmp_path / "store") as later:
        assert len(messages(later.queue("red"))) == count + 1
        assert min(deliveries(later.queue("red").group())) == 10


def test_a_full_disk_never_confirms_in_memory_what_is_not_in_the_log(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    filled(store)
    store._flush()
    refused = 0
    for _ in range(200_000):
        batch = queue.group().receive(1, lease_ms=LONG)
        if not len(batch):
            # Another group has the same messages to confirm.
            queue.group().seek(offset=0)
            continue
        try:
            queue.group().confirm(batch.receipts)
        except StoreFullError:
            refused = int(batch.offsets[0])
            break
    copy = crashed(store, tmp_path / "copy")
    floor = queue.group().stat()["floor"]
    assert floor <= refused
    store.close()
    with opened(copy) as again:
        assert refused in deliveries(again.queue("red").group())


def killed_inside_the_write(act: Callable[[Store], None], path: Path) -> int | str:
    """Do the act in a process that the kernel kills in the middle of its pwrite, locks held."""

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        store = quiet(opened(path))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        act(store)

    return in_child(work)


def test_a_process_killed_inside_the_write_harms_nobody(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append(b"before")

    def append(other: Store) -> None:
        other.queue("red").append(b"never", producer=7, sequence=1)

    assert killed_inside_the_write(append, tmp_path / "store") == -signal.SIGXFSZ
    receipt = queue.append(b"after", producer=7, sequence=1)
    assert (receipt.offset, receipt.duplicate) == (1, False)
    assert messages(queue) == {0: b"before", 1: b"after"}
    copy = crashed(store, tmp_path / "copy")
    store.close()
    with opened(copy) as again:
        assert messages(again.queue("red")) == {0: b"before", 1: b"after"}


def test_a_queue_that_was_never_written_does_not_exist_for_others(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    store.queue("red").append(b"before")

    def create(other: Store) -> None:
        other.queue("ghost")

    assert killed_inside_the_write(create, tmp_path / "store") == -signal.SIGXFSZ
    store.queue("red").append(b"the next one takes the lock")
    with pytest.raises(QueueNotFoundError):
        store.queue("ghost", create=False)
    store.queue("ghost").append(b"acknowledged")
    copy = crashed(store, tmp_path / "copy")
    store.close()
    with opened(copy) as again:
        assert messages(again.queue("ghost")) == {0: b"acknowledged"}


def test_a_group_that_was_never_written_does_not_exist_for_others(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append_many([b"one", b"two"])

    def create(other: Store) -> None:
        other.queue("red").group("ghost")

    assert killed_inside_the_write(create, tmp_path / "store") == -signal.SIGXFSZ
    queue.append(b"the next one takes the lock")
    group = queue.group("ghost")
    assert set(group.confirm(group.receive(2, lease_ms=LONG).receipts)) == {0}
    copy = crashed(store, tmp_path / "copy")
    store.close()
    with opened(copy) as again:
        assert set(deliveries(again.queue("red").group("ghost"))) == {2}


def test_a_process_killed_while_it_confirms_leaves_the_message_to_others(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append_many([b"one", b"two"])
    receipts = split(queue.group().receive(2, lease_ms=LONG).receipts)

    def confirm(other: Store) -> None:
        other.queue("red").group().confirm(receipts[0])

    assert killed_inside_the_write(confirm, tmp_path / "store") == -signal.SIGXFSZ
    copy = crashed(store, tmp_path / "copy")
    assert queue.group().confirm(receipts[1]) == b"\0"
    store.close()
    with opened(copy) as again:
        assert set(deliveries(again.queue("red").group())) == {0, 1}


def test_an_opener_killed_while_it_recovers_leaves_the_store_to_the_next(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue("red").append(b"kept")
        copy = crashed(store, tmp_path / "copy")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        opened(copy)

    process = started(work)
    process.join(20)
    assert process.exitcode != 0
    with opened(copy) as again:
        assert messages(again.queue("red")) == {0: b"kept"}


def test_an_index_that_could_not_be_written_back_is_never_the_ground_of_a_checkpoint(
    tmp_path: Path,
) -> None:
    """The kernel tells of a failed write-back once: a sync after it succeeds and proves nothing."""
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    queue.append_many([b"one", b"two"])
    before = sorted((tmp_path / "store" / "ckpt").iterdir())
    store._fault(WRITE_BACK, errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        store.checkpoint()
    store._fault(0, 0)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        store.checkpoint()
    assert sorted((tmp_path / "store" / "ckpt").iterdir()) == before
    assert queue.append(b"three").offset == 2
    with opened(crashed(store, tmp_path / "copy")) as later:
        assert list(messages(later.queue("red")).values()) == [b"one", b"two", b"three"]
        later.checkpoint()
