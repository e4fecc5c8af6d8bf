"""Fixed bytes: what docs/format.md draws is what the engine wrote, and writes."""

import struct
from pathlib import Path

from penstock.engine import Store
from penstock.engine.check import SEGMENT, check
from penstock.engine.check_fold import FRAME, RECORD, judge
from xxhash import xxh3_64_intdigest as xxh3

STORE_SALT = 0x813CA94E2D1A7B7D
SEGMENT_SALT = 0x39944A9141AB0357
HEADER = bytes.fromhex(
    "50454e53534547310100000000100000d1db76b52c78f9bd42e3409459e7b6f1"
    "01000000000000005703ab41914a94390200000000000000392667aeca600600"
    "000000000000000000001000000000002c520432411785a5"
)
FRAMES = {
    0x1000: "5046524d01000000001000000100000078000000000000000100000000000000"
            "0200000000000000001000000100000098273e0858c130cb9409e251e9709d6f"
            "0100000004000000401000000100000000000000000000000100000000000000"
            "2a3d67aeca60060040941974e756213a6100000000000000",
    0x10F0: "5046524d01000000f01000000100000078000000000000000300000000000000"
            "0200000000000000f0100000010000008ec2866b13537060a770cdb50c451d21"
            "0500000001000100301100000100000000000000000000000100000000000000"
            "e04867aeca6006009e717b756b958ea66568656c6c6f0000",
    0x1168: "5046524d020000006811000001000000c0000000000000000400000000000000"
            "02000000000000006811000001000000cd088ddbdf0579b4c3878b9b56eef2c6"
            "0300000001010000a81100000100000001000000000000000100000000000000"
            "224b67aeca600600516bdf954f24196307000000000000000100000000000000"
            "6f6e6500000000000300000001000000f0110000010000000200000000000000"
            "0100000000000000224b67aeca600600fda84163c21b7bc574776f0000000000",
    0x1228: "5046524d01000000281200000100000088000000000000000500000000000000"
            "0200000000000000281200000100000028bbeca157cf1e37c24bfe91f931eebd"
            "1800000002000000681200000100000001000000000000000100000000000000"
            "504d67aeca600600f7b542c3f88fdf5f00000000010000000000000000000000"
            "0200000000000000",
}


def read(at: int) -> list[tuple[int, ...]]:
    """The records of a fixed frame, in their place in segment 1."""
    raw = bytes.fromhex(FRAMES[at])
    view = memoryview(bytes(at) + raw)
    found = judge(view, at, len(view), 1, SEGMENT_SALT, STORE_SALT)
    assert isinstance(found, list), found
    return found


def test_a_segment_header_has_these_bytes() -> None:
    (magic, version, size, store, number, salt, epoch, created, before, length,
     found) = SEGMENT.unpack(HEADER)
    assert HEADER[:8] == b"PENSSEG1" and magic == 0x31474553534E4550
    assert (version, size, number, salt, epoch) == (1, 4096, 1, SEGMENT_SALT, 2)
    assert store.hex() == "d1db76b52c78f9bd42e3409459e7b6f1"
    assert (created, before, length) == (0x660CAAE672639, 0, 1 << 20)
    assert found == xxh3(HEADER[:80], STORE_SALT)


def test_a_queue_record_has_these_bytes() -> None:
    [(size, kind, flags, ext, position, offset, queue, spare, stored, _)] = read(0x1000)
    assert (size, kind, flags, ext, spare) == (1, 4, 0, 0, 0)
    assert (position, offset, queue) == (1 << 32 | 0x1040, 0, 1)
    assert stored == 0x660CAAE673D2A


def test_a_message_has_its_ext_before_its_body() -> None:
    [(size, kind, flags, ext, _, offset, queue, *_)] = read(0x10F0)
    assert (size, kind, flags, ext, offset, queue) == (5, 1, 0, 1, 0, 1)
    assert bytes.fromhex(FRAMES[0x10F0])[112:118] == b"ehello"


def test_a_batch_carries_its_producer_once() -> None:
    first, second = read(0x1168)
    assert (first[1], first[2], first[5]) == (1, 1, 1) and (second[2], second[5]) == (0, 2)
    assert struct.unpack_from("<QQ3s", bytes.fromhex(FRAMES[0x1168]), 112) == (7, 1, b"one")


def test_a_confirmation_names_ranges() -> None:
    [(size, kind, _, _, _, group, queue, *_)] = read(0x1228)
    assert (size, kind, group, queue) == (24, 2, 1, 1)
    assert struct.unpack_from("<IIQQ", bytes.fromhex(FRAMES[0x1228]), 112) == (0, 1, 0, 2)


def test_a_frame_promises_what_was_durable_before_it() -> None:
    magic, count, position, size, sequence, epoch, durable, chain, found = FRAME.unpack_from(
        bytes.fromhex(FRAMES[0x1228]))
    assert (magic, count, position, size) == (0x4D524650, 1, 1 << 32 | 0x1228, 136)
    assert (sequence, epoch, durable) == (5, 2, position)
    assert chain == xxh3(bytes.fromhex(FRAMES[0x1228])[104:112], 0)
    assert found == xxh3(bytes.fromhex(FRAMES[0x1228])[:56], STORE_SALT ^ SEGMENT_SALT)


def test_the_engine_writes_this_layout(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        queue = store.queue("a")
        queue.append(b"hello", ext=b"e")
        queue.append_many([b"one", b"two"], producer=7, sequence=1)
        queue.group().confirm(queue.group().receive(2).receipts)
    raw = (tmp_path / "s" / "log" / "00000001.seg").read_bytes()
    for at, fixed in FRAMES.items():
        wanted = bytes.fromhex(fixed)
        assert FRAME.unpack_from(raw, at)[:5] == FRAME.unpack_from(wanted)[:5]
        record, other = RECORD.unpack_from(raw, at + 64), RECORD.unpack_from(wanted, 64)
        assert record[:8] == other[:8]
        assert raw[at + 112: at + len(wanted)] == wanted[112:] or at == 0x1168
    assert not any(raw[88:4096]) and not any(raw[0x12B0:])
    assert check(tmp_path / "s").problems == []


def test_the_settings_of_a_queue_are_fields(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        store.queue("a").configure(retain_ms=5, keep="unconfirmed")
    raw = (tmp_path / "s" / "log" / "00000001.seg").read_bytes()
    body = bytes.fromhex("010008000500000000000000" "030008000100000000000000")
    at = raw.index(body) - 48
    assert RECORD.unpack_from(raw, at)[:4] == (24, 16, 0, 0)
    assert RECORD.unpack_from(raw, at)[5:8] == (0, 1, 0)
