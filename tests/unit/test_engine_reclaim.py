"""Segments of which nothing is needed any more are used again, and nothing else is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from engine_language import crashed, deliveries, in_child, messages, opened, quiet, started

from penstock.engine import CorruptionError, Store
from penstock.engine._core import Reclaimer
from penstock.engine.check import check
from penstock.engine.reclaim import save


def fill(store: Store, name: str, megabytes: int = 3) -> None:
    for number in range(megabytes * 10):
        store._prepare()
        store.queue(name).append_many([b"%d" % number * 2000] * 20, durability="kernel")
    store._flush()


def emptied(store: Store) -> tuple[int, int, int]:
    """Give up what was purged and take the checkpoints that reclaiming waits for; what went."""
    steps = Reclaimer(store)
    while not steps.give_up():
        pass
    for _ in range(2):
        steps.mark()
        save(store)
    found = steps.recycle()
    assert found is not None
    return found


def segments(store: Store | Path) -> list[int]:
    root = Path(store.path) if isinstance(store, Store) else store
    return sorted(int(path.stem, 16) for path in (root / "log").glob("*.seg"))


def test_purged_segments_are_used_again(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 3)
    before = segments(store)
    store.queue("red").purge()
    gone, mapped, waiting = emptied(store)
    current = store.stat()["written"] >> 32
    assert (gone, mapped, waiting) == (current - 1, 0, 0)
    assert min(segments(store)) == current and len(segments(store)) == len(before)
    assert store.stat()["segments"] == len(before)
    assert store.stat()["segments_recycled"] == gone
    fill(store, "red", 3)
    wanted = messages(store.queue("red"))
    copy = crashed(store, tmp_path / "copy")
    assert check(tmp_path / "store").problems == []
    store.close()
    assert check(tmp_path / "store").problems == []
    for path in (copy, tmp_path / "store"):
        with opened(path) as again:
            assert messages(again.queue("red")) == wanted
            assert again.stat()["corrupt"] == 0


def test_a_segment_waits_until_both_checkpoints_know_it_as_dead(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 2)
    save(store)
    store.queue("red").purge()
    steps = Reclaimer(store)
    while not steps.give_up():
        pass
    for gone in (0, 0, 1):
        found = steps.recycle()
        assert found is not None and (found[0] > 0) == gone
        fill(store, "blue", 1)
        save(store)
    store.close()


@pytest.mark.parametrize("lost", ["newest", "both"])
def test_a_damaged_checkpoint_costs_nothing_and_two_are_told(lost: str, tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red")
    store.queue("red").purge()
    emptied(store)
    fill(store, "blue", 2)
    save(store)
    emptied(store)
    store.queue("blue").append(b"last")
    wanted = messages(store.queue("blue"))
    copy = crashed(store, tmp_path / "copy")
    store.close()
    saved = sorted((copy / "ckpt").iterdir())
    for path in saved[-1:] if lost == "newest" else saved:
        path.write_bytes(b"rot" + path.read_bytes()[3:])
    if lost == "newest":
        with opened(copy) as again:
            assert messages(again.queue("blue")) == wanted
        return
    before = {path.name: path.read_bytes() for path in (copy / "log").iterdir()}
    with pytest.raises(CorruptionError, match="reclaimed"):
        opened(copy)
    assert {path.name: path.read_bytes() for path in (copy / "log").iterdir()} == before


def test_what_a_reader_holds_is_not_overwritten(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 2)
    red = store.queue("red")
    batch = red.read(max_messages=3)
    red.purge()
    fill(store, "blue", 1)
    current = store.stat()["written"] >> 32
    gone, mapped, _ = emptied(store)
    assert mapped >= 1
    again = Reclaimer(store).recycle(insist=True)
    assert again is not None and again[0] == mapped
    fill(store, "blue", 3)
    assert batch.tolist() == [b"0" * 2000] * 3
    assert store.stat()["segments_removed"] == mapped
    assert gone + mapped == current - 1 or gone + mapped >= 1
    store.close()


def test_what_another_process_has_mapped_is_not_overwritten(tmp_path: Path) -> None:
    def hold(path: Path, told: Path) -> None:
        other = quiet(opened(path))
        batch = other.queue("red").read(max_messages=1)
        told.write_text("held")
        while told.exists():
            pass
        assert batch.tolist() == [b"0" * 2000]
        other._end()

    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 2)
    process = started(hold, tmp_path / "store", tmp_path / "told")
    while not (tmp_path / "told").exists():
        pass
    store.queue("red").purge()
    gone, mapped, _ = emptied(store)
    assert mapped == 1
    (tmp_path / "told").unlink()
    process.join(20)
    assert process.exitcode == 0
    found = Reclaimer(store).recycle()
    assert found == (1, 0, 0)
    store.close()


def test_a_process_lets_go_of_what_is_dead(tmp_path: Path) -> None:
    one, two = quiet(opened(tmp_path / "store")), quiet(opened(tmp_path / "store"))
    fill(one, "red", 2)
    assert messages(two.queue("red"))
    one.queue("red").purge()
    _, mapped, _ = emptied(one)
    assert mapped > 0
    Reclaimer(two).shed()
    found = Reclaimer(one).recycle()
    assert found is not None and found[:2] == (mapped, 0)
    one.close()
    two.close()


def test_a_count_that_is_wrong_never_costs_a_message(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 1)
    fill(store, "blue", 3)
    blue = store.queue("blue")
    wanted = messages(blue)
    # A damaged index: the entries of red lead to where blue lies.
    page = store.queue("red")._pages(0, 1)[0][0]
    other = blue._pages(0, 1)[0][0]
    for number in range(2):
        with open(Path(store.path) / "index", "r+b") as file:
            file.seek((other + number) * 4096)
            raw = file.read(4096)
            file.seek((page + number) * 4096)
            file.write(raw)
    store.queue("red").purge()
    emptied(store)
    emptied(store)
    assert messages(blue) == wanted
    store.close()


def test_after_reclaiming_nothing_is_placed_from_what_is_gone(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    fill(store, "red", 2)
    group = store.queue("red").group()
    held = group.receive(100, lease_ms=1)
    store.queue("red").purge()
    assert set(group.confirm(held.receipts)) <= {0, 1}
    del held
    emptied(store)
    assert deliveries(group) == {}
    assert store.stat()["corrupt"] == 0
    store.close()


def test_a_store_goes_on_in_a_segment_used_before(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "store")) as store:
        fill(store, "red", 3)
        store.queue("red").purge()
        emptied(store)
        fill(store, "blue", 2)
    for number in range(5):
        with quiet(opened(tmp_path / "store")) as store:
            segment = store.stat()["written"] >> 32
            store.queue("green").append(b"%d" % number)
            assert store.stat()["written"] >> 32 == segment
    with opened(tmp_path / "store") as store:
        assert list(messages(store.queue("green")).values()) == [b"%d" % n for n in range(5)]
        assert len(messages(store.queue("blue"))) == 400
    assert check(tmp_path / "store").problems == []


def test_a_process_killed_while_it_reclaims_leaves_it_to_the_next(tmp_path: Path) -> None:
    for stop in range(1, 8):
        path = tmp_path / f"store{stop}"
        store = quiet(opened(path))
        fill(store, "red", 2)
        fill(store, "blue", 1)
        wanted = messages(store.queue("blue"))
        store.queue("red").purge()

        def work(path: Path = path, stop: int = stop) -> None:
            other = quiet(opened(path))
            other._fault(5, 9, stop)
            emptied(other)

        assert in_child(work) in (0, -9)
        emptied(store)
        assert messages(store.queue("blue")) == wanted
        copy = crashed(store, tmp_path / f"copy{stop}")
        store.close()
        for place in (path, copy):
            with opened(place) as again:
                assert messages(again.queue("blue")) == wanted
                assert again.queue("red").append(b"x").offset == 400
        shutil.rmtree(path)
