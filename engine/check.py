"""Verify a store without opening it: the log, the checkpoints, and the index against the log.

Nothing is written and no lock is taken: a lock held here would make an opener believe that a store
left by a crash is in use, and join it without recovery. Whether it is in use is asked, which takes
nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import struct
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest as xxh3

from penstock.engine.check_cold import ColdFiles
from penstock.engine.check_fold import BYTE, FRAME, SLOT, TABLE_SLOTS, Fold, judge
from penstock.engine.check_live import Live, segment_table
from penstock.engine.check_report import Report
from penstock.engine.control import READY, control, left_as

SEGMENT = struct.Struct("<QII16sQQQQQQQ")
SEGMENT_NAME = re.compile(r"[0-9a-f]{8}\.seg")
CHECKPOINT = struct.Struct("<QIIQQQQQQ16sQ")
SEGMENT_MAGIC = int.from_bytes(b"PENSSEG1", "little")
CHECKPOINT_MAGIC = int.from_bytes(b"PENSCKT1", "little")
VERSION = 1
HEADER = 4096
STATE_SIZE = 256
TABLE_AT = 65536
PRODUCERS_SIZE = 1 << 20
READ_STEP = 1 << 20


def check(path: str | os.PathLike[str],
          progress: Callable[[int, int], None] | None = None) -> Report:
    """A report on the store at path; progress(bytes done, bytes in all) is called now and then.

    A store that others have open is checked up to what was written when this began.
    """
    report = Report(os.path.abspath(os.fspath(path)))
    began = time.monotonic()
    try:
        store = read_store(report.path)
        report.live = in_use(report.path)
    except (OSError, ValueError, KeyError) as error:
        report.problem(f"the file \"store\" cannot be used: {error}")
    else:
        Checker(report, *store, progress or (lambda done, total: None)).run()
    report.seconds = time.monotonic() - began
    return report


def read_store(root: str) -> tuple[bytes, int, int]:
    """(id, salt, segment size) from the file "store"; ValueError if it is damaged or not ours."""
    text, _, digest = Path(root, "store").read_text().rstrip("\n").partition("\n")
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise ValueError("its checksum does not fit")
    facts = json.loads(text)
    if facts["format"] != VERSION:
        raise ValueError(f"format {facts['format']}, this version reads {VERSION}")
    size = int(facts["segment_size"])
    if not 1 << 20 <= size <= 1 << 30 or size % 4096:
        raise ValueError(f"a segment size of {size}")
    return bytes.fromhex(facts["id"]), int(facts["salt"], 16), size


def in_use(root: str) -> bool:
    """Whether any process has the store open. Asks for the lock's state and takes nothing."""
    try:
        descriptor = os.open(os.path.join(root, "LOCK"), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)
        answer = fcntl.fcntl(descriptor, 36, request)  # F_OFD_GETLK
    finally:
        os.close(descriptor)
    return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


class Checker:
    """The walk over one store's files, every frame into the fold."""

    def __init__(self, report: Report, store: bytes, salt: int, size: int,
                 progress: Callable[[int, int], None]) -> None:
        self.report, self.store, self.salt, self.size = report, store, salt, size
        self.progress = progress
        self.root = report.path
        # Not a method of ours: the fold would hold us, and our maps would stay until cycles are
        # looked for.
        self.place = partial(place, self.root)
        self.fold = Fold(report.problem, self.place)
        self.cold = ColdFiles(report, store, salt, self.fold)
        self.sequence = 0
        self.epoch = 0
        self.promised = 0
        self.limit = 0
        self.known: dict[int, Live] = {}
        self.checkpoint_at = 0

    def run(self) -> None:
        """Checkpoints first, as they say what was promised; then the log and its index."""
        numbers = self.segments()
        self.checkpoints()
        self.look_at_control()
        if self.fold.table is None:
            self.report.notes.append("the index was not compared: no checkpoint to find it by")
        else:
            self.map_index()
        # Listed after the log: what was copied from a segment listed above stands in one of these.
        self.cold.run()
        self.log(numbers)
        self.fold.compare()
        self.report.queues = len(self.fold.following)
        self.report.messages, self.report.entries = self.fold.messages, self.fold.entries

    def checkpoints(self) -> None:
        """Judge every checkpoint; the newest whole one gives the queue table."""
        try:
            names = sorted(n for n in os.listdir(os.path.join(self.root, "ckpt")) if n != "new")
        except OSError as error:
            self.report.problem(f"the checkpoints cannot be listed: {error}")
            return
        for name in names:
            path = os.path.join(self.root, "ckpt", name)
            try:
                raw = Path(path).read_bytes()
            except FileNotFoundError:
                continue  # a live store forgot it meanwhile
            except OSError as error:
                self.report.problem(f"{path}: {error}")
                continue
            reason = self.checkpoint(name, raw)
            if reason:
                self.report.problem(f"{path}: {reason}; recovery will use an older one")
            else:
                self.report.checkpoints += 1

    def checkpoint(self, name: str, raw: bytes) -> str:
        """Why a checkpoint is not whole, or nothing."""
        if len(raw) < CHECKPOINT.size:
            return f"{len(raw)} bytes"
        (magic, version, _, position, sequence, epoch, last_us, size, body_check, store,
         check_) = CHECKPOINT.unpack_from(raw)
        if magic != CHECKPOINT_MAGIC or version != VERSION or store != self.store:
            return "not a checkpoint of this store and version"
        if check_ != xxh3(raw[:80], self.salt) or size != len(raw) - CHECKPOINT.size:
            return "its header is damaged"
        if body_check != xxh3(memoryview(raw)[CHECKPOINT.size:], self.salt):
            return "its image is damaged"
        if name != f"{position:016x}":
            return f"its name does not fit its position {position:x}"
        if size < STATE_SIZE:
            return f"an image of {size} bytes"
        queues, groups, _, _, producers, pages = struct.unpack_from("<6Q", raw, CHECKPOINT.size)
        want = STATE_SIZE + (queues + groups) * 256 + pages * 4096
        if size != want + (PRODUCERS_SIZE if producers else 0):
            return "the sizes of its parts do not add up"
        self.promised = max(self.promised, position)
        table = np.frombuffer(raw, SLOT, queues, CHECKPOINT.size + STATE_SIZE)
        self.fold.use_image(table, position)
        image = memoryview(raw)[CHECKPOINT.size:]
        self.known, self.checkpoint_at = segment_table(image, size - pages * 4096), position
        return ""

    def look_at_control(self) -> None:
        """Of a store in use, take the log's end and the queue table out of shared memory."""
        if not self.report.live:
            return
        path = os.path.join(self.root, "control")
        found = control(self.root) if left_as(self.root, READY) else None
        if found is None:
            self.report.notes.append("the store is being recovered: checked as it is now")
            return
        self.limit = found.written
        room = (os.stat(path).st_size - TABLE_AT) // SLOT.itemsize
        self.fold.table = np.memmap(path, SLOT, "r", TABLE_AT, (min(room, TABLE_SLOTS),))
        self.report.notes.append(
            f"the store is in use: checked up to {self.place(found.written)}, written when this "
            "began")

    def map_index(self) -> None:
        path = os.path.join(self.root, "index")
        try:
            if os.path.getsize(path):  # empty before the first message
                self.fold.index = np.memmap(path, "<u4", "r")
        except (OSError, ValueError) as error:
            self.report.problem(f"{path}: {error}")

    def segments(self) -> list[int]:
        """The numbers of the segments; listed first, so that the checkpoints are newer."""
        try:
            names = os.listdir(os.path.join(self.root, "log"))
        except OSError as error:
            self.report.problem(f"the log cannot be listed: {error}")
            return []
        for name in names:
            if name.endswith(".seg") and not SEGMENT_NAME.fullmatch(name):
                self.report.notes.append(f"log/{name} has no segment's name and is not looked at")
        return sorted(int(name[:8], 16) for name in names if SEGMENT_NAME.fullmatch(name))

    def log(self, numbers: list[int]) -> None:
        """Walk all segments in order; a damaged one is reported and the walk goes on behind it."""
        if self.limit:
            numbers = [n for n in numbers if n <= self.limit >> 32]
        heads = {number: head for number in numbers if (head := self.head(number))}
        used = max(heads, default=0)
        for number, (_, before) in heads.items():
            self.promised = max(self.promised, before)
            if before and before >> 32 not in heads and self.needed(before >> 32):
                self.report.problem(
                    f"{self.place(before)}: the segment is gone or damaged, "
                    f"and {number:08x} follows it")
        for number, live in self.known.items():
            if live.bytes and number not in heads and not self.cold.has(number):
                self.report.problem(f"{self.place(number << 32)}: the segment is gone, and "
                                    f"{live.bytes:,} bytes of it are needed")
        total = len(heads) * self.size
        ends = {before >> 32: before for _, before in heads.values()}
        ends = {number: number << 32 | live.end for number, live in self.known.items()
                if live.end and number != used} | ends
        reached = 0
        for done, (number, (salt, before)) in enumerate(heads.items()):
            if before >> 32 != reached:
                # What was reclaimed in between may have named queues and groups.
                self.sequence, self.fold.holed = 0, True
            reached = number
            held = self.load(number)
            if held is not None:
                self.segment(number, salt, held, ends.get(number, 0), number == used)
            self.report.segments += 1
            self.progress((done + 1) * self.size, total)

    def head(self, number: int) -> tuple[int, int] | None:
        """(salt, end of the log before it) of a segment; None if never used or damaged."""
        path = os.path.join(self.root, "log", f"{number:08x}.seg")
        try:
            with open(path, "rb") as file:
                raw = file.read(SEGMENT.size)
                size = os.fstat(file.fileno()).st_size
        except OSError as error:
            self.report.problem(f"{path}: {error}")
            return None
        if size != self.size:
            self.report.problem(f"{path}: {size} bytes, expected {self.size}")
        if len(raw) < SEGMENT.size or not any(raw):
            return None
        (magic, version, header, store, own, salt, _, _, before, length,
         check_) = SEGMENT.unpack(raw)
        if check_ != xxh3(raw[:80], self.salt) or magic != SEGMENT_MAGIC:
            self.report.problem(f"{path} byte 0: the segment's header is damaged")
        elif (version, header, store, own, length) != (VERSION, HEADER, self.store, number,
                                                       self.size):
            self.report.problem(f"{path} byte 0: not a segment of this store, place and version")
        else:
            return salt, before
        return None

    def needed(self, number: int) -> bool:
        """Whether a segment must be there: a start reads it, or something leads to it."""
        return number >= self.checkpoint_at >> 32 or number in self.known and (
            self.known[number].bytes > 0 and not self.cold.has(number))

    def load(self, number: int) -> bytearray | None:
        """A segment's bytes. Read, not mapped: a read error is then a report and not a signal."""
        held = bytearray(self.size)
        view = memoryview(held)
        path = os.path.join(self.root, "log", f"{number:08x}.seg")
        try:
            file = open(path, "rb", buffering=0)  # noqa: SIM115
        except FileNotFoundError:
            return None  # a live store reclaimed it meanwhile
        with file:
            for at in range(0, self.size, READ_STEP):
                try:
                    file.seek(at)
                    file.readinto(view[at:at + READ_STEP])
                except OSError as error:
                    self.report.problem(f"{path} byte {at}: {error}")
        return held

    def segment(self, number: int, salt: int, held: bytearray, end: int, last: bool) -> None:
        """Walk a segment's frames up to end (0: wherever they stop), over holes."""
        view = memoryview(held)
        at = HEADER
        stop = (end & BYTE) if end >> 32 == number else self.size
        if self.limit >> 32 == number:
            stop = min(stop, self.limit & BYTE)
        while at < stop:
            step, reason = self.frame(view, at, stop, number, salt)
            if step:
                at += step
                continue
            again = self.next_frame(held, view, at + 8, stop, number, salt)
            here = number << 32 | at
            if self.promised <= here:
                self.promised = self.promise(held, view, again, stop, number, salt)
            sure = end if end >> 32 == number else self.limit or self.promised
            if sure <= here:
                self.tail(held, at, stop, here)
                return
            to = self.place(number << 32 | again if again else min(sure, number << 32 | stop))
            self.report.problem(
                f"{self.place(here)}: {reason}; promised bytes are damaged up to {to}")
            self.sequence, self.fold.holed = 0, True
            if not again:
                return
            at = again
        if last and not self.limit and stop < self.size:
            self.tail(held, stop, self.size, number << 32 | stop)

    def tail(self, held: bytearray, at: int, stop: int, here: int) -> None:
        """Say what stands behind the end of the log, if anything does."""
        rest = np.frombuffer(held, np.uint8, stop - at, at)
        torn = bool(rest.any())
        # What an earlier use of the file left is no tail: its frames have another segment's number.
        found = held.find(b"PFRM", at, stop - 16)
        while found >= 0:
            (position,) = struct.unpack_from("<Q", held, found + 8)
            if position == here - at + found:
                torn = True
                break
            torn = torn and position & BYTE != found
            found = held.find(b"PFRM", found + 4, stop - 16)
        if torn:
            self.report.notes.append(
                f"{self.place(here)}: a torn tail behind the end of the log, as a crash leaves it; "
                "nobody was promised it")

    def promise(self, held: bytearray, view: memoryview, at: int, stop: int, number: int,
                salt: int) -> int:
        """The highest durable mark of the whole frames from at on: evidence against a torn tail."""
        found = 0
        while at:
            _, _, _, size, _, _, durable, _, _ = FRAME.unpack_from(view, at)
            found = max(found, durable)
            at = self.next_frame(held, view, at + size, stop, number, salt)
        return found

    def next_frame(self, held: bytearray, view: memoryview, at: int, stop: int, number: int,
                   salt: int) -> int:
        """The byte of the next whole frame at or behind at; 0 if there is none."""
        while True:
            at = held.find(b"PFRM", at, stop)
            if at < 0:
                return 0
            if at % 8 == 0 and isinstance(
                    judge(view, at, stop, number, salt, self.salt), list):
                return at
            at += 4

    def frame(self, view: memoryview, at: int, stop: int, number: int,
              salt: int) -> tuple[int, str]:
        """Accept the frame at byte at into the fold: (its size, ""), or (0, why not)."""
        here = number << 32 | at
        self.fold.compare_image(here)
        found = judge(view, at, stop, number, salt, self.salt)
        if isinstance(found, str):
            return 0, found
        _, _, _, size, sequence, epoch, durable, _, _ = FRAME.unpack_from(view, at)
        if self.sequence and sequence != self.sequence:
            return 0, f"frame {sequence} where {self.sequence} must stand"
        if epoch < self.epoch:
            return 0, f"a frame of epoch {epoch} behind one of epoch {self.epoch}"
        if durable > here:
            self.report.problem(f"{self.place(here)}: it says that more was durable than written")
        self.sequence, self.epoch = sequence + 1, epoch
        self.fold.apply(found, view)
        self.report.frames += 1
        self.report.records += len(found)
        self.report.bytes += size
        self.fold.compare_image(here + size)
        return size, ""


def place(root: str, position: int) -> str:
    """A position in the words of the file system."""
    name = os.path.join(root, "log", f"{position >> 32:08x}.seg")
    return f"{name} byte {position & BYTE}"
