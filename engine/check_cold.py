"""What check knows of cold files: records of segments that are gone, each judged on its own."""

from __future__ import annotations

import struct
from pathlib import Path

from xxhash import xxh3_64_intdigest as xxh3

from penstock.engine.check_fold import Fold, judge_record
from penstock.engine.check_report import Report

HEADER = struct.Struct("<QII16sQQQQQQQQ")
SOURCE = struct.Struct("<QQQQ")
ROW = struct.Struct("<IIQ")
MAGIC = int.from_bytes(b"PENSCLD1", "little")
VERSION = 1
FIRST = 4096


def cold_files(root: str) -> list[Path]:
    """The cold files, oldest first."""
    folder = Path(root, "cold")
    return sorted(folder.glob("*.cold")) if folder.is_dir() else []


class ColdFiles:
    """The walk over one store's cold files; covered has the segments that they stand for."""

    def __init__(self, report: Report, store: bytes, salt: int, fold: Fold) -> None:
        self.report, self.store, self.salt, self.fold = report, store, salt, fold
        self.covered: set[int] = set()

    def run(self, again: int = 8) -> None:
        """Judge every file, and compare the index with what the newest copy of each segment has."""
        for path in reversed(cold_files(self.report.path)):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                # A live store replaced it meanwhile: by one that is newer than all we know.
                if again:
                    self.covered.clear()
                    return self.run(again - 1)
                continue
            except OSError as error:
                self.report.problem(f"{path}: {error}")
                continue
            reason = self.judge(path, raw)
            if reason:
                self.report.problem(f"{path}: {reason}; what only it has cannot be read")
            self.report.cold_files += 1
        return None

    def judge(self, path: Path, raw: bytes) -> str:
        """Why a file is not whole, or nothing; each damaged record is a problem of its own."""
        if len(raw) < FIRST:
            return f"{len(raw)} bytes"
        (magic, version, sources, store, number, _, _, records, first, size, table,
         check) = HEADER.unpack_from(raw)
        if magic != MAGIC or version != VERSION or store != self.store:
            return "not a cold file of this store and version"
        if check != xxh3(raw[:HEADER.size - 8], self.salt) or size != len(raw):
            return "its header is damaged"
        if path.name != f"{number:08x}.cold":
            return f"its name does not fit its number {number:x}"
        if first != FIRST + sources * SOURCE.size + records * ROW.size or first > size:
            return "the sizes of its parts do not add up"
        if table != xxh3(raw[FIRST:first], self.salt):
            return "its tables are damaged"
        view = memoryview(raw)
        rows = FIRST + sources * SOURCE.size
        for source, salt, begin, count in SOURCE.iter_unpack(raw[FIRST:rows]):
            newest = source not in self.covered
            self.covered.add(source)
            at = rows + begin * ROW.size
            for byte, room, place in ROW.iter_unpack(raw[at:at + count * ROW.size]):
                position = source << 32 | byte
                record = judge_record(view, place, min(room, max(size - place, 0)), position, salt,
                                      self.salt)
                if isinstance(record, str):
                    self.report.problem(f"{path} byte {place}: {record}")
                elif newest:
                    self.fold.apply_cold(record, view, place)
                self.report.records += 1
            self.report.bytes += count * ROW.size
        return ""

    def has(self, number: int) -> bool:
        """Whether a cold file stands for a segment."""
        return number in self.covered
