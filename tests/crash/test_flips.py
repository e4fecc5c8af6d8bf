"""Single flipped bits, in every byte of a small store: found, confined, never delivered."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_language import (
    LONG,
    crashed,
    deliveries,
    files,
    in_child,
    messages,
    opened,
    quiet,
)

from penstock.engine import CorruptionError, EngineError

COUNT = 12
BODIES = {at: b"message %d " % at + b"." * (at * 7) for at in range(COUNT)}
HEADER = 4096


def small(path: Path) -> Path:
    """A store of a dozen messages in two segments, some confirmed, crashed; its last frame is
    not the last thing that was promised."""
    store = quiet(opened(path / "live"))
    queue = store.queue("red")
    for at in range(COUNT // 2):
        queue.append(BODIES[at], ext=b"ext%d" % at)
    group = queue.group()
    group.confirm(group.receive(2, lease_ms=LONG).receipts)
    for at in range(COUNT // 2, COUNT):
        queue.append(BODIES[at])
    # Frames that state what was durable before them.
    store.queue("witness").append(b"1")
    store.queue("witness").append(b"2")
    copy = crashed(store, path / "crashed")
    store.close()
    return copy


def end_of(segment: Path) -> int:
    return len(segment.read_bytes().rstrip(b"\0"))


def flipped(path: Path, byte: int) -> None:
    with open(path, "r+b") as file:
        file.seek(byte)
        old = file.read(1)[0]
        file.seek(byte)
        file.write(bytes([old ^ 1 << byte % 8]))


def strides(low: int, high: int, count: int, soak: bool) -> Iterator[int]:
    """Bytes of a range: all of them, or about so many."""
    return iter(range(low, high, 1 if soak else max(1, (high - low) // count)))


def judge(path: Path, byte: int, allowed_loss: int) -> str:
    """Open a damaged store and hold it to its word; what it did about the damage."""
    before = files(path)
    try:
        store = opened(path)
    except CorruptionError:
        after = files(path)
        assert all(after[name] == before[name] for name in before), f"byte {byte}: changed"
        return "refused"
    with store:
        held = messages(store.queue("red", create=False))
        wrong = [at for at, body in held.items() if BODIES.get(at) != body]
        assert not wrong, f"byte {byte}: wrong bytes"
        coming = deliveries(store.queue("red").group())
        assert not {0, 1} & set(coming), f"byte {byte}: a confirmed message comes again"
        assert all(BODIES[at] == body for at, body in coming.items())
        missing = set(BODIES) - set(held)
        assert len(missing) <= allowed_loss, f"byte {byte}: lost {missing}"
        if missing:
            assert store.stat()["corrupt"], f"byte {byte}: lost without a word"
            return "left out"
    return "harmless"


def test_a_flip_in_the_log_of_a_crashed_store_is_refused_at_opening(
    quick_path: Path, soak: bool
) -> None:
    source = small(quick_path)
    name = Path("log", "00000001.seg")
    told = []
    last = (source / name).read_bytes().rfind(b"PFRM")
    for byte in strides(HEADER, last, 400, soak):
        copy = shutil.copytree(source, quick_path / "copy")
        flipped(copy / name, byte)
        told.append(judge(copy, byte, 0))
        shutil.rmtree(copy)
    # What is not refused lies in the unchecked padding between records.
    assert told.count("refused") > 0.9 * len(told)
    assert "left out" not in told


@pytest.mark.parametrize("clean", [False, True])
def test_a_flip_in_a_segment_header_is_told(clean: bool, quick_path: Path, soak: bool) -> None:
    source = small(quick_path)
    if clean:
        opened(source).close()
    for segment in sorted((source / "log").iterdir()):
        for byte in strides(0, 88 if end_of(segment) else 0, 20, soak):
            copy = shutil.copytree(source, quick_path / "copy")
            flipped(copy / "log" / segment.name, byte)
            judge(copy, byte, 0)
            shutil.rmtree(copy)


def test_a_flip_in_the_log_of_a_closed_store_costs_one_message(
    quick_path: Path, soak: bool
) -> None:
    source = small(quick_path)
    opened(source).close()
    name = Path("log", "00000001.seg")
    told = []
    for byte in strides(HEADER, end_of(source / name), 400, soak):
        copy = shutil.copytree(source, quick_path / "copy")
        flipped(copy / name, byte)
        told.append(judge(copy, byte, 1))
        shutil.rmtree(copy)
    assert told.count("left out") > len(told) // 4


def test_a_flip_under_an_open_store_costs_one_message(quick_path: Path, soak: bool) -> None:
    source = small(quick_path)
    name = source / "log" / "00000001.seg"
    with opened(source) as store:
        for byte in strides(HEADER, end_of(name), 400, soak):
            flipped(name, byte)
            corrupt = store.stat()["corrupt"]
            held = messages(store.queue("red"))
            assert all(BODIES[at] == body for at, body in held.items())
            assert len(held) >= COUNT - 1
            assert (len(held) < COUNT) == (store.stat()["corrupt"] > corrupt)
            flipped(name, byte)
        assert messages(store.queue("red")) == BODIES


def test_a_flip_in_a_checkpoint_costs_nothing(quick_path: Path, soak: bool) -> None:
    source = small(quick_path)
    opened(source).close()
    newest = max((source / "ckpt").iterdir())
    for byte in strides(0, newest.stat().st_size, 100, soak):
        copy = shutil.copytree(source, quick_path / "copy")
        flipped(copy / "ckpt" / newest.name, byte)
        assert judge(copy, byte, 0) == "harmless"
        shutil.rmtree(copy)


def test_repair_leaves_out_what_is_damaged_and_keeps_the_rest(quick_path: Path) -> None:
    source = small(quick_path)
    name = source / "log" / "00000001.seg"
    where = name.read_bytes().find(BODIES[7])
    flipped(name, where)
    with pytest.raises(CorruptionError):
        opened(source)
    before = name.read_bytes()
    with opened(source, repair=True) as store:
        held = messages(store.queue("red"))
        assert held == {at: body for at, body in BODIES.items() if at != 7}
        assert store.stat()["corrupt"]
        assert store.queue("red").append(b"new").offset == COUNT
    assert name.read_bytes()[: len(before.rstrip(b"\0"))] == before.rstrip(b"\0")


def many(path: Path) -> dict[int, bytes]:
    """A cleanly closed store whose index has nodes above its leaves."""
    with opened(path) as store:
        bodies = [b"%d" % at for at in range(400)]
        store.queue("red").append_many(bodies)
        return dict(enumerate(bodies))


def test_a_flip_in_the_index_never_gives_a_wrong_message(quick_path: Path, soak: bool) -> None:
    bodies = many(quick_path / "store")
    index = (quick_path / "store" / "index").read_bytes()
    used = (len(index.rstrip(b"\0")) + 4095) // 4096 * 4096

    def look(byte: int) -> None:
        copy = quick_path / f"copy{byte}"
        try:
            with opened(copy) as store:
                queue = store.queue("red")
                held = messages(queue)
                assert all(bodies[at] == body for at, body in held.items())
                assert all(bodies[at] == body for at, body in deliveries(queue.group()).items())
                if store.stat()["corrupt"] == 0:
                    assert held == bodies
        except EngineError:
            os._exit(0)

    bad = {}
    pages = [byte for page in range(0, used, 4096) for byte in (page, page + 1, page + 3, page + 6)]
    for byte in sorted({*pages, *strides(4096, used, 60, soak)}):
        copy = shutil.copytree(quick_path / "store", quick_path / f"copy{byte}")
        flipped(copy / "index", byte)
        ended = in_child(look, byte)
        if ended:
            killed = isinstance(ended, int) and ended < 0
            bad[byte] = signal.Signals(-ended).name if killed else ended
        shutil.rmtree(copy)
    assert not bad
