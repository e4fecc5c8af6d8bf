"""Many stores in one process: what an open one takes of it, and what a closed one gives back."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine_language import in_child, opened, quiet
from penstock.engine import Batch, CorruptionError, OpenLimitError, Store, StoreClosedError
from penstock.engine.check import check

MANY = 300


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """What a closed store takes must not depend on when cycles are looked for."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def mapped(path: Path) -> int:
    """How many maps of files in a folder the process has."""
    return sum(f" {path}/" in line for line in Path("/proc/self/maps").read_text().splitlines())


def held(path: Path) -> int:
    """How many descriptors of files in a folder the process has."""
    own = Path("/proc/self/fd")
    return sum(os.path.realpath(own / name).startswith(f"{path}/") for name in os.listdir(own))


def received(store: Store) -> Batch:
    queue = store.queue("q")
    queue.append(b"kept")
    return queue.group().receive(1)


def test_a_closed_store_that_is_still_referred_to_takes_no_addresses_and_no_descriptors(
        tmp_path: Path) -> None:
    store = opened(tmp_path)
    queue = store.queue("q")
    queue.append(b"x")
    assert len(queue.read()) == 1 and mapped(tmp_path) and held(tmp_path)
    store.close()
    assert (mapped(tmp_path), held(tmp_path)) == (0, 0)
    for call in (store.stat, queue.stat, queue.read, queue.purge, store.queues, store.checkpoint,
                 lambda: queue.offset_at(0), queue.group, lambda: queue.append(b"y"),
                 lambda: store.queue("q"), store._flush):
        with pytest.raises(StoreClosedError):
            call()


def test_what_a_batch_shows_outlives_its_store_and_goes_with_it(tmp_path: Path) -> None:
    store = opened(tmp_path)
    batch = received(store)
    view = batch[0]
    store.close()
    assert mapped(tmp_path)
    del batch
    assert bytes(view) == b"kept"
    del view
    assert (mapped(tmp_path), held(tmp_path)) == (0, 0)


def test_a_store_that_could_not_be_opened_takes_nothing(tmp_path: Path) -> None:
    opened(tmp_path).close()
    for file in (tmp_path / "ckpt").iterdir():
        file.unlink()
    segment = tmp_path / "log" / "00000001.seg"
    segment.write_bytes(b"\1" + segment.read_bytes()[1:])
    with pytest.raises(CorruptionError) as caught:
        opened(tmp_path)
    assert caught and (mapped(tmp_path), held(tmp_path)) == (0, 0)


def test_check_leaves_no_map_behind(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        store.queue("q").append(b"x")
        assert not check(tmp_path).problems
    assert not check(tmp_path).problems
    assert mapped(tmp_path) == 0


def test_many_stores_can_be_open_at_once(soak: bool) -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    many = 1000 if soak else MANY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 8 * many + 200:
        pytest.skip(f"{many} open stores take {8 * many} descriptors, here are at most {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stores: list[Store] = []
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
    try:
        for number in range(many):
            stores.append(quiet(opened(folder / str(number))))
            stores[-1].queue("q").append(b"%d" % number, durability="kernel")
        for number, store in enumerate(stores):
            store._flush()
            assert store.queue("q").read().tolist() == [b"%d" % number]
    finally:
        for store in stores:
            store.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        shutil.rmtree(folder)


def leave_descriptors(count: int) -> None:
    """In a child: let the process have so many more descriptors and no others."""
    most = max(map(int, os.listdir("/proc/self/fd"))) + 64
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for descriptor in taken[:count]:
        os.close(descriptor)


def leave_addresses(size: int) -> None:
    """In a child: let the process have so many more bytes of addresses."""
    used = 4096 * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (used + size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def open_until_refused(
        path: Path, limit: int, leave: Callable[[int], None], count: int, error: int) -> None:
    """In a child: an open beyond a limit of the process is refused by name, and loses nothing."""
    first = quiet(opened(path / "first"))
    first.queue("q").append(b"x")
    before = resource.getrlimit(limit)
    leave(count)
    with pytest.raises(OpenLimitError, match="raise its limit") as caught:
        opened(path / "second")
    assert caught.value.errno == error
    assert first.queue("q").append(b"y").offset == 1
    resource.setrlimit(limit, before)
    with opened(path / "second") as second:
        second.queue("q").append(b"z")


@pytest.mark.parametrize(
    ("limit", "leave", "count", "error"),
    [(resource.RLIMIT_NOFILE, leave_descriptors, 5, errno.EMFILE),
     (resource.RLIMIT_AS, leave_addresses, 1 << 30, errno.ENOMEM)])
def test_one_store_too_many_is_refused_by_name(
        tmp_path: Path, limit: int, leave: Callable[[int], None], count: int, error: int) -> None:
    assert in_child(open_until_refused, tmp_path, limit, leave, count, error) == 0


def open_beside_garbage(path: Path) -> None:
    """In a child: there is room for one store only, and a closed one is held by a cycle."""
    store = opened(path / "first")
    cycle: list[object] = [received(store)]
    cycle.append(cycle)
    store.close()
    del store, cycle
    gc.disable()
    leave_descriptors(5)
    opened(path / "second").close()


def test_what_only_cycles_hold_is_given_up_for_a_store_that_is_to_be_opened(
        tmp_path: Path) -> None:
    assert in_child(open_beside_garbage, tmp_path) == 0
