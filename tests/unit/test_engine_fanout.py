"""One message in many queues: stored once, in all of them or in none."""

from pathlib import Path

import numpy as np
import pytest
from engine_language import crashed, deliveries, messages, opened, quiet

from penstock.engine import (
    Attributes,
    InvalidError,
    QueueNotFoundError,
    Store,
    StoreFullError,
    TooLargeError,
)
from penstock.engine._core import Reclaimer, fanout_many
from penstock.engine.attributes import hash32
from penstock.engine.check import check
from penstock.engine.errors import ConflictError


def test_each_queue_gets_the_message_and_the_body_is_written_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queues = [store.queue(f"q{n}") for n in range(1000)]
        queues[3].append(b"before")
        before = store.stat()["bytes_written"]
        receipt = store.fanout(queues, b"b" * 100_000)
        assert store.stat()["bytes_written"] - before == 64 + 48 + 1000 * 16 + 100_000
        assert receipt.count == 1000 and not receipt.duplicate and receipt.durability == "disk"
        for queue in queues:
            assert list(messages(queue).values())[-1] == b"b" * 100_000
        assert receipt.recipients()["offset"].tolist() == [0] * 3 + [1] + [0] * 996
        assert receipt.recipients()["queue"].tolist() == [queue.id for queue in queues]
    assert check(tmp_path / "s").problems == []


def test_attributes_and_ext_come_with_it(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        one, two = store.queue("one"), store.queue("two")
        attributes = Attributes(tag="t", key="k", properties={"n": "1"})
        store.fanout([one, two], b"body", attributes=attributes, producer=7, sequence=1)
        store.fanout([two, one], b"raw", ext=b"ext")
        with pytest.raises(InvalidError):
            store.fanout([one], b"", ext=b"e", attributes=attributes)
        for queue in (one, two):
            batch = queue.group().receive(10)
            assert batch.tolist() == [b"body", b"raw"]
            assert batch.attributes(0) == attributes and batch.ext(1) == b"ext"
            assert queue.index()["tag"].tolist() == [hash32("t"), 0]
            assert queue.index()["key"].tolist() == [hash32("k"), 0]
            assert queue.index()["size"].tolist() == [
                48 + 16 + len(attributes.pack()) + 4 + 7 & ~7, 56]


def test_a_repetition_is_stored_once(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queues = [store.queue("one"), store.queue("two")]
        first = store.fanout(queues, b"x", producer=5, sequence=1)
        again = store.fanout(queues, b"x", producer=5, sequence=1)
        assert again.duplicate and again.position == first.position
        assert again.recipients().tolist() == first.recipients().tolist()
        with opened(crashed(store, tmp_path / "crash")) as after:
            queues = [after.queue("one"), after.queue("two")]
            third = after.fanout(queues, b"x", producer=5, sequence=1)
            assert third.duplicate and third.position == first.position
            assert [queue.stat()["next"] for queue in queues] == [1, 1]
        assert check(tmp_path / "crash").problems == []


def test_a_deleted_queue_is_left_out_and_the_others_get_it(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        kept, gone = store.queue("kept"), store.queue("gone")
        store.delete("gone")
        receipt = store.fanout([kept, gone], b"x")
        assert receipt.count == 1 and receipt.recipients()["queue"].tolist() == [kept.id]
        with pytest.raises(QueueNotFoundError):
            store.fanout([gone], b"y")
        store.queue("late")
        store.delete("kept")
        assert store.queue("late").stat()["next"] == 0
        with opened(crashed(store, tmp_path / "crash")) as after:
            assert after.queues() == ["late"]
    assert check(tmp_path / "s").problems == []


def test_who_is_there_twice_gets_it_once(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        queue = store.queue("q")
        assert store.fanout([queue, queue, queue], b"x").count == 1
        assert messages(queue) == {0: b"x"}
        with pytest.raises(InvalidError, match="not 0"):
            store.fanout([], b"x")
        with pytest.raises(TooLargeError):
            store.fanout([queue], bytes(1 << 20))


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_crash_takes_nothing(tmp_path: Path, checkpoint: bool) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queues = [store.queue(f"q{n}") for n in range(300)]
        for round_ in range(200):
            store.fanout(queues[round_ % 7:], bytes([round_]) * round_, durability="kernel")
            queues[round_].append(b"own", durability="kernel")
            if checkpoint and round_ == 130:
                store.checkpoint()
        store._flush()
        expected = {queue.name: messages(queue) for queue in queues}
        # More than one leaf of the index, so that new pages were taken under a fan-out.
        assert max(map(len, expected.values())) > 128
        with opened(crashed(store, tmp_path / "crash")) as after:
            assert {q.name: messages(after.queue(q.name)) for q in queues} == expected
            assert len(deliveries(after.queue("q7").group())) == len(expected["q7"])
        assert check(tmp_path / "crash").problems == []


def test_a_full_disk_refuses_all_of_it(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queues = [store.queue(f"q{n}") for n in range(10)]
        store._fault(3, 28)
        sent = 0
        with pytest.raises(StoreFullError):
            for _ in range(100):
                store.fanout(queues, bytes(100_000), producer=1, sequence=sent + 1)
                sent += 1
        assert {queue.stat()["next"] for queue in queues} == {sent}
        store._fault(0, 0)
        store._prepare()
        receipt = store.fanout(queues, b"again", producer=1, sequence=sent + 1)
        assert not receipt.duplicate and {queue.stat()["next"] for queue in queues} == {sent + 1}
    assert check(tmp_path / "s").problems == []


def test_many_go_to_their_queues_in_one_frame(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        red, blue = store.queue("red"), store.queue("blue")
        frames = store.stat()["frames"]
        tag = Attributes(tag="t")
        found = fanout_many(store, [
            ([red, blue], b"one", tag), ([blue], b"two", Attributes()), ([red, red], b"", tag)])
        assert store.stat()["frames"] == frames + 1
        assert [one.count for one in found] == [2, 1, 1] and found[0].durability == "disk"
        assert messages(red) == {0: b"one", 1: b""} and messages(blue) == {0: b"one", 1: b"two"}
        assert red.index()["tag"].tolist() == [hash32("t")] * 2
        assert found[1].recipients().tolist() == [(1, blue.id)]
        assert fanout_many(store, []) == []
        # More operations than a round has places for at first.
        many = fanout_many(store, [([red], b"%d" % at, tag) for at in range(2000)])
        assert len(many) == 2000 and store.stat()["frames"] == frames + 2
        assert red.stat()["next"] == 2002
    assert check(tmp_path / "s").problems == []


def test_of_many_that_are_refused_none_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        red, gone = store.queue("red"), store.queue("gone")
        store.delete("gone")
        none = Attributes()
        with pytest.raises(InvalidError, match="not 0"):
            fanout_many(store, [([red], b"x", none), ([], b"y", none)])
        with pytest.raises(TooLargeError):
            fanout_many(store, [([red], bytes(300_000), none)] * 3)
        version = store.notes_version()
        store.note("changed", b"1")
        with pytest.raises(ConflictError):
            fanout_many(store, [([red], b"x", none)] * 2, notes_version=version)
        assert messages(red) == {}
        with pytest.raises(QueueNotFoundError):
            fanout_many(store, [([gone], b"x", none)])
    assert check(tmp_path / "s").problems == []


def test_many_are_whole_or_absent_after_a_crash(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        red, blue = store.queue("red"), store.queue("blue")
        for _ in range(3):
            fanout_many(store, [([red, blue], b"r" * 5000, Attributes())] * 4)
        copy = crashed(store, tmp_path / "copy")
    log = copy / "log" / "00000001.seg"
    data = log.read_bytes()
    end = len(data.rstrip(b"\0"))
    # The tail of the last frame never reached the disk.
    log.write_bytes(data[: end - 2000] + bytes(len(data) - end + 2000))
    with opened(copy) as store:
        assert len(messages(store.queue("red"))) == len(messages(store.queue("blue"))) == 8


def test_a_fanned_out_body_can_be_placed_again(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store:
        one, two, three = (store.queue(name) for name in ("one", "two", "three"))
        store.fanout([one, two], b"body", attributes=Attributes(tag="t"))
        store._place(three, int(two.index()["position"][0]))
        assert three.group().receive(1).tolist() == [b"body"]
        assert three.index()["size"].tolist() == two.index()["size"].tolist()


def test_another_queues_entry_does_not_deliver_it(tmp_path: Path) -> None:
    """An entry that names the wrong recipient is damage, not somebody else's message."""
    with opened(tmp_path / "s") as store:
        one, two = store.queue("one"), store.queue("two")
        store.fanout([one, two], b"body")
        store.checkpoint()
        [(page, _, _)] = two._pages(0, 1)
        entries = np.memmap(tmp_path / "s" / "index", np.uint32, "r+")
        slot = page * 1024 + 7
        assert entries[slot] == 1
        for wrong in (0, 2, 1 << 31):
            entries[slot] = wrong
            assert len(two.read(offset=0)) == 0
        entries[slot] = 1
        assert two.read(offset=0).tolist() == [b"body"]


def test_a_segment_is_needed_until_the_last_queue_gave_it_up(tmp_path: Path) -> None:
    with quiet(opened(tmp_path / "s")) as store:
        queues = [store.queue(f"q{n}") for n in range(5)]
        store.fanout(queues, bytes(1000), attributes=Attributes(tag="t"), producer=1, sequence=1)

        def needed(of: Store) -> int:
            while not Reclaimer(of).give_up(1000):
                pass
            return sum(live for live, _, _ in Reclaimer(of).live().values())

        one = int(queues[0].index()["size"][0])
        for left, queue in zip(range(4, -1, -1), queues, strict=True):
            assert needed(store) == (left + 1) * one
            if left % 2:
                queue.purge()
            else:
                store.delete(queue.name)
            assert needed(store) == left * one
            with quiet(opened(crashed(store, tmp_path / str(left)))) as after:
                assert needed(after) == left * one


def test_two_processes_see_the_same(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as store, opened(tmp_path / "s") as other:
        queues = [store.queue("a"), store.queue("b")]
        store.fanout(queues, b"x")
        assert isinstance(other, Store)
        assert [messages(other.queue(name)) for name in ("a", "b")] == [{0: b"x"}] * 2
