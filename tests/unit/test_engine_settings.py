"""A group's settings: fields in the log that a record replaces one by one."""

import struct
from pathlib import Path

import pytest
from engine_language import crashed, opened, quiet
from penstock.engine import Consumer, InvalidError, QueueNotFoundError, Store
from penstock.engine.check import check
from penstock.engine.check_fold import RECORD


def field(number: int, value: bytes) -> bytes:
    return struct.pack("<BBH", number, 0, len(value)) + value


def values(group: Consumer) -> list[bytes]:
    return [group._setting(number)[1] for number in range(1, 5)]


def again(store: Store, to: Path, name: str = "g") -> Consumer:
    """The group in a store that a crash left."""
    return opened(crashed(store, to)).queue("a").group(name)


def test_a_record_replaces_the_fields_it_names_and_no_others(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        group = store.queue("a").group("g")
        assert values(group) == [b"", b"", b"", b""] and group._setting(1)[0] == 0
        group._settings(field(2, b"order") + field(3, b"retry"))
        first = group._setting(2)[0]
        group._settings(field(2, b"other") + field(4, b"x" * 4080))
        assert values(group) == [b"", b"other", b"retry", b"x" * 4080]
        assert group._setting(2)[0] > first == group._setting(3)[0]
        group._settings(field(2, b""))
        assert values(group) == [b"", b"", b"retry", b"x" * 4080]
        assert values(store.queue("a").group("another")) == [b"", b"", b"", b""]
    with opened(tmp_path / "s") as store:
        assert values(store.queue("a").group("g")) == [b"", b"", b"retry", b"x" * 4080]
    assert check(tmp_path / "s").problems == []


@pytest.mark.parametrize("saved", [False, True])
def test_settings_survive_a_crash(tmp_path: Path, saved: bool) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        group = store.queue("a").group("g")
        group._settings(field(4, b"one") + field(2, b"two"))
        if saved:
            store.checkpoint()
        group._settings(field(4, b"") + field(3, b"three"))
        generation = group._setting(3)[0]
        found = again(store, tmp_path / "crashed")
        assert values(found) == [b"", b"two", b"three", b""]
        assert found._setting(3)[0] == generation
        found.queue.store.close()
    assert check(tmp_path / "crashed").problems == []


@pytest.mark.parametrize("wrong", [
    field(0, b"x"), field(5, b"x"), field(2, bytes(4081)), field(1, b"no filter"),
    b"\2", b"\2\1\0\0",
    field(3, b"x")[:-1], field(2, b"x") + b"\0",
])
def test_what_is_no_list_of_fields_is_refused(tmp_path: Path, wrong: bytes) -> None:
    with opened(tmp_path / "s") as store:
        group = store.queue("a").group("g")
        with pytest.raises(InvalidError):
            group._settings(wrong)
        assert values(group) == [b"", b"", b"", b""]
        with pytest.raises(InvalidError):
            group._setting(0)


def test_a_deleted_group_gives_its_pages_back(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        pages = 0
        for round_ in range(20):
            group = store.queue("a").group("g")
            for number in range(2, 5):
                group._settings(field(number, bytes([round_])))
            store.delete("a")
            with pytest.raises(QueueNotFoundError):
                group._setting(1)
            with pytest.raises(QueueNotFoundError):
                group._settings(field(2, b"x"))
            if round_ == 5:
                pages = store.stat()["state_pages"]
        assert store.stat()["state_pages"] == pages


def test_the_record_has_these_bytes(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queue = store.queue("a")
        queue.append(b"m")
        group = queue.group("g")
        group.receive()
        group._settings(field(2, b"key"))
        at = group._setting(2)[0]
        raw = (tmp_path / "s" / "log" / "00000001.seg").read_bytes()[at & 0xFFFFFFFF:]
        size, kind, flags, ext, position, offset, owner, spare, _, _ = RECORD.unpack_from(raw)
        assert (size, kind, flags, ext, position) == (7, 15, 0, 0, at)
        assert (offset, owner, spare) == (1, queue.id, group.id)
        assert raw[48:56] == bytes.fromhex("020003006b657900")
