"""How check judges frames, and what it folds their records into: offsets, groups, times."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from xxhash import xxh3_64_intdigest as xxh3

from penstock.engine.store import ENTRY

FRAME = struct.Struct("<IIQQQQQQQ")
RECORD = struct.Struct("<IBBHQQIIQQ")
RECIPIENT = struct.Struct("<QII")
FRAME_MAGIC = int.from_bytes(b"PFRM", "little")
BYTE = 0xFFFFFFFF
MESSAGE, CONFIRM, SEEK, QUEUE, QUEUE_DELETE, GROUP, TRIM, LEASE, SKIP, PLACE = range(1, 11)
GROUP_SETTINGS, QUEUE_SETTINGS = 15, 16
PENDING_MESSAGE, CANCEL, MOVE = 11, 12, 13
NOTE, GROUP_DELETE, ADVANCE = 18, 21, 22
RELEASE = 17
FANOUT = 14
SEQUENCED = 1
SEEK_COUNTS = struct.Struct("<II")  # of ranges, at byte 24 of a SEEK's body

# The fields of a queue's slot that are looked at, in the control file and in a checkpoint alike.
SLOT = np.dtype({
    "names": ["id", "next", "tree", "reclaimed"], "formats": ["<u4", "<u8", "<u8", "<u8"],
    "offsets": [0, 16, 56, 208],
    "itemsize": 256,
})
TABLE_SLOTS = 131072
PENDING = 1 << 16


def judge(view: memoryview, at: int, stop: int, number: int, salt: int,
          store_salt: int) -> list[tuple[int, ...]] | str:
    """The records of the frame at byte at, each verified; or why it is none."""
    if stop - at < FRAME.size:
        return "the log ends in the middle of a frame"
    magic, count, position, size, _, _, _, chain, check_ = FRAME.unpack_from(view, at)
    if magic != FRAME_MAGIC:
        return "no frame"
    base = number << 32
    if position != base | at or not FRAME.size <= size <= stop - at:
        return "a frame in the wrong place, or of an impossible size"
    if check_ != xxh3(view[at:at + 56], store_salt ^ salt):
        return "a frame header whose checksum does not fit"
    found = []
    end = at + size
    at += FRAME.size
    folded = 0
    unpack = RECORD.unpack_from
    while at < end:
        if end - at < 48:
            return "records that do not fill their frame"
        record = unpack(view, at)
        payload = record[3] + record[0] + (16 if record[2] & SEQUENCED else 0)
        if payload > end - at - 48 or record[4] != base | at:
            return "a record in the wrong place, or of an impossible size"
        front = 16 * record[7] + (16 if record[2] & SEQUENCED else 0) if record[1] == FANOUT else 0
        if front > payload:
            return f"a fan-out at byte {at} with more recipients than it has room for"
        seed = record_seed(view, at, record, payload, front, store_salt)
        if record[9] != xxh3(view[at:at + 40], seed ^ salt):
            return f"a record at byte {at} whose checksum does not fit"
        folded = xxh3(view[at + 40:at + 48], folded)
        found.append(record)
        at += 48 + payload + 7 & ~7
    if at != end or folded != chain or len(found) != count:
        return "a frame whose records are not the ones it was written with"
    return found


def judge_record(view: memoryview, at: int, room: int, position: int, salt: int,
                 store_salt: int) -> tuple[int, ...] | str:
    """One record at byte at with so much room, verified under the position it has; or why not."""
    if room < RECORD.size:
        return "no room for a record"
    record = RECORD.unpack_from(view, at)
    payload = record[3] + record[0] + (16 if record[2] & SEQUENCED else 0)
    front = 16 * record[7] + (16 if record[2] & SEQUENCED else 0) if record[1] == FANOUT else 0
    if record[4] != position or payload > room - RECORD.size or front > payload:
        return "a record of another position, or of an impossible size"
    if record[9] != xxh3(view[at:at + 40], record_seed(view, at, record, payload, front,
                                                       store_salt) ^ salt):
        return "a record whose checksum does not fit"
    return record


def record_seed(view: memoryview, at: int, record: tuple[int, ...], payload: int, front: int,
                store_salt: int) -> int:
    """The hash of a record's payload, of a FANOUT with its front on top."""
    seed = xxh3(view[at + 48 + front:at + 48 + payload], store_salt)
    return xxh3(view[at + 48:at + 48 + front], seed) if record[1] == FANOUT else seed


def settings_problem(body: memoryview) -> str:
    """Why bytes are no list of a group's settings, or nothing."""
    at = 0
    while at < len(body):
        if len(body) - at < 4:
            return f"half a field at byte {at} of a group's settings"
        field, zero, size = struct.unpack_from("<BBH", body, at)
        if not 1 <= field <= 4 or zero or size > min(4080, len(body) - at - 4):
            return f"field {field} of {size} bytes at byte {at} of a group's settings"
        at += 4 + size
    return ""


def record_size(body: int, flags: int, ext: int) -> int:
    """The size of a message's record with its fill."""
    return 48 + body + ext + (16 if flags & SEQUENCED else 0) + 7 & ~7


class Fold:
    """The state that records are judged by.

    Invariants:
      1. following[queue] is the offset that the queue's next message must have.
      2. aside has the positions of the messages that waited, for their time or for a verdict.
      3. pending has (offset, position, time, size) of messages not yet compared with the index.
    """

    def __init__(self, problem: Callable[[str], None], place: Callable[[int], str]) -> None:
        self.problem, self.place = problem, place
        self.following: dict[int, int] = {}
        self.deleted: set[int] = set()
        self.groups: set[int] = set()
        self.aside: set[int] = set()
        self.last_us = 0
        self.messages = 0
        self.entries = 0
        # Set behind damage: what was lost there must not be missed again.
        self.holed = False
        self.image: dict[int, int] | None = None
        self.image_at = 0
        self.pending: dict[int, array[int]] = {}
        self.waiting = 0
        self.table: np.ndarray[Any, Any] | None = None
        self.index: np.ndarray[Any, Any] | None = None

    def use_image(self, table: np.ndarray[Any, Any], position: int) -> None:
        """Take a checkpoint's queue table to find the index by, and to compare at its position."""
        self.table, self.image_at = table, position
        self.image = {int(row["id"]): int(row["next"]) for row in table if row["id"]}

    def apply(self, found: list[tuple[int, ...]], view: memoryview) -> None:
        """Apply a frame's records in order: offsets without a gap, times that do not fall."""
        for body, kind, flags, ext, position, offset, queue, spare, stored, _ in found:
            if stored < self.last_us:
                self.problem(f"{self.place(position)}: the time falls")
            self.last_us = stored
            if kind == FANOUT:
                at = (position & BYTE) + 48 + (16 if flags & SEQUENCED else 0)
                self.fanout(view[at:at + 16 * spare], record_size(body - 16 * spare, flags, ext),
                            position, stored)
                continue
            if kind not in (MESSAGE, PLACE):
                at = (position & BYTE) + 48 + ext + (16 if flags & SEQUENCED else 0)
                about = spare if kind == GROUP_SETTINGS else offset
                if kind == PENDING_MESSAGE:
                    self.aside.add(position)
                reason = self.control(kind, about, queue, view[at:at + body])
                if reason:
                    self.problem(f"{self.place(position)}: {reason}")
                continue
            # What a PLACE leads to has a size that is not looked up here.
            size = record_size(body, flags, ext) if kind == MESSAGE else 0
            self.message(queue, offset, position, stored, size)
        if self.waiting >= PENDING:
            self.compare()

    def apply_cold(self, record: tuple[int, ...], view: memoryview, at: int) -> None:
        """A record at byte at of a cold file: only the index is compared with it."""
        body, kind, flags, ext, position, offset, queue, spare, stored, _ = record
        if kind == FANOUT:
            at += RECORD.size + (16 if flags & SEQUENCED else 0)
            size = record_size(body - 16 * spare, flags, ext)
            for offset, queue, _ in RECIPIENT.iter_unpack(view[at:at + 16 * spare]):
                self.expect(queue, offset, position, stored, size)
        elif kind in (MESSAGE, PLACE):
            size = record_size(body, flags, ext) if kind == MESSAGE else 0
            self.expect(queue, offset, position, stored, size)
        if self.waiting >= PENDING:
            self.compare()

    def fanout(self, recipients: memoryview, size: int, position: int, stored: int) -> None:
        """A message in each queue of the record's table; 0 stands for one that was deleted."""
        last = 0
        for offset, queue, spare in RECIPIENT.iter_unpack(recipients):
            if spare or (queue and queue <= last):
                self.problem(f"{self.place(position)}: recipients that do not ascend")
            if queue:
                last = queue
                self.message(queue, offset, position, stored, size)

    def message(self, queue: int, offset: int, position: int, stored: int, size: int) -> None:
        """A message's offset must be the queue's next; its entry is compared later."""
        self.messages += 1
        want = self.following.get(queue)
        if want is None and self.holed:
            want = offset
        if want is None:
            if queue not in self.deleted:
                self.problem(f"{self.place(position)}: a message of no queue ({queue})")
                self.following[queue] = offset + 1
            return
        if offset != want and not (self.holed and offset > want):
            self.problem(
                f"{self.place(position)}: queue {queue} offset {offset}, expected {want}")
        self.following[queue] = offset + 1
        self.expect(queue, offset, position, stored, size)

    def expect(self, queue: int, offset: int, position: int, stored: int, size: int) -> None:
        """Remember what the index must say of a message."""
        entries = self.pending.get(queue)
        if entries is None:
            entries = self.pending[queue] = array("Q")
        entries.extend((offset, position, stored, size))
        self.waiting += 1

    def control(self, kind: int, offset: int, queue: int, body: memoryview) -> str:
        """Fold a record that is no message; why it is impossible, or nothing."""
        size = len(body)
        if kind == QUEUE:
            self.following.setdefault(queue, 0)
            self.deleted.discard(queue)
            return "" if 1 <= size <= 128 else f"a queue's name of {size} bytes"
        if kind == GROUP:
            self.groups.add(offset)
            return "" if 8 <= size <= 136 else f"a group's record of {size} bytes"
        if kind == QUEUE_DELETE:
            self.deleted.add(queue)
            known = self.following.pop(queue, None) is not None
            return "" if known or self.holed else "no such queue"
        if kind == GROUP_DELETE:
            known = offset in self.groups
            self.groups.discard(offset)
            return "" if known or self.holed else f"no group {offset}"
        if kind == ADVANCE:
            known = size == 16 and offset in self.groups
            return "" if known or self.holed else f"no group {offset} that could be advanced"
        if kind == TRIM:
            # Behind a hole the end may be one that what is gone had told of.
            known = offset <= self.following.get(queue, offset) or self.holed
            return "" if known else "a purge beyond the end"
        if kind == SEEK:
            held = sum(SEEK_COUNTS.unpack_from(body, 24)) if size >= 32 else 0
            if size not in (8, 32 + 16 * held):
                return f"a seek of {size} bytes"
            known = int.from_bytes(body[:4], "little") in self.groups
            return "" if known or self.holed else "a seek of no group"
        if kind in (CONFIRM, LEASE):
            if size < 8 or size != 8 + 16 * int.from_bytes(body[4:8], "little"):
                return f"ranges in {size} bytes"
            return "" if offset in self.groups or self.holed else f"no group {offset}"
        if kind == GROUP_SETTINGS:
            known = offset in self.groups or self.holed
            return settings_problem(body) if known else f"no group {offset}"
        if kind == PENDING_MESSAGE:
            known = queue in self.following or queue in self.deleted or self.holed
            return "" if known else f"a pending message of no queue ({queue})"
        if kind in (CANCEL, MOVE):
            known = size == 8 and int.from_bytes(body, "little") in self.aside
            return "" if known or self.holed else "a verdict on no pending message"
        if kind == QUEUE_SETTINGS:
            fields = [struct.unpack_from("<BBH", body, at) for at in range(0, size - 11, 12)]
            fit = size % 12 == 0 and all(1 <= f <= 32 and not z and s == 8 for f, z, s in fields)
            return "" if fit else f"settings of a queue in {size} bytes"
        if kind == NOTE:
            name = int.from_bytes(body[:2], "little")
            whole = size >= 8 and 1 <= name <= min(size - 8, 512)
            return "" if whole else f"a note of {size} bytes"
        if kind == RELEASE:
            if size < 8 or size != 8 + 24 * int.from_bytes(body[4:8], "little"):
                return f"releases in {size} bytes"
            return "" if offset in self.groups or self.holed else f"no group {offset}"
        return "" if kind == SKIP else f"a record of unknown type {kind}"

    def compare_image(self, here: int) -> None:
        """The newest checkpoint's queues must be what the log gives up to its position."""
        if self.image is None or here != self.image_at:
            return
        for queue, following in self.image.items():
            known = self.following.get(queue, following)
            if known > following or (known < following and not self.holed):
                self.problem(
                    f"checkpoint {here:016x}: queue {queue} has its next offset at {following}, "
                    f"the log at {self.following[queue]}")
        self.image = None

    def compare(self) -> None:
        """Compare the index entries of the messages that are pending with their records."""
        for queue, entries in self.pending.items():
            slot = self.slot(queue)
            if slot is None or self.index is None:
                continue
            want = np.frombuffer(entries, np.uint64).reshape(-1, 4)
            want = want[(want[:, 0] < slot["next"]) & (want[:, 0] >= slot["reclaimed"])]
            if len(want):
                self.compare_queue(queue, int(slot["tree"]), want)
        self.pending.clear()
        self.waiting = 0

    def slot(self, queue: int) -> Any:
        """The queue's row in the table; a live one is read where it stands."""
        if self.table is None:
            return None
        at = queue & (TABLE_SLOTS - 1)
        if at >= len(self.table) or self.table[at]["id"] != queue:
            return None
        return self.table[at]

    def compare_queue(self, queue: int, tree: int, want: np.ndarray[Any, Any]) -> None:
        assert self.index is not None
        pages = np.full(len(want), tree & 0xFFFFFFFF, np.int64)
        leaves = (want[:, 0] // 128).astype(np.int64)
        last = len(self.index) // 1024
        for level in reversed(range(tree >> 32)):
            pages = self.index[np.minimum(pages, last - 1) * 1024 + (leaves >> 10 * level) % 1024]
            pages = pages.astype(np.int64)
        entries = self.index[: last * 1024].view(ENTRY)
        found = entries[np.minimum(pages, last - 1) * 128 + (want[:, 0] % 128).astype(np.int64)]
        wrong = (pages == 0) | (pages >= last)
        for column, name in enumerate(("position", "stored_us", "size"), start=1):
            wrong |= (found[name] != want[:, column]) & (want[:, column] != 0)
        self.entries += len(want)
        if wrong.any():
            first = int(want[np.argmax(wrong), 0])
            self.problem(
                f"index: {int(wrong.sum()):,} entries of queue {queue} do not lead to their "
                f"messages, the first of them offset {first}")
