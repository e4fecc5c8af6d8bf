"""A process dies after any store it makes to what it shares with others: nobody else is hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_language import LONG, opened, quiet
from stepping import deaths, die_after, may_step

from penstock.engine import Attributes, Consumer, Store

pytestmark = pytest.mark.skipif(not may_step(), reason="this machine lets nobody step a child")

KEYS = "aabab."


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with opened(tmp_path / "store") as store:
        yield quiet(store)


def ordered(store: Store, order: str) -> Consumer:
    group = store.queue("red").group()
    group.configure(order=order)
    return group


def sent(store: Store) -> list[int]:
    """The offsets of messages just sent, one for each letter of KEYS, which is its key."""
    queue = store.queue("red")
    return [
        queue.append(b"x", attributes=Attributes(key=key.strip("."))).offset for key in KEYS
    ]


def drained(group: Consumer) -> list[int]:
    """What is delivered until nothing is left, each message confirmed at once."""
    seen: list[int] = []
    while len(batch := group.receive(100, lease_ms=LONG)):
        seen += batch.offsets.tolist()
        assert set(group.confirm(batch.receipts)) == {0}
    return seen


def assert_complete(seen: list[int], offsets: list[int], order: str) -> None:
    """Each message came once, those of a key in their order."""
    assert sorted(seen) == offsets
    if order == "key":
        for key in set(KEYS) - {"."}:
            line = [at for at in offsets if KEYS[at - offsets[0]] == key]
            assert [at for at in seen if at in line] == line


def taking(path: str, lease_ms: int) -> Callable[[], Callable[[], object]]:
    def ready() -> Callable[[], object]:
        group = quiet(opened(Path(path))).queue("red").group()
        return lambda: group.receive(7, lease_ms=lease_ms)
    return ready


def step(soak: bool) -> int:
    return 1 if soak else 3


@pytest.mark.parametrize("order", ["none", "key"])
def test_who_dies_taking_loses_no_message(order: str, store: Store, soak: bool) -> None:
    group = ordered(store, order)
    offsets = sent(store)
    count = 0
    for _ in deaths(taking(store.path, 0), store.path, step=step(soak)):
        assert_complete(drained(group), offsets, order)
        offsets = sent(store)
        count += 1
    assert count > 5
    assert_complete(drained(group), offsets, order)
    assert group.stat()["floor"] == offsets[-1] + 1


@pytest.mark.parametrize("order", ["none", "key"])
def test_who_dies_taking_again_loses_no_message(order: str, store: Store, soak: bool) -> None:
    group = ordered(store, order)
    offsets = sent(store)
    group.receive(7, lease_ms=0)
    count = 0
    for _ in deaths(taking(store.path, 0), store.path, step=step(soak)):
        assert_complete(drained(group), offsets, order)
        offsets = sent(store)
        group.receive(7, lease_ms=0)
        count += 1
    assert count > 5


def test_who_dies_taking_the_last_of_a_line_loses_no_message(store: Store) -> None:
    group = ordered(store, "key")
    count = 0
    while True:
        offsets = sent(store)
        first = group.receive(3, lease_ms=LONG)
        group.confirm(first.receipts)
        if not die_after(taking(store.path, 0), store.path, 1 + count):
            break
        assert_complete(first.offsets.tolist() + drained(group), offsets, "key")
        count += 1
    assert count > 5


@pytest.mark.parametrize("order", ["none", "key"])
def test_who_dies_confirming_leaves_the_rest_to_others(
    order: str, store: Store
) -> None:
    group = ordered(store, order)
    offsets = sent(store)
    batch = group.receive(3, lease_ms=LONG)

    def ready() -> Callable[[], object]:
        mine = quiet(opened(Path(store.path))).queue("red").group()
        return lambda: mine.confirm(batch.receipts)

    count = 0
    for _ in deaths(ready, store.path):
        taken = batch.offsets.tolist()
        # Who dies on the way may have confirmed each of them, or not; its receipts hold as long.
        assert set(group.confirm(batch.receipts)) <= {0, 1}
        assert_complete(taken + drained(group), offsets, order)
        assert group.stat()["floor"] == offsets[-1] + 1
        offsets = sent(store)
        batch = group.receive(3, lease_ms=LONG)
        count += 1
    assert count > 5


@pytest.mark.parametrize("order", ["none", "key"])
@pytest.mark.parametrize("delay_ms", [0, 1])
def test_who_dies_giving_back_loses_no_message(
    delay_ms: int, order: str, store: Store
) -> None:
    group = ordered(store, order)
    offsets = sent(store)
    batch = group.receive(3, lease_ms=LONG)

    def ready() -> Callable[[], object]:
        mine = quiet(opened(Path(store.path))).queue("red").group()
        return lambda: mine.release(batch.receipts, delay_ms=delay_ms)

    count = 0
    for _ in deaths(ready, store.path):
        group.release(batch.receipts)
        store._clock(1_000_000 * (count + 1))
        assert_complete(drained(group), offsets, order)
        offsets = sent(store)
        batch = group.receive(3, lease_ms=LONG)
        count += 1
    assert count > 5


def test_who_dies_making_the_tree_higher_leaves_it_whole(store: Store) -> None:
    queue = store.queue("red")
    queue.append_many([b"x"] * 300)
    count = 0
    while True:
        # The 256 slots of its first leaf are taken up in the child.
        group = queue.group(f"group {count}")
        first = group.receive(255, lease_ms=LONG)

        def ready(name: str = f"group {count}") -> Callable[[], object]:
            mine = quiet(opened(Path(store.path))).queue("red").group(name)
            return lambda: mine.receive(7, lease_ms=0)

        if not die_after(ready, store.path, 1 + count):
            break
        group.confirm(first.receipts)
        assert sorted(first.offsets.tolist() + drained(group)) == list(range(300))
        count += 1
    assert count > 5
