"""What is needed of sparse segments is copied together, and nothing of it is ever missing."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest
from compaction_language import compacted, flood, given_up, sound, used
from engine_language import LONG, SEGMENT, crashed, deliveries, messages, opened, quiet

from penstock.engine import Attributes, InvalidError, Retry, Store
from penstock.engine._core import Compactor, Reclaimer
from penstock.engine.check import check
from penstock.engine.reclaim import save

NOW_US = 1_900_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Any:
    made = quiet(opened(tmp_path / "store"))
    yield made
    made.close()
    assert check(tmp_path / "store").problems == []


def test_an_unread_queue_beside_a_busy_one_costs_its_own_bytes(
        store: Store, tmp_path: Path) -> None:
    flood(store, turns=40)
    slow = store.queue("slow")
    wanted = messages(slow)
    before = used(store.path)
    store.queue("busy").purge()
    found = compacted(store)
    assert found["segments"] >= 10 and not found["refused"]
    own = sum(map(len, wanted.values()))
    assert before > 10 * SEGMENT
    assert used(store.path) < own * 1.2 + 2 * SEGMENT
    assert messages(slow) == wanted
    assert store.stat()["cold_bytes"] < own * 1.2 + 8192
    sound(store, tmp_path / "copy")
    # All its words work on what was copied.
    group = slow.group()
    batch = group.receive(1000, lease_ms=LONG)
    assert dict(zip(batch.offsets.tolist(), batch.tolist(), strict=True)) == wanted
    group.confirm(batch.receipts)
    del batch
    assert group.seek(offset=0)[1] == len(wanted)
    assert deliveries(group) == wanted


def test_a_cold_file_goes_when_nothing_in_it_is_needed(store: Store, tmp_path: Path) -> None:
    flood(store, turns=20)
    store.queue("busy").purge()
    compacted(store)
    assert list(Compactor(store).files()) == [1]
    store.queue("slow").purge()
    given_up(store)
    assert Compactor(store).retire() is not None
    assert Compactor(store).files() == {} and store.stat()["cold_bytes"] == 0
    assert not list(Path(store.path).glob("cold/*.cold"))
    sound(store, tmp_path / "copy")


def test_a_sparse_cold_file_is_copied_with_others(store: Store, tmp_path: Path) -> None:
    for slow in ("one", "two"):
        flood(store, turns=15, slow=slow)
        for _ in range(15):
            store.queue("third").append(b"y" * 20000)
    store.queue("busy").purge()
    compacted(store, 60)
    store.queue("one").purge()
    store.queue("third").purge()
    wanted = messages(store.queue("two"))
    flood(store, turns=10)
    store.queue("busy").purge()
    found = compacted(store, 60)
    assert found["segments"] > 0
    assert list(Compactor(store).files()) == [2]
    assert messages(store.queue("two")) == wanted
    sound(store, tmp_path / "copy")


def test_bodies_that_only_another_record_leads_to_are_copied(store: Store, tmp_path: Path) -> None:
    """Delayed and half messages, placed ones, fan-outs, dead letters, moved and cancelled ones."""
    dead = store.queue("dead")
    poor = store.queue("poor").group()
    poor.configure(retry=Retry(max_attempts=1, dead_letter="dead"))
    store.queue("poor").append(b"poison" * 50, attributes=Attributes(tag="t", key="k"))
    store.fanout([store.queue(f"fan{number}") for number in range(4)], b"fan" * 100)
    queue = store.queue("waits")
    late = queue.append(b"late" * 50, due_us=NOW_US + 10**12).pending
    moved = queue.append(b"moved" * 50, due_us=NOW_US + 10**12).pending
    fired = queue.append(b"fired" * 50, due_us=store_now(store) + 1000).pending
    half = queue.prepare(b"half" * 50).pending
    kept = queue.prepare(b"committed" * 50).pending
    gone = queue.append(b"cancelled" * 50, due_us=NOW_US).pending
    assert all((late, moved, fired, half, kept, gone))
    flood(store, turns=4)
    store.pending.move(moved, NOW_US + 10**13)
    store.pending.commit(kept)
    store.pending.cancel(gone)
    store._clock(10_000_000)
    while not messages(queue).keys() >= {0, 1}:
        store.pending._keep()
    batch = poor.receive(1)
    poor.release(batch.receipts, reason="why")
    flood(store, turns=20)
    store.queue("poor").purge()
    store.queue("fan1").purge()
    store.delete("fan2")
    store.queue("busy").purge()
    del batch
    found = compacted(store)
    # What nobody accounts for would keep its segment.
    assert found["segments"] > 1 and not found["refused"]
    assert messages(dead) == {0: b"poison" * 50}
    letter = dead.read()
    assert letter.origin(0).text == "why" and letter.attributes(0).tag == "t"
    del letter
    assert {name: messages(store.queue(name)) for name in ("fan0", "fan1", "fan3")} == {
        "fan0": {0: b"fan" * 100}, "fan1": {}, "fan3": {0: b"fan" * 100}}
    assert sorted(messages(queue).values()) == [b"committed" * 50, b"fired" * 50]
    assert [store.pending.read(id)[0] for id in (late, moved, half)] == [
        b"late" * 50, b"moved" * 50, b"half" * 50]
    sound(store, tmp_path / "copy")
    # What waits comes, and what is a half can still be decided.
    store.pending.commit(half)
    store.pending.move(late, store_now(store))
    store._clock(20_000_000)
    while len(messages(queue)) < 4:
        store.pending._keep()
    assert sorted(messages(queue).values()) == sorted(
        [b"committed" * 50, b"fired" * 50, b"half" * 50, b"late" * 50])
    # A redrive leads to what was copied.
    store.queue("again")
    dead.group()._transfer([0], [store.queue("again").id])
    assert messages(store.queue("again")) == {0: b"poison" * 50}
    store._clock(0)


def store_now(store: Store) -> int:
    from penstock.engine._core import Inspector
    return Inspector(store).now_us()


def test_a_rewind_can_be_taken_back_after_compaction(store: Store) -> None:
    flood(store, turns=2)
    group = store.queue("slow").group()
    group.confirm(group.receive(2, lease_ms=LONG).receipts)
    group.seek(offset=0)
    flood(store, turns=20)
    store.queue("busy").purge()
    compacted(store)
    assert group.undo()[0] == 2


def test_what_is_purged_while_it_is_copied_does_no_harm(store: Store, tmp_path: Path) -> None:
    flood(store, turns=20)
    flood(store, turns=1, slow="other")
    store.queue("busy").purge()
    given_up(store)
    assert Compactor(store).compact() is not None
    store.queue("slow").purge()
    wanted = messages(store.queue("other"))
    given_up(store)
    Reclaimer(store).shed()
    Compactor(store).retire()
    given_up(store)
    Compactor(store).retire()
    assert messages(store.queue("other")) == wanted
    sound(store, tmp_path / "copy")


def test_nothing_is_placed_from_what_was_left_out(store: Store) -> None:
    flood(store, turns=20)
    busy = store.queue("busy")
    entries = busy.index(0, 1)["position"].copy()
    busy.purge()
    given_up(store)
    number = int(entries[0]) >> 32
    assert Reclaimer(store).live()[number][0] > 0
    assert Compactor(store).compact() is not None
    from penstock.engine._core import place_many
    other = store.queue("other")
    assert place_many(store, other, entries) == 0
    slow = store.queue("slow").index(0, 1)["position"].copy()
    assert place_many(store, other, slow) == 1
    assert len(messages(other)) == 1


def test_a_segment_stays_until_every_checkpoint_kept_knows_of_its_copy(
        store: Store, tmp_path: Path) -> None:
    flood(store, turns=20)
    store.queue("busy").purge()
    given_up(store)
    wanted = messages(store.queue("slow"))
    assert Compactor(store).compact() is not None
    log = Path(store.path) / "log"
    before = {path.name for path in log.iterdir()}
    Reclaimer(store).shed()
    for _ in range(2):
        gone = Compactor(store).retire()
        assert gone is not None and gone[0] == 0 and gone[2] > 0
        assert {path.name for path in log.iterdir()} == before
        Reclaimer(store).mark()
        save(store)
    gone = Compactor(store).retire()
    assert gone is not None and gone[0] > 0
    assert messages(store.queue("slow")) == wanted
    sound(store, tmp_path / "copy")


@pytest.mark.parametrize("damaged", ["newest checkpoint", "cold file"])
def test_a_start_from_the_older_checkpoint_finds_what_it_leads_to(
        damaged: str, tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    flood(store, turns=20)
    store.queue("busy").purge()
    compacted(store)
    flood(store, turns=10)
    store.queue("busy").purge()
    given_up(store)
    assert Compactor(store).compact() is not None
    wanted = messages(store.queue("slow"))
    copy = crashed(store, tmp_path / "copy")
    store.close()
    if damaged == "newest checkpoint":
        path = max((copy / "ckpt").iterdir())
    else:
        # The segments that it was made of are still there.
        path = copy / "cold" / "00000002.cold"
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    with quiet(opened(copy)) as again:
        assert messages(again.queue("slow")) == wanted


def test_a_damaged_record_keeps_its_segment_and_is_reported(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    flood(store, turns=20)
    slow = store.queue("slow")
    wanted = messages(slow)
    store.queue("busy").purge()
    given_up(store)
    position = int(slow.index(4, 5)["position"][0])
    segment = Path(store.path) / "log" / f"{position >> 32:08x}.seg"
    with open(segment, "r+b") as file:
        file.seek((position & 0xFFFFFFFF) + 60)
        file.write(b"rot")
    found = Compactor(store).compact()
    assert found is not None and found["refused"] == [position >> 32]
    given_up(store)
    Reclaimer(store).shed()
    Compactor(store).retire()
    assert segment.exists()
    assert store.stat()["segments_kept_for_damage"] == 1
    # It is tried no more, and what can be read is.
    assert Compactor(store).compact() is None
    assert messages(slow) == {at: body for at, body in wanted.items() if at != 4}
    store.close()
    assert any(f"{segment.name}" in problem for problem in check(tmp_path / "store").problems)


def test_a_damaged_cold_record_is_reported_and_kept(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    flood(store, turns=20)
    store.queue("busy").purge()
    compacted(store)
    slow = store.queue("slow")
    wanted = messages(slow)
    path = Path(store.path) / "cold" / "00000001.cold"
    raw = path.read_bytes()
    at = raw.index(b"7777777777")
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(b"rot")
    assert messages(slow) == {at: body for at, body in wanted.items() if at != 7}
    assert store.stat()["corrupt"] > 0
    slow.purge()
    store.queue("slow2").append(b"x")
    given_up(store)
    Compactor(store).retire()
    assert path.exists()
    store.close()
    assert any(path.name in problem for problem in check(tmp_path / "store").problems)


def test_a_count_that_nothing_explains_keeps_its_segment(store: Store, tmp_path: Path) -> None:
    """An index page is damaged: what a PLACE led to is not known any more."""
    flood(store, turns=2)
    placed = store.queue("placed")
    for number in range(2):
        store._place(placed, int(store.queue("slow").index(number, number + 1)["position"][0]))
    wanted = messages(placed)
    page = placed._pages(0, 1)[0][0]
    flood(store, turns=20, slow="third")
    store.queue("slow").purge()
    store.queue("busy").purge()
    given_up(store)
    with open(Path(store.path) / "index", "r+b") as file:
        file.seek(page * 4096)
        raw = file.read(4096)
        file.seek(page * 4096)
        file.write(bytes(4096))
    found = Compactor(store).compact(60)
    assert found is not None and 1 in found["refused"]
    with open(Path(store.path) / "index", "r+b") as file:
        file.seek(page * 4096)
        file.write(raw)
    assert messages(placed) == wanted


def test_other_processes_find_what_was_copied(tmp_path: Path) -> None:
    one, two = quiet(opened(tmp_path / "store")), quiet(opened(tmp_path / "store"))
    flood(one, turns=20)
    wanted = messages(two.queue("slow"))
    batch = two.queue("slow").read()
    one.queue("busy").purge()
    given_up(one)
    assert Compactor(one).compact() is not None
    given_up(one)
    Reclaimer(one).shed()
    gone = Compactor(one).retire()
    assert gone is not None and gone[1] > 0        # two has segments mapped, and reads them
    assert batch.tolist() == list(wanted.values())
    del batch
    Reclaimer(two).shed()
    gone = Compactor(one).retire()
    assert gone is not None and gone[1] == 0
    assert messages(two.queue("slow")) == wanted == messages(one.queue("slow"))
    one.close()
    two.close()
    assert check(tmp_path / "store").problems == []


def test_what_comes_to_be_needed_while_it_is_copied_is_not_left_out(
        store: Store, tmp_path: Path) -> None:
    from penstock.engine._core import place_many
    flood(store, turns=20)
    busy, other = store.queue("busy"), store.queue("other")
    entries = busy.index(0, 1)["position"].copy()
    busy.purge()
    given_up(store)
    found: list[Any] = []
    thread = threading.Thread(
        target=lambda: found.append(Compactor(store).compact(rate=50_000)))
    thread.start()
    while thread.is_alive() and not (Path(store.path) / "cold" / "new").exists():
        pass
    # Nothing leads to it, and its segment is still there.
    placed = place_many(store, other, entries)
    thread.join()
    given_up(store)
    Reclaimer(store).shed()
    Compactor(store).retire()
    assert placed == 0 or found == [None]
    assert list(messages(other).values()) == [b"x" * 15000] * placed
    assert Compactor(store).compact() is not None or not placed
    given_up(store)
    Reclaimer(store).shed()
    Compactor(store).retire()
    assert list(messages(other).values()) == [b"x" * 15000] * placed
    sound(store, tmp_path / "copy")


def test_a_full_disk_takes_the_room_that_was_kept(store: Store) -> None:
    flood(store, turns=20)
    wanted = messages(store.queue("slow"))
    store.queue("busy").purge()
    given_up(store)
    store._fault(6, 28)
    with pytest.raises(OSError):
        Compactor(store).compact()
    assert not list(Path(store.path).glob("cold/*.cold"))
    (Path(store.path) / "cold" / "reserve").write_bytes(bytes(1 << 20))
    store._fault(7, 28)
    assert Compactor(store).compact() is not None
    assert not (Path(store.path) / "cold" / "reserve").exists()
    assert messages(store.queue("slow")) == wanted


def test_a_dense_store_is_left_alone(store: Store) -> None:
    flood(store, turns=10)
    given_up(store)
    assert Compactor(store).compact() is None
    assert not os.path.exists(os.path.join(store.path, "cold"))
    with pytest.raises(InvalidError):
        store.queue("slow").group().undo()
