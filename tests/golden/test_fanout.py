"""Fixed bytes of a FANOUT record, in the place and with the salts it was written with."""

import struct

from penstock.engine.check_fold import judge

STORE_SALT = 0x2F1E4B1054A43C94
SEGMENT_SALT = 0x0FAA525E97C31050
AT = 0x13B0
FRAME = bytes.fromhex(
    "5046524d01000000b013000001000000c0000000000000000900000000000000"
    "0200000000000000b013000001000000aa73dabd24ee07a2b8e7ed81cdf67b29"
    "350000000e030500f013000001000000f0130000010000000000000003000000"
    "c5ad4a62cc600600bd1dc5328eda3dbc07000000000000000100000000000000"
    "0000000000000000000000000000000001000000000000000200000000000000"
    "00000000000000000300000000000000010001007468656c6c6f000000000000"
)


def judged(frame: bytes) -> list[tuple[int, ...]] | str:
    view = memoryview(bytes(AT) + frame)
    return judge(view, AT, len(view), 1, SEGMENT_SALT, STORE_SALT)


def test_a_fan_out_has_its_recipients_before_ext_and_body() -> None:
    found = judged(FRAME)
    assert isinstance(found, list), found
    [(size, kind, flags, ext, position, offset, queue, spare, *_)] = found
    assert (size, kind, flags, ext, queue, spare) == (3 * 16 + 5, 14, 3, 5, 0, 3)
    assert position == offset == 1 << 32 | 0x13F0
    assert struct.unpack_from("<QQ", FRAME, 112) == (7, 1)
    rows = list(struct.iter_unpack("<QII", FRAME[128:176]))
    assert rows == [(0, 0, 0), (1, 2, 0), (0, 3, 0)]
    assert FRAME[176:186] == b"\1\0\1\0t" + b"hello"


def test_every_byte_of_it_is_bound() -> None:
    for at in range(186):
        flipped = bytearray(FRAME)
        flipped[at] ^= 1
        assert isinstance(judged(bytes(flipped)), str), at
