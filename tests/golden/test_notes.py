"""Fixed bytes of NOTE records, in the place and with the salts they were written with."""

from penstock.engine.check_fold import judge

STORE_SALT = 0xA807C2E4AC6489D7
SEGMENT_SALT = 0xFD1DC1B8B6700D96
SET = bytes.fromhex(
    "5046524d01000000001000000100000088000000000000000100000000000000"
    "02000000000000000010000001000000d5ad49909892ee7bc4b78ef1c5dd906b"
    "1100000012000000401000000100000000000000000000000000000000000000"
    "0891391ccc600600fa1900c10333ea1e"
    "0700000000000000746f7069632f617b7d00000000000000"
)
REMOVED = bytes.fromhex(
    "5046524d01000000881000000100000080000000000000000200000000000000"
    "02000000000000008810000001000000ad4d3ecf539aad30f7f7f69210651532"
    "0f00000012000000c81000000100000000000000000000000000000000000000"
    "5ad4391ccc600600373b0dd1deae9b5d"
    "0700010000000000746f7069632f6100"
)


def read(at: int, frame: bytes) -> tuple[int, ...]:
    """The one record of a fixed frame, in its place in segment 1."""
    view = memoryview(bytes(at) + frame)
    found = judge(view, at, len(view), 1, SEGMENT_SALT, STORE_SALT)
    assert isinstance(found, list), found
    [record] = found
    return record


def test_a_note_has_these_bytes() -> None:
    size, kind, flags, ext, position, offset, queue, spare, *_ = read(0x1000, SET)
    assert (size, kind, flags, ext, offset, queue, spare) == (17, 18, 0, 0, 0, 0, 0)
    assert position == 1 << 32 | 0x1040
    assert SET[112:129] == b"\7\0\0\0\0\0\0\0topic/a{}"


def test_a_note_that_goes_has_a_flag() -> None:
    size, kind, *_ = read(0x1088, REMOVED)
    assert (size, kind) == (15, 18)
    assert REMOVED[112:127] == b"\7\0\1\0\0\0\0\0topic/a"
