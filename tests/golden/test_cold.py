"""Fixed bytes of a cold file: four records of one segment, in the order of queues."""

from pathlib import Path

from penstock.engine.check_cold import FIRST, ColdFiles
from penstock.engine.check_fold import Fold
from penstock.engine.check_report import Report

STORE = bytes.fromhex("7e50d0e60ca98a4261f6dd0a5eb8e32e")
SALT = 0xB1B4BCE226295BE8
HEAD = bytes.fromhex(
    "50454e53434c443101000000010000007e50d0e60ca98a4261f6dd0a5eb8e32e"
    "010000000000000002000000000000001db70353286106000400000000000000"
    "60100000000000004011000000000000d081af7c25a817f122a4f7a2c4b5cf51"
)
REST = bytes.fromhex(
    "01000000000000009fb3647a5c568a6100000000000000000400000000000000"
    "2012000038000000601000000000000078aa0400380000009810000000000000"
    "c04309003800000008110000000000003844090038000000d010000000000000"
    "0400000001000000201200000100000000000000000000000200000000000000"
    "bc9f035328610600fc3b40bd28ca5d836f6e6530000000000400000001000000"
    "78aa0400010000000100000000000000020000000000000064aa035328610600"
    "63c9547beeef1d706f6e65310000000004000000010000003844090001000000"
    "02000000000000000200000000000000daaa035328610600ad47d2a4a8a4e84f"
    "6f6e6532000000000300000001000100c0430900010000000000000000000000"
    "0300000000000000d4aa035328610600520f89661af260366574776f00000000"
)
FILE = HEAD.ljust(FIRST, b"\0") + REST


def judged(raw: bytes, tmp_path: Path) -> Report:
    (tmp_path / "cold").mkdir(exist_ok=True)
    (tmp_path / "cold" / "00000001.cold").write_bytes(raw)
    report = Report(str(tmp_path))
    found: list[tuple[int, ...]] = []
    fold = Fold(report.problem, str)
    fold.expect = lambda *row: found.append(row)  # type: ignore[method-assign]
    cold = ColdFiles(report, STORE, SALT, fold)
    cold.run()
    report.notes = [str(row) for row in found]
    assert cold.has(1) or report.problems
    return report


def test_a_cold_file_has_its_records_under_the_positions_they_had(tmp_path: Path) -> None:
    report = judged(FILE, tmp_path)
    assert report.problems == [] and (report.cold_files, report.records) == (1, 4)
    # queue, offset, position, time, size
    rows = [tuple(map(int, note.strip("()").split(","))) for note in report.notes]
    assert [row[:3] for row in rows] == [
        (2, 0, 1 << 32 | 0x1220), (2, 1, 1 << 32 | 0x4AA78), (3, 0, 1 << 32 | 0x943C0),
        (2, 2, 1 << 32 | 0x94438)]
    assert FILE[4192:4416].count(b"one") == 3 and FILE.endswith(b"two" + bytes(4))


def test_every_byte_of_it_is_bound(tmp_path: Path) -> None:
    fill = {at for at in range(len(FILE)) if 96 <= at < FIRST}
    fill |= {at for start, size in ((4192, 52), (4248, 52), (4304, 52), (4360, 52))
             for at in range(start + size, start + 56)}
    for at in [*range(96), *range(FIRST, len(FILE))]:
        if at in fill:
            continue
        flipped = bytearray(FILE)
        flipped[at] ^= 1
        assert judged(bytes(flipped), tmp_path).problems, at
