"""Opening, recovering and closing a store; the views of its index."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import secrets
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.engine.errors import CorruptionError, EngineError, InvalidError, StoreLockedError
from penstock.engine.reclaim import Reclaim, forget_checkpoints, save, settled
from penstock.engine.timekeeper import Timekeeper

if TYPE_CHECKING:
    from penstock.engine._core import Queue, Store

# One entry of the index, as in docs/format.md; position 0 marks a message lost to damage.
ENTRY = np.dtype(
    [("position", "<u8"), ("stored_us", "<u8"), ("size", "<u4"), ("tag", "<u4"), ("key", "<u4"),
     ("spare", "<u4")]
)
CONTROL_MAGIC = 0x314C525453544E50
CONTROL_VERSION, CONTROL_READY, CONTROL_CLOSED = 1, 1, 2
SEGMENT_HEADER = 4096
CHECKPOINT_BYTES = 64 << 20
MAINTENANCE_S = 0.05
AHEAD = 4  # segments made ahead of need at most
LOW = 8  # segments for which there must be room, else one is kept for confirmations


def open_store(
    kind: type[Store], path: Any, durability: str, segment_size: int, repair: bool
) -> Store:
    """An open store; see Store.open."""
    if durability not in ("disk", "kernel"):
        raise InvalidError(f"durability is 'disk' or 'kernel', not {durability!r}")
    if not 1 << 20 <= segment_size <= 1 << 30 or segment_size % 4096:
        raise InvalidError("segment_size is a multiple of 4096 from 1 MiB to 1 GiB")
    root = os.path.abspath(os.fspath(path))
    if len(os.fsencode(root)) > 3000:
        raise InvalidError("the path of a store has at most 3000 bytes")
    for part in ("", "log", "ckpt"):
        os.makedirs(os.path.join(root, part), exist_ok=True)
    refuse_network(root)
    lock = os.open(os.path.join(root, "LOCK"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    store = kind.__new__(kind)
    try:
        join(store, root, lock, segment_size, repair)
    except BaseException:
        if not attached(store):
            os.close(lock)
        raise
    store._begin(durability, Maintenance(store))
    store._maintenance().start()
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
    except OSError:
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
            closed = left_as(root, CONTROL_CLOSED)
            store._map(True, boot_id())
            recover(store, root, repair)
            if not closed:
                store._suspect()
            file_lock(lock, fcntl.F_RDLCK, wait=True)
            return
        if not file_lock(lock, fcntl.F_RDLCK, wait=True):
            raise StoreLockedError(f"{root} is locked")
        if left_as(root, CONTROL_READY):
            store._attach(root, *identify(root, segment_size), lock)
            store._map(False, b"")
            return
        # Whoever recovered died before it was done: one of us must get the lock alone.
        file_lock(lock, fcntl.F_UNLCK, wait=True)
        time.sleep(random.uniform(0.001, 0.01))


def left_as(root: str, state: int) -> bool:
    """Whether the control file is of this boot and says that the store is ready, or closed."""
    try:
        with open(os.path.join(root, "control"), "rb") as file:
            magic, version, ready, boot = struct.unpack("<QII16s", file.read(32))
    except (OSError, struct.error):
        return False
    found = (magic, version, ready, boot)
    return bool(found == (CONTROL_MAGIC, CONTROL_VERSION, state, boot_id()))


def boot_id() -> bytes:
    """16 bytes that change with each start of the kernel: what memory held is gone with it."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text()
    return bytes.fromhex(text.strip().replace("-", ""))


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
    text, _, digest = Path(path).read_text().rstrip("\n").partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise CorruptionError(f"{path}: its checksum does not fit; nothing was changed")
    facts = json.loads(text)
    if facts["format"] != 1:
        raise InvalidError(f"{path}: format {facts['format']}, this version reads 1")
    return (bytes.fromhex(facts["id"]), int(facts["salt"], 16), bytes.fromhex(facts["key"]),
            facts["segment_size"])


def recover(store: Store, root: str, repair: bool) -> None:
    """Bring the state to what the log says: the numbered steps of docs/architecture.md."""
    numbers = segments(root)
    if not numbers:
        store._create(1)
        store._start(0, 1, 1, False)
        return
    position, clean = newest_checkpoint(store, root)
    if not position and not repair:
        refuse_headless(root, numbers)
    start = position or numbers[0] << 32 | SEGMENT_HEADER
    if not clean:
        settle_segments(root, [number for number in numbers if number >= start >> 32])
    damaged = store._segments(
        numbers[-1], [n for n in numbers if used(root, n)]
    )
    if damaged and not repair:
        raise CorruptionError(
            f"{segment_path(root, damaged[0])}: the header is damaged, so its frames cannot "
            "be judged. Nothing was changed. Restore the file, or open with repair=True to "
            "leave it out"
        )
    for _ in damaged:
        store._count_damage()
    end, promised = store._replay(start, position)
    end = past_damage(store, root, end, promised, repair)
    last = numbers[-1]
    # Going on behind the end is safe only where nothing was ever written: a frame of a life that a
    # power cut ended could stand there and be taken for the next one.
    if clean and end == position and end >> 32 == last_used(root, numbers) and store._blank(end):
        store._start(end, 0, last, True)
        settled(store, numbers, end >> 32, end)
        return
    number = (end >> 32) + 1
    while used(root, number):
        number += 1
    if number > last:
        store._create(number)
    store._start(end, number, max(last, number), False)
    settled(store, numbers, number, end)


def refuse_headless(root: str, numbers: list[int]) -> None:
    """Raise CorruptionError if the log does not go back to its beginning: it needs a checkpoint."""
    first = next((number for number in numbers if used(root, number)), 0)
    if not first:
        return
    with open(segment_path(root, first), "rb") as file:
        before = int.from_bytes(file.read(72)[64:], "little")
    if before:
        raise CorruptionError(
            f"{root}/ckpt: no checkpoint is whole, and what the log had before "
            f"{segment_path(root, first)} was reclaimed. Nothing was changed. Restore a "
            "checkpoint, or open with repair=True to have what the rest of the log says"
        )


def settle_segments(root: str, numbers: list[int]) -> None:
    """Bring segments to the state a power cut would leave them in, before anything is read.

    What a killed process wrote is put on disk, so that it may be called durable; and the
    page cache is dropped, because after a failed fsync it can show bytes that the disk never got.
    """
    for number in numbers:
        descriptor = os.open(segment_path(root, number), os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def segment_path(root: str, number: int) -> str:
    """The path of a segment's file."""
    return os.path.join(root, "log", f"{number:08x}.seg")


def newest_checkpoint(store: Store, root: str) -> tuple[int, bool]:
    """Load the newest whole checkpoint: (its position, whether it was a clean close)."""
    folder = os.path.join(root, "ckpt")
    for name in sorted((n for n in os.listdir(folder) if n != "new"), reverse=True):
        found = store._load(Path(folder, name).read_bytes())
        if found is not None:
            return found
    return 0, False


def past_damage(store: Store, root: str, end: int, promised: int, repair: bool) -> int:
    """The true end of the log: end if a crash tore it there, else report or leave out damage."""
    while True:
        promised = max(promised, store._promise_after(end))
        if promised <= end:
            return end
        following = store._frame_after(end)
        to = place(root, following[0]) if following else f"at least {place(root, promised)}"
        if not repair:
            raise CorruptionError(
                f"{place(root, end)}: acknowledged frames are damaged, from here to {to}. "
                "Nothing was changed. Restore the file, or open with repair=True to leave out "
                "what is damaged"
            )
        store._count_damage()
        if following is None:
            return end
        store._expect(following[1])
        end, promised = store._replay(following[0], promised)


def place(root: str, position: int) -> str:
    """A position in the words of the file system."""
    return f"{segment_path(root, position >> 32)} byte {position & 0xFFFFFFFF}"


def segments(root: str) -> list[int]:
    """The numbers of the segments there are, in order."""
    names = os.listdir(os.path.join(root, "log"))
    return sorted(int(name[:-4], 16) for name in names if name.endswith(".seg"))


def last_used(root: str, numbers: list[int]) -> int:
    """The number of the last segment that was ever written to."""
    return max((number for number in numbers if used(root, number)), default=0)


def used(root: str, number: int) -> bool:
    """Whether a segment was ever written to: its header is there."""
    try:
        with open(segment_path(root, number), "rb") as file:
            return file.read(8) != bytes(8)
    except FileNotFoundError:
        return False


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
    stat = store.stat()
    if not stat["poisoned"]:
        store._flush()
        # Alone (nobody else holds it shared): what is saved now is the end of the log.
        if file_lock(lock, fcntl.F_WRLCK, wait=False):
            store._checkpoint(True)
            store._left()
            forget_checkpoints(store.path)
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


class Maintenance(threading.Thread):
    """Makes segments ahead of need, flushes what was sent at kernel durability, checkpoints."""

    def __init__(self, store: Store) -> None:
        super().__init__(name="penstock-maintenance", daemon=True)
        self.store = store
        self.ended = threading.Event()
        self.segment = 0
        self.keeper: Timekeeper | None = None
        self.reclaim = Reclaim(store)

    def run(self) -> None:
        while not self.ended.wait(MAINTENANCE_S):
            try:
                self.turn()
            except EngineError:
                return
            except OSError:
                # A checkpoint that cannot be written costs time at the next open, nothing else.
                self.ended.wait(1)

    def turn(self) -> None:
        """One round of work; cheap when there is none."""
        if self.store.stat()["poisoned"]:
            return
        self.store._prepare(self.ahead())
        self.store._flush()
        if self.keeper is None and len(self.store.pending):
            self.keeper = Timekeeper(self.store)
            self.keeper.start()
        if self.store._due_checkpoint(CHECKPOINT_BYTES):
            save(self.store)
        self.reclaim.turn(time.monotonic())

    def ahead(self) -> int:
        """How many segments to have ready: more when they were used up fast since the last turn."""
        segment = self.store.stat()["written"] >> 32
        used_up, self.segment = segment - self.segment, segment
        if used_up == 0:
            # Where the disk is nearly full one more stands by, which messages do not get.
            return 2 if self.low() else 1
        return min(1 + 2 * used_up, AHEAD)

    def low(self) -> bool:
        """Whether the file system has room for a few segments only."""
        facts = os.statvfs(self.store.path)
        return facts.f_bavail * facts.f_frsize < LOW * self.store.segment_size

    def stop(self) -> None:
        self.ended.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()
        if self.keeper is not None:
            self.keeper.stop()
