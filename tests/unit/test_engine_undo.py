"""A rewind taken back: what was confirmed before or since stays so, over crashes as well."""

import random
import threading
from pathlib import Path

import pytest
from engine_language import LONG, crashed, opened, quiet, split
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine import Attributes, Consumer, InvalidError
from penstock.engine._core import Inspector
from penstock.engine.check import check
from penstock.engine.undo import undone

SEEK, SEEK_RECORD, DONE, BUSY = 2, 3, 0, 8


def confirmed(consumer: Consumer, count: int) -> set[int]:
    look, queue = Inspector(consumer.queue.store), consumer.queue
    return {
        at for at in range(count)
        if look.message(queue.id, consumer.id, at)["state"] == "confirmed"
    }


def some_confirmed(consumer: Consumer, count: int, chance: random.Random) -> None:
    receipts = split(consumer.receive(count, lease_ms=LONG).receipts)
    chosen = [one for one in receipts if chance.random() < 0.5]
    if chosen:
        consumer.confirm(b"".join(chosen))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("end", ["go on", "close", "crash"])
def test_undone_the_group_is_where_it_was(tmp_path: Path, seed: int, end: str) -> None:
    chance, count = random.Random(seed), 700
    store = quiet(opened(tmp_path / "a"))
    queue = store.queue("red")
    queue.append_many([b"m"] * count)
    own = queue.group()
    some_confirmed(own, 500, chance)
    before = confirmed(own, count)
    target = chance.choice([0, 20, own.stat()["floor"], 650])
    own.seek(offset=target)
    some_confirmed(own, chance.choice([0, 1, 40]) or 1, chance)
    # Forward: what lies between the group's start and its floor then was confirmed since.
    since = {at for at in confirmed(own, count) if at >= target}
    if chance.random() < 0.5:
        store.checkpoint()
    offset, messages = own.undo()
    for round_ in range(2):
        assert confirmed(own, count) == before | since
        assert messages == count - offset - len([at for at in before | since if at >= offset])
        if round_ == 0 and end != "go on":
            path = Path(store.path) if end == "close" else crashed(store, tmp_path / "b")
            store.close()
            assert check(path).problems == []
            store = quiet(opened(path))
            own = store.queue("red").group()
    got = own.receive(count, lease_ms=LONG).offsets.tolist()
    assert got == [at for at in range(count) if at not in before | since]
    store.close()


def test_undone_twice_is_as_not_undone(tmp_path: Path) -> None:
    with quiet(opened(tmp_path)) as store:
        queue = store.queue("red")
        queue.append_many([b"m"] * 10)
        own = queue.group()
        with pytest.raises(InvalidError, match="nothing to undo"):
            own.undo()
        own.confirm(own.receive(6, lease_ms=LONG).receipts)
        own.seek(offset=2)
        assert own.undo() == (6, 4)
        assert own.undo() == (2, 8)
        assert own.undo() == (6, 4)
        assert own.undo() == (2, 8)
        assert own.receive(1).offsets.tolist() == [2]


def test_a_seek_whose_record_is_gone_cannot_be_undone(tmp_path: Path) -> None:
    with quiet(opened(tmp_path)) as store:
        queue = store.queue("red")
        queue.append(b"m")
        queue.group().seek(offset=0)
        records = Inspector(store).trace(queue.id, 0)[0]
        position = records[-1][0]
        with open(tmp_path / "log" / f"{position >> 32:08x}.seg", "r+b") as file:
            file.seek((position & 0xFFFFFFFF) + 49)
            file.write(b"\xff")
        with pytest.raises(InvalidError, match="not in the log any more"):
            queue.group().undo()


def test_a_filtered_message_is_said_to_be(tmp_path: Path) -> None:
    with quiet(opened(tmp_path)) as store:
        queue, look = store.queue("red"), Inspector(store)
        for tag in "abab":
            queue.append(tag.encode(), attributes=Attributes(tag=tag))
        own = queue.group()
        own.filter("tag", "b")
        seen = [look.message(queue.id, own.id, at) for at in range(4)]
        assert [one["unwanted"] for one in seen] == [True, False, True, False]
        assert own.receive(1).offsets.tolist() == [1]
        seen = [look.message(queue.id, own.id, at) for at in range(4)]
        assert [one["state"] for one in seen] == ["confirmed", "leased", "fresh", "fresh"]


ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=6)


@given(st.integers(0, 60), st.integers(0, 60), ranges, st.integers(0, 60), ranges)
def test_nothing_confirmed_comes_again_and_nothing_else_is_passed(
    target: int, floor: int, held: list[tuple[int, int]], more: int,
    now: list[tuple[int, int]],
) -> None:
    held = [(floor + first, count) for first, count in held]
    current = target + more
    now = [(current + first, count) for first, count in now]
    goal, kept = undone(target, (floor, held), (current, now))
    done = lambda low, some: set(range(low)) | {  # noqa: E731
        at for first, count in some for at in range(first, first + count)}
    since = done(current, now) - set(range(target))
    assert done(goal, kept) == done(floor, held) | since
    assert all(first + count <= following for (first, count), (following, _) in zip(kept, kept[1:]))

def test_seeks_at_the_same_moment_all_count(tmp_path: Path) -> None:
    """A seek that another overtook is made anew, not answered and forgotten."""
    seekers, turns = 4, 25
    with quiet(opened(tmp_path / "store")) as store:
        queue = store.queue("red")
        queue.append_many([b"x"] * 200)
        group = queue.group()

        def seek(number: int) -> None:
            for turn in range(turns):
                queue.group().seek(offset=number * turns + turn)

        threads = [threading.Thread(target=seek, args=(number,)) for number in range(seekers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # The generation counts the seeks: only the one after the last is taken.
        for generation, verdict in ((seekers * turns, BUSY), (seekers * turns + 1, DONE)):
            body = group.id.to_bytes(4, "little") + generation.to_bytes(4, "little")
            assert store._operate(SEEK, queue.id, 7, SEEK_RECORD, body)[0] == verdict
        assert group.receive(1).offsets.tolist() == [7]
