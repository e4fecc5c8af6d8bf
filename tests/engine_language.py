"""The words in which the engine's tests speak: small stores, crashes, and what a store holds."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from penstock.engine import Consumer, Queue, Store
from penstock.engine.maintenance import Maintenance
from penstock.engine.store import file_lock

SEGMENT = 1 << 20
LONG = 3_600_000
RECEIPT = 24
DONE, STALE, FORGED = 0, 1, 2


def opened(path: Path, **options: Any) -> Store:
    """The store at path with segments of 1 MiB, made if there is none."""
    return Store.open(path, segment_size=SEGMENT, **options)


def quiet(store: Store) -> Store:
    """The store without its maintenance thread: what happens is what the test does."""
    store._maintenance().stop()
    return store


def unattended(path: Path, **options: Any) -> Store:
    """The store at path without its maintenance thread from the beginning: see quiet()."""
    with mock.patch.object(Maintenance, "start", lambda self: None):
        return opened(path, **options)


def killed(*stores: Store) -> None:
    """What a kill -9 of all who have this store open would do: let go of it and write nothing.

    A batch that is still held would keep it: then the next open would join it, and recover nothing.
    """
    path = stores[0].path
    for store in stores:
        store._maintenance().stop()
        store._end()
    lock = os.open(Path(path, "LOCK"), os.O_RDWR)
    assert file_lock(lock, fcntl.F_WRLCK, wait=False), "something still holds the store"
    os.close(lock)


def crashed(store: Store, to: Path) -> Path:
    """What a kill -9 of all users would leave, in another directory; the store goes on."""
    names = ("control*", "LOCK", "*.new", "new")
    shutil.copytree(store.path, to, ignore=shutil.ignore_patterns(*names))
    return to


def messages(queue: Queue) -> dict[int, bytes]:
    """Everything that can be read, by offset."""
    found: dict[int, bytes] = {}
    start = 0
    while start < queue.stat()["visible"]:
        batch = queue.read(offset=start, max_messages=5000, max_bytes=16 << 20)
        if not len(batch):
            break
        found.update(zip(batch.offsets.tolist(), batch.tolist(), strict=True))
        start = int(batch.offsets[-1]) + 1
    return found


def deliveries(consumer: Consumer, *, lease_ms: int = LONG) -> dict[int, bytes]:
    """Everything the group delivers now, by offset; nothing is confirmed."""
    found: dict[int, bytes] = {}
    while len(batch := consumer.receive(1000, lease_ms=lease_ms)):
        assert not found.keys() & set(batch.offsets.tolist())
        found.update(zip(batch.offsets.tolist(), batch.tolist(), strict=True))
    return found


def split(receipts: bytes) -> list[bytes]:
    """Single receipts."""
    return [receipts[at : at + RECEIPT] for at in range(0, len(receipts), RECEIPT)]


def started(work: Callable[..., None], *args: Any) -> Any:
    """A running process that does the work; kill or join it."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside threads; the child opens its own store.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def in_child(work: Callable[..., None], *args: Any, within_s: float = 20) -> int | str:
    """How a process that did the work ended: 0, its exit code or signal, or "hangs"."""
    process = started(work, *args)
    process.join(within_s)
    if process.is_alive():
        process.kill()
        process.join()
        return "hangs"
    return int(process.exitcode)


def files(root: Path) -> dict[str, bytes]:
    """The log and the checkpoints of a closed store."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for part in ("log", "ckpt")
        for path in sorted((root / part).iterdir())
    }


def descriptors_and_maps() -> tuple[int, int]:
    """How many files this process has open and how many maps it has."""
    maps = Path("/proc/self/maps").read_text().count("\n")
    return len(os.listdir("/proc/self/fd")), maps
