"""Opening and closing a store, and the views of its index."""

from __future__ import annotations

import errno
import fcntl
import gc
import hashlib
import json
import os
import random
import secrets
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.engine.control import CLOSED, READY, boot_id, left_as, refuse_other_version
from penstock.engine.errors import (
    CorruptionError,
    EngineError,
    InvalidError,
    OpenLimitError,
    StoreFullError,
    StoreLockedError,
)
from penstock.engine.maintenance import Maintenance
from penstock.engine.reclaim import save
from penstock.engine.recovery import recover

if TYPE_CHECKING:
    from penstock.engine._core import Queue, Store

# One entry of the index, as in docs/format.md; position 0 marks a message lost to damage.
ENTRY = np.dtype(
    [("position", "<u8"), ("stored_us", "<u8"), ("size", "<u4"), ("tag", "<u4"), ("key", "<u4"),
     ("spare", "<u4")]
)
READY_MOST = 1 << 40  # bytes of log that can be asked to be ready
# What a process runs out of that has many stores open.
SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def open_store(
    kind: type[Store], path: Any, durability: str, segment_size: int, repair: bool, ready: int
) -> Store:
    """An open store; see Store.open."""
    if durability not in ("disk", "kernel"):
        raise InvalidError(f"durability is 'disk' or 'kernel', not {durability!r}")
    if not 1 << 20 <= segment_size <= 1 << 30 or segment_size % 4096:
        raise InvalidError("segment_size is a multiple of 4096 from 1 MiB to 1 GiB")
    if not 0 <= ready <= READY_MOST:
        raise InvalidError(f"ready is a number of bytes from 0 to {READY_MOST}, not {ready}")
    if not os.fspath(path):
        raise InvalidError("a store needs the name of a folder")
    root = os.path.abspath(os.fspath(path))
    if len(os.fsencode(root)) > 3000:
        raise InvalidError("the path of a store has at most 3000 bytes")
    try:
        for part in ("", "log", "ckpt"):
            os.makedirs(os.path.join(root, part), exist_ok=True)
        return opened(kind, root, durability, segment_size, repair, ready)
    except OSError as error:
        if error.errno == errno.ENOSPC and not isinstance(error, EngineError):
            raise StoreFullError(
                errno.ENOSPC, "no room to open the store; free some space and open again", root
            ) from error
        if error.errno not in SHORT:
            raise
    # Batches and stores that nobody can reach any more may hold what there is too little of.
    gc.collect()
    try:
        return opened(kind, root, durability, segment_size, repair, ready)
    except OSError as error:
        if error.errno not in SHORT:
            raise
        raise OpenLimitError(
            error.errno, f"no room in this process for one more open store ({error.strerror}): "
            "close some, or raise its limit of open files (8 a store), threads or addresses",
            root) from error


def opened(
    kind: type[Store], root: str, durability: str, segment_size: int, repair: bool, ready: int
) -> Store:
    """One attempt to open; a failed one leaves nothing behind in the process."""
    refuse_network(root)
    lock = os.open(os.path.join(root, "LOCK"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    store = kind.__new__(kind)
    try:
        join(store, root, lock, segment_size, repair)
        store._begin(durability, Maintenance(store, ready))
    except BaseException:
        if attached(store):
            store._end()
        else:
            os.close(lock)
        raise
    try:
        store._maintenance().start()
    except RuntimeError as error:
        close_store(store)
        raise OSError(errno.EAGAIN, f"its maintenance cannot begin: {error}", root) from error
    return store


def attached(store: Store) -> bool:
    """Whether the store owns its descriptors already (and closes them itself)."""
    try:
        store._lock_fd()
    except EngineError:
        return False
    return True


def refuse_network(root: str) -> None:
    """Raise InvalidError on a file system whose maps are not shared between its users."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    except (FileNotFoundError, PermissionError):
        return
    device = os.stat(root).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:
        fields = line.split()
        if fields[2] == name:
            kind = fields[fields.index("-") + 1]
            if kind in ("nfs", "nfs4", "9p", "cifs", "smb3", "fuse.sshfs"):
                raise InvalidError(f"{root} lies on {kind}: a store needs a local file system")


def join(store: Store, root: str, lock: int, segment_size: int, repair: bool) -> None:
    """Get the lock alone and recover, or get it shared and take the store as the others have it."""
    while True:
        if file_lock(lock, fcntl.F_WRLCK, wait=False):
            identity = identify(root, segment_size)
            store._attach(root, *identity, lock)
            closed = left_as(root, CLOSED)
            store._map(True, boot_id())
            recover(store, root, repair)
            if not closed:
                store._suspect()
            file_lock(lock, fcntl.F_RDLCK, wait=True)
            return
        if not file_lock(lock, fcntl.F_RDLCK, wait=True):
            raise StoreLockedError(f"{root} is locked")
        if left_as(root, READY):
            store._attach(root, *identify(root, segment_size), lock)
            store._map(False, b"")
            return
        refuse_other_version(root)
        # Whoever recovered died before it was done: one of us must get the lock alone.
        file_lock(lock, fcntl.F_UNLCK, wait=True)
        time.sleep(random.uniform(0.001, 0.01))


def file_lock(fd: int, kind: int, *, wait: bool) -> bool:
    """Lock byte 0 for this open file; False if another holds it and wait is false."""
    request = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 1, 0)
    try:
        fcntl.fcntl(fd, 38 if wait else 37, request)  # F_OFD_SETLKW, F_OFD_SETLK
    except BlockingIOError:
        return False
    except PermissionError:
        return False
    return True


def identify(root: str, segment_size: int) -> tuple[bytes, int, bytes, int]:
    """The store's id, salt, receipt key and segment size: the file "store", written if absent."""
    path = os.path.join(root, "store")
    if not os.path.exists(path):
        facts = {
            "format": 1, "id": secrets.token_hex(16), "salt": secrets.token_hex(8),
            "key": secrets.token_hex(16), "segment_size": segment_size,
        }
        text = json.dumps(facts, sort_keys=True)
        text += "\n" + hashlib.sha256(text.encode()).hexdigest() + "\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(path + ".new", flags, 0o600)
        with open(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(path + ".new", path)
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(directory)
        os.close(directory)
    text, _, digest = Path(path).read_text(errors="replace").rstrip("\n").partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise CorruptionError(f"{path}: its checksum does not fit; nothing was changed")
    facts = json.loads(text)
    if facts["format"] != 1:
        raise InvalidError(f"{path}: format {facts['format']}, this version reads 1")
    return (bytes.fromhex(facts["id"]), int(facts["salt"], 16), bytes.fromhex(facts["key"]),
            facts["segment_size"])


def close_store(store: Store) -> None:
    """Leave the store; the last one out saves a clean checkpoint."""
    try:
        lock = store._lock_fd()
    except EngineError:
        return
    if not store._closing():
        return
    store._maintenance().stop()
    for lane in store._lanes():
        lane.close()
    try:
        if not store.stat()["poisoned"]:
            store._flush()
            # Alone (nobody else holds it shared): what is saved now is the end of the log.
            if file_lock(lock, fcntl.F_WRLCK, wait=False):
                save(store, clean=True)
                store._left()
    finally:
        # Without a checkpoint the next open reads what came after the one before.
        store._end()


def index_chunks(queue: Queue, low: int, high: int) -> list[np.ndarray[Any, Any]]:
    """Read-only views of the mapped index, a chunk of at most 128 entries each."""
    pages = queue._pages(low, high)
    if not pages:
        return []
    mapped = np.memmap(os.path.join(queue.store.path, "index"), dtype=ENTRY, mode="r")
    return [mapped[p * 128 + first : p * 128 + first + count] for p, first, count in pages]


def index_array(queue: Queue, low: int, high: int) -> np.ndarray[Any, Any]:
    """The entries as one array."""
    chunks = index_chunks(queue, low, high)
    if len(chunks) == 1:
        return chunks[0]
    return np.concatenate(chunks) if chunks else np.empty(0, ENTRY)
