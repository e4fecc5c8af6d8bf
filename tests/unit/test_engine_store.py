"""Opening, closing, sharing and naming."""

from __future__ import annotations

import errno
import gc
import os
import threading
from pathlib import Path

import pytest
from engine_language import crashed, descriptors_and_maps, in_child, messages, opened, quiet

from penstock.engine import (
    CorruptionError,
    InvalidError,
    QueueNotFoundError,
    Store,
    StoreClosedError,
    StoreFullError,
    StoreLockedError,
)


def test_a_store_is_made_where_there_is_none_and_keeps_its_id(tmp_path: Path) -> None:
    with opened(tmp_path / "a" / "store") as store:
        name = store.id
        assert len(name) == 16
    with opened(tmp_path / "a" / "store") as store:
        assert store.id == name
    with opened(tmp_path / "b") as store:
        assert store.id != name


@pytest.mark.parametrize("size", [0, 4096, (1 << 20) + 1, 2 << 30])
def test_an_impossible_segment_size_is_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        Store.open(tmp_path / "store", segment_size=size)


def test_an_unknown_durability_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError):
        opened(tmp_path / "store", durability="paper")
    with opened(tmp_path / "store") as store, pytest.raises(InvalidError):
        store.queue("red").append(b"x", durability="paper")


def test_a_store_without_a_name_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidError, match="name"):
        Store.open("")
    assert not list(tmp_path.iterdir())


def test_no_room_to_open_is_told_as_a_full_store_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(tmp_path / "store") as store:
        store.queue("q").append(b"kept")

    def full(fd: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreFullError, match="store"):
            Store.open(tmp_path / "store")
    with Store.open(tmp_path / "store") as store:
        assert store.queue("q").read(offset=0).tolist() == [b"kept"]


def test_a_seek_names_one_place_and_a_read_at_most_one(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        queue = store.queue("q")
        queue.append(b"a")
        for places in ({}, {"offset": 0, "time_us": 0}):
            with pytest.raises(InvalidError, match="offset"):
                queue.group().seek(**places)
        with pytest.raises(InvalidError, match="both"):
            queue.read(offset=0, time_us=0)
        assert queue.read().tolist() == queue.read(time_us=0).tolist() == [b"a"]


def test_what_was_purged_is_not_ready(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        queue = store.queue("q")
        queue.append_many([b"x"] * 10)
        queue.purge()
        assert queue.stat()["ready"] == queue.group().stat()["ready"] == 0
        queue.append(b"y")
        assert queue.stat()["ready"] == 1
        assert queue.group().receive(10).tolist() == [b"y"]
        assert queue.stat()["ready"] == 0


def test_a_store_is_opened_and_not_constructed() -> None:
    with pytest.raises(TypeError):
        Store()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    queue = store.queue("red")
    group = queue.group()
    store.close()
    store.close()
    for act in (
        lambda: queue.append(b"x"),
        lambda: queue.read(),
        lambda: group.receive(),
        lambda: group.confirm(bytes(24)),
        lambda: group.release(bytes(24)),
        lambda: store.queue("blue"),
        store.stat,
        store.queues,
        store.checkpoint,
    ):
        with pytest.raises(StoreClosedError):
            act()


def test_a_damaged_identity_is_told_and_left_alone(tmp_path: Path) -> None:
    opened(tmp_path / "store").close()
    identity = tmp_path / "store" / "store"
    text = identity.read_text().replace('"format": 1', '"format": 7')
    identity.write_text(text)
    with pytest.raises(CorruptionError):
        opened(tmp_path / "store")
    assert identity.read_text() == text


def test_the_same_store_is_open_twice_in_a_process(tmp_path: Path) -> None:
    one, two = opened(tmp_path / "store"), opened(tmp_path / "store")
    one.queue("red").append(b"from one")
    assert messages(two.queue("red")) == {0: b"from one"}
    one.close()
    two.queue("red").append(b"from two")
    two.close()
    with opened(tmp_path / "store") as store:
        assert messages(store.queue("red")) == {0: b"from one", 1: b"from two"}


def test_a_store_in_use_by_another_version_is_refused_by_name(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue("red").append(b"kept")
        with open(tmp_path / "store" / "control", "r+b") as file:
            file.seek(8)
            file.write((99).to_bytes(4, "little"))
        with pytest.raises(StoreLockedError, match="another version of Penstock.* 99 "):
            opened(tmp_path / "store")
    with opened(tmp_path / "store") as again:
        assert messages(again.queue("red")) == {0: b"kept"}


def test_a_child_must_open_the_store_itself(tmp_path: Path) -> None:
    store = opened(tmp_path / "store")
    queue = store.queue("red")
    held = queue.append(b"x") and queue.read()

    def work() -> None:
        with pytest.raises(StoreClosedError):
            queue.append(b"no")
        store.close()
        assert held.tolist() == [b"x"]
        with opened(tmp_path / "store") as own:
            own.queue("red").append(b"child")

    assert in_child(work) == 0
    assert messages(queue) == {0: b"x", 1: b"child"}
    store.close()


def test_a_queue_is_found_by_its_name(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        red, blue = store.queue("red"), store.queue("blue")
        assert red.id != blue.id
        assert store.queue("red").id == red.id
        assert store.queues() == ["blue", "red"]
        assert red.store is store and red.name == "red"
        with pytest.raises(QueueNotFoundError):
            store.queue("green", create=False)
    with opened(tmp_path / "store") as store:
        assert store.queue("red", create=False).id == red.id


@pytest.mark.parametrize("name", ["", "x" * 129, "ü" * 65])
def test_a_name_over_its_limit_is_refused(name: str, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store, pytest.raises(InvalidError):
        store.queue(name)


@pytest.mark.parametrize("name", ["x" * 128, "ü" * 64, "a/b", " ", "\0"])
def test_any_other_name_is_a_name(name: str, tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        store.queue(name).append(name.encode())
    with opened(tmp_path / "store") as store:
        assert store.queues() == [name]
        assert messages(store.queue(name)) == {0: name.encode()}


def test_a_deleted_queue_is_gone_and_its_name_is_free(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        old = store.queue("red")
        old.append(b"old")
        group = old.group("workers")
        receipts = group.receive().receipts
        store.delete("red")
        assert store.queues() == []
        for act in (lambda: old.append(b"x"), old.read, old.stat, group.receive, group.stat):
            with pytest.raises(QueueNotFoundError):
                act()
        with pytest.raises(QueueNotFoundError):
            store.delete("red")
        new = store.queue("red")
        assert new.id != old.id
        assert messages(new) == {}
        assert set(new.group("workers").confirm(receipts)) <= {1, 2}
        new.append(b"new")
        copy = crashed(store, tmp_path / "copy")
    for path in (tmp_path / "store", copy):
        with opened(path) as store:
            assert messages(store.queue("red")) == {0: b"new"}
            with pytest.raises(QueueNotFoundError):
                store.queue("green", create=False)


def test_a_purge_drops_what_was_stored_and_nothing_later(tmp_path: Path) -> None:
    with opened(tmp_path / "store") as store:
        queue = store.queue("red")
        queue.append_many([b"one", b"two", b"three"])
        leased = queue.group().receive(1)
        assert queue.purge() == 3
        assert messages(queue) == {}
        assert len(queue.group().receive(10)) == 0
        assert set(queue.group().confirm(leased.receipts)) <= {0, 1}
        queue.append(b"four")
        assert queue.group().receive(10).tolist() == [b"four"]
        assert queue.group().seek(offset=0) == (3, 1)
        copy = crashed(store, tmp_path / "copy")
    for path in (tmp_path / "store", copy):
        with opened(path) as store:
            assert messages(store.queue("red")) == {3: b"four"}
            assert store.queue("red").group().receive(10).tolist() == [b"four"]


def test_many_queues_need_no_more_files_and_maps(tmp_path: Path, soak: bool) -> None:
    count = 100_000 if soak else 3000
    with quiet(opened(tmp_path / "store", durability="kernel")) as store:
        before = None
        for number in range(count):
            store.queue(f"queue {number}").append(b"%d" % number)
            if number == count // 10:
                store._flush()
                before = descriptors_and_maps(), store.stat()["segments"]
        store._flush()
        sample = range(0, count, count // 500)
        assert all(messages(store.queue(f"queue {n}")) == {0: b"%d" % n} for n in sample)
        assert before is not None
        (files, maps), segments = before
        now_files, now_maps = descriptors_and_maps()
        assert now_files <= files + 2
        assert now_maps - maps <= store.stat()["segments"] - segments + 8
        assert store.stat()["queues"] == count
    with opened(tmp_path / "store") as store:
        assert len(store.queues()) == count
        assert messages(store.queue(f"queue {count - 1}")) == {0: b"%d" % (count - 1)}


def test_a_closed_store_is_unmapped_with_its_last_reference(tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            store = opened(tmp_path / "store")
            store.queue("q").append(b"x")
            assert str(tmp_path) in Path("/proc/self/maps").read_text()
            store.close()
            del store
            assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    finally:
        gc.enable()


def test_a_store_leaves_no_file_open_behind(tmp_path: Path) -> None:
    opened(tmp_path / "store").close()
    gc.collect()
    before = descriptors_and_maps()[0]
    for _ in range(5):
        with opened(tmp_path / "store") as store:
            store.queue("red").append(b"x")
        del store
    gc.collect()
    assert descriptors_and_maps()[0] == before


def test_a_checkpoint_is_kept_until_two_newer_ones_are(tmp_path: Path) -> None:
    for _ in range(4):
        with opened(tmp_path / "store") as store:
            store.queue("red").append(b"x")
            store.checkpoint()
    assert len(os.listdir(tmp_path / "store" / "ckpt")) == 2
    with opened(tmp_path / "store") as store:
        assert len(messages(store.queue("red"))) == 4


def append_while_closing(path: Path) -> None:
    store = opened(path)
    queue = store.queue("red")
    seen: list[str] = []

    def work() -> None:
        try:
            while True:
                queue.append(b"x" * 100)
        except StoreClosedError:
            seen.append("closed")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while queue.stat()["next"] < 100:
        pass
    store.close()
    for thread in threads:
        thread.join(10)
    assert seen == ["closed"] * 4


def test_closing_under_the_feet_of_other_threads_is_told_to_them(tmp_path: Path) -> None:
    paths = [tmp_path / f"s{number}" for number in range(5)]
    assert all(in_child(append_while_closing, path, within_s=3) == 0 for path in paths)
