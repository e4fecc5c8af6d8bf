"""What each segment is still needed for: counted as it changes, and never too low."""

from __future__ import annotations

import signal
from collections import Counter
from pathlib import Path

import pytest
from engine_language import crashed, in_child, messages, opened, quiet

from penstock.engine import EngineError, Store
from penstock.engine._core import Reclaimer
from penstock.engine.check_fold import RECORD
from penstock.engine.reclaim import forget_checkpoints, keep

PLACED = 0xFFFFFFFF


def wanted(store: Store) -> dict[int, int]:
    """The bytes needed of each segment, counted anew from the index and the log."""
    store._flush()
    found: Counter[int] = Counter()
    for name in store.queues():
        queue = store.queue(name)
        for entry in queue.index(queue.stat()["reclaimed"]):
            segment, byte = int(entry["position"]) >> 32, int(entry["position"]) & 0xFFFFFFFF
            if not entry["position"]:
                continue
            if entry["spare"] != PLACED:
                found[segment] += int(entry["size"])
                continue
            with open(Path(store.path, "log", f"{segment:08x}.seg"), "rb") as file:
                file.seek(byte)
                raw = file.read(56)
            found[segment] += 48 + RECORD.unpack_from(raw)[0] + 7 & ~7
            found[int.from_bytes(raw[48:56], "little") >> 32] += int(entry["size"])
    return dict(found)


def counted(store: Store) -> dict[int, int]:
    return {number: live[0] for number, live in Reclaimer(store).live().items() if live[0]}


def given_up(store: Store) -> dict[int, int]:
    """What is counted once everything purged was given up."""
    while not Reclaimer(store).give_up(1000):
        pass
    return counted(store)


def fill(store: Store, name: str, size: int = 9000, count: int = 300) -> None:
    for _ in range(count // 10):
        store._prepare()
        store.queue(name).append_many([bytes(size)] * 10, durability="kernel")


def test_what_is_stored_is_counted_in_its_segment(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    fill(store, "blue", 100, 1000)
    assert len(counted(store)) > 2
    assert counted(store) == wanted(store)
    store.close()


def test_what_is_purged_is_given_up(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    fill(store, "blue", 100, 1000)
    store.queue("red").purge()
    assert given_up(store) == wanted(store)
    assert store.queue("red").stat()["reclaimed"] == 300
    assert store.queue("red").stat()["bytes"] == 0
    store.queue("blue").purge()
    assert given_up(store) == {}
    dead = [number for number, (_, first, _) in Reclaimer(store).live().items() if first]
    assert dead == list(range(1, store.stat()["written"] >> 32))
    store.close()


def test_a_deleted_queue_is_given_up_and_its_slot_comes_back(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 20, 1000)
    fill(store, "blue", 20, 1000)
    slot = store.queue("red").id
    pages = store.stat()["index_pages"]
    store.delete("red")
    assert given_up(store) == wanted(store)
    assert store.stat()["index_given"] == pages // 2
    assert store.queue("green").id & 0x1FFFF == slot
    store.close()


def test_a_placed_message_keeps_the_segment_of_its_body(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    red, dead = store.queue("red"), store.queue("dead")
    position = int(red.index(3, 4)[0]["position"])
    store._place(dead, position)
    assert counted(store) == wanted(store)
    red.purge()
    assert given_up(store) == wanted(store)
    assert given_up(store)[1] == 9048
    assert messages(dead) == {0: bytes(9000)}
    dead.purge()
    assert given_up(store) == {}
    store.close()


def test_what_lies_in_a_dead_segment_cannot_be_placed(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    position = int(store.queue("red").index(3, 4)[0]["position"])
    store.queue("red").purge()
    given_up(store)
    with pytest.raises(EngineError):
        store._place(store.queue("dead"), position)
    assert store.queue("dead").stat()["next"] == 0
    store.close()


def test_a_replay_counts_the_same(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    fill(store, "blue")
    store.checkpoint()
    store._place(store.queue("dead"), int(store.queue("red").index(3, 4)[0]["position"]))
    store.queue("red").purge()
    store.delete("blue")
    given_up(store)
    fill(store, "blue", 100, 1000)
    copy = crashed(store, tmp_path / "copy")
    with quiet(opened(copy)) as again:
        found = given_up(again)
        assert found == wanted(again) == counted(store)
        assert again.queue("blue").id == store.queue("blue").id
    store.close()


def test_pages_of_the_index_are_used_again_after_two_checkpoints(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    red = store.queue("red")
    for _ in range(10):
        red.append_many([b"x"] * 5000)
        red.purge()
        given_up(store)
        store.checkpoint()
        forget_checkpoints(store.path)
        keep(store)
    # Three rounds of 40 pages: one in use, two that kept checkpoints may lead to.
    assert store.stat()["index_pages"] < 4 * 42
    red.append_many([b"%d" % number for number in range(5000)])
    copy = crashed(store, tmp_path / "copy")
    store.close()
    with opened(copy) as again:
        found = messages(again.queue("red"))
        assert list(found.values()) == [b"%d" % number for number in range(5000)]


def test_a_sender_killed_inside_the_write_takes_no_count_along(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    position = int(store.queue("red").index(3, 4)[0]["position"])
    dead = store.queue("dead")

    def work() -> None:
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        other = quiet(opened(tmp_path / "store"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
        other._place(other.queue("dead"), position)

    assert in_child(work) == -signal.SIGXFSZ
    dead.append(b"the next one takes the lock")
    assert counted(store) == wanted(store)
    store.queue("red").purge()
    assert given_up(store) == wanted(store)
    store.close()
