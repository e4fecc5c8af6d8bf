"""What check finds, and what it must not mistake for damage."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from penstock.engine import Store
from penstock.engine.check import Report, check

HEADER = 4096


def fill(path: Path, *, count: int = 20, close: bool = True) -> Store:
    """A store with two queues, a consumer group and count messages of each."""
    store = Store.open(path, segment_size=1 << 20)
    for name in ("orders", "mail"):
        queue = store.queue(name)
        for number in range(count):
            queue.append(b"%s %d" % (name.encode(), number), ext=b"k")
        group = queue.group("workers")
        group.confirm(group.receive(count // 2).receipts)
    if close:
        store.close()
    return store


def flip(path: Path, at: int, bit: int = 1) -> None:
    """Change one bit of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def log(path: Path, number: int = 1) -> Path:
    return path / "log" / f"{number:08x}.seg"


def end_of(path: Path) -> int:
    """The last byte of the log's first segment that is not zero, and one."""
    return len(log(path).read_bytes().rstrip(b"\0"))


def found(path: Path, word: str) -> bool:
    return any(word in problem for problem in check(path).problems)


def test_a_whole_store_has_no_problems(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    report = check(tmp_path / "s")
    assert report.problems == [] and report.notes == []
    assert (report.messages, report.queues, report.entries) == (40, 2, 40)
    assert report.lines()[-1] == "no problems"


def test_nothing_is_written_and_no_lock_is_taken(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*")}
    check(tmp_path / "s")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "s").rglob("*")} == before


def test_a_store_in_use_is_checked_up_to_what_was_written(tmp_path: Path) -> None:
    store = fill(tmp_path / "s", close=False)
    store.checkpoint()
    report = check(tmp_path / "s")
    assert report.live and report.problems == [] and report.entries == 40
    assert any("the store is in use" in note for note in report.notes)
    store.close()
    assert not check(tmp_path / "s").live


def test_a_flipped_bit_in_any_byte_of_the_promised_log_is_found(
        tmp_path: Path, soak: bool) -> None:
    fill(tmp_path / "s", count=6)
    file = log(tmp_path / "s")
    whole = file.read_bytes()
    missed = []
    for at in range(HEADER, end_of(tmp_path / "s"), 1 if soak else 7):
        flip(file, at)
        if not check(tmp_path / "s").problems:
            missed.append(at)
        flip(file, at)
    # What fills a record up to eight bytes is zero, carries nothing and is not judged.
    assert all(whole[at] == 0 for at in missed)
    assert len(missed) <= 60
    assert check(tmp_path / "s").problems == []


@pytest.mark.parametrize("at", range(0, 88, 5))
def test_a_flipped_bit_in_a_segment_header_is_found(tmp_path: Path, at: int) -> None:
    fill(tmp_path / "s")
    flip(log(tmp_path / "s"), at)
    assert found(tmp_path / "s", "header is damaged")


def test_messages_behind_damage_are_still_verified(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    flip(log(tmp_path / "s"), HEADER + 1000)
    report = check(tmp_path / "s")
    assert len(report.problems) == 1 and "promised bytes are damaged" in report.problems[0]
    assert report.messages == 39


def test_a_torn_tail_is_no_problem(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    with open(log(tmp_path / "s"), "r+b") as file:
        file.seek(end_of(tmp_path / "s") + 8 & ~7)
        file.write(b"PFRM" + os.urandom(500))
    report = check(tmp_path / "s")
    assert report.problems == [] and "torn tail" in report.notes[0]


def test_a_torn_tail_without_a_promise_is_no_problem(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    for checkpoint in (tmp_path / "s" / "ckpt").iterdir():
        checkpoint.unlink()
    flip(log(tmp_path / "s"), end_of(tmp_path / "s") - 20)
    report = check(tmp_path / "s")
    assert report.problems == [] and "torn tail" in "".join(report.notes)


def test_a_damaged_checkpoint_is_found(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    checkpoint = next((tmp_path / "s" / "ckpt").iterdir())
    for at in (3, 20, 60, 85, 200):
        flip(checkpoint, at)
        assert found(tmp_path / "s", str(checkpoint))
        flip(checkpoint, at)


def test_an_index_entry_that_leads_elsewhere_is_found(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    flip(tmp_path / "s" / "index", 4096 + 32 * 3)
    assert found(tmp_path / "s", "offset 3")


def test_a_missing_segment_is_found(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "s", segment_size=1 << 20)
    queue = store.queue("big")
    for _ in range(9):
        queue.append(bytes(300_000))
    store.close()
    assert check(tmp_path / "s").problems == []
    log(tmp_path / "s", 2).unlink()
    assert found(tmp_path / "s", "gone or damaged")


@pytest.mark.parametrize("spoil", [
    lambda store: (store / "store").write_text("{}\n0\n"),
    lambda store: (store / "store").unlink(),
], ids=["damaged", "missing"])
def test_a_damaged_store_file_is_reported(
        tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    fill(tmp_path / "s")
    spoil(tmp_path / "s")
    report: Report = check(tmp_path / "s")
    assert len(report.problems) == 1 and "store" in report.problems[0]


def test_the_progress_ends_at_the_whole(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    steps: list[tuple[int, int]] = []
    check(tmp_path / "s", lambda done, total: steps.append((done, total)))
    assert steps[-1] == (1 << 20, 1 << 20)


@pytest.mark.parametrize(
    "name", ["00000001 (copy).seg", "zzz.seg", "1.seg", "0x000001.seg", "notes"])
def test_what_somebody_put_beside_the_segments_is_left_alone(tmp_path: Path, name: str) -> None:
    fill(tmp_path)
    stray = tmp_path / "log" / name
    stray.write_bytes(log(tmp_path).read_bytes())
    report = check(tmp_path)
    assert not report.problems
    assert any(name in note for note in report.notes) == name.endswith(".seg")
    with Store.open(tmp_path) as store:
        assert len(store.queue("orders").read(offset=0)) == 20
        store.queue("orders").append(b"one more")
    assert stray.exists() and not check(tmp_path).problems
