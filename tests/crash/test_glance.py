"""One message is taken with the interpreter's lock held, unless something has to be waited for."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from engine_language import LONG, opened, quiet
from stepping import die, halt_after, may_step

from penstock.engine import Batch, Consumer, Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield quiet(store)


def confirmed(group: Consumer) -> Batch:
    """The next message, confirmed, its damage if any passed by."""
    batch = group.receive(1, lease_ms=LONG)
    assert not len(batch) or group.confirm(batch.receipts) == b"\0"
    return batch


@pytest.mark.skipif(not may_step(), reason="this machine lets nobody step a child")
def test_who_waits_for_another_process_leaves_the_interpreter_to_others(store: Store) -> None:
    queue = store.queue("red")
    group = queue.group()
    queue.append_many([b"a", b"b"])

    def taking() -> object:
        mine = quiet(opened(Path(store.path))).queue("red").group()
        return lambda: mine.receive(1, lease_ms=0)

    child = halt_after(taking, store.path, 2)
    assert child, "it was to stand still within the lock"
    # If we did not run meanwhile, this ends the wait, and the test fails below.
    rescue = subprocess.Popen([sys.executable, "-c",
                               f"import os, time; time.sleep(20); os.kill({child}, 9)"])
    begun = threading.Event()
    ended: list[int] = []

    def take() -> None:
        begun.set()
        ended.append(len(group.receive(1)))

    interval = sys.getswitchinterval()
    try:
        sys.setswitchinterval(60)       # from begun on it runs until it gives up the lock itself
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(take)
            begun.wait()
            ran = not ended
            die(child)
            taken.result()
        assert ran
        assert ended == [1]
    finally:
        sys.setswitchinterval(interval)
        rescue.kill()
        rescue.wait()


@pytest.mark.parametrize("size", [0, 1, 4000, 4096, 4097, 100_000])
def test_sizes_around_the_border_come_in_order(size: int, store: Store) -> None:
    queue = store.queue("red")
    bodies = [bytes([at]) * size for at in range(5)]
    queue.append_many(bodies)
    assert [bytes(confirmed(queue.group())[0]) for _ in bodies] == bodies
    assert not len(queue.group().receive(1))


def test_a_damaged_message_is_passed_by_and_counted_once(store: Store) -> None:
    queue = store.queue("red")
    queue.append_many([b"first", b"damaged here", b"third"])
    [log] = [file for file in Path(store.path).rglob("*") if file.is_file()
             and b"damaged here" in file.read_bytes()]
    with log.open("r+b") as raw:
        raw.seek(log.read_bytes().index(b"damaged here"))
        raw.write(b"D")
    assert [bytes(body) for body in confirmed(queue.group())] == [b"first"]
    assert [bytes(body) for body in confirmed(queue.group())] == [b"third"]
    assert store.stat()["corrupt"] == 1


def test_what_comes_again_comes_before_what_is_new(store: Store) -> None:
    queue = store.queue("red")
    queue.append_many([b"a", b"b", b"c"])
    group = queue.group()
    group.release(group.receive(1, lease_ms=LONG).receipts)
    assert [bytes(confirmed(group)[0]) for _ in range(3)] == [b"a", b"b", b"c"]


def test_what_was_written_last_is_warm_whatever_segment_it_is_in(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store", segment_size=16 << 20, durability="kernel") as store:
        queue = store.queue("red")
        group = queue.group()
        assert group.warm and group.exists
        # 16 segments hold 256 MiB.
        for megabytes, warm in ((230, True), (60, False)):
            for _ in range(megabytes):
                queue.append(b"x" * (1 << 20))
            assert group.warm is warm
        assert len(group.receive(100, max_bytes=100 << 20)) > 60
        assert group.warm
        store.delete("red")
        assert not group.exists
