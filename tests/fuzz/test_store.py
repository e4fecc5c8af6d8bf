"""Stores whose files are nearly right: opened or refused, checked, and never changed if refused.

Half of the mutants are sealed again: their checksums fit, so that what lies behind them is reached.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import sys
from pathlib import Path
from typing import Any

from mutation import Mutator
from trials import Trials

from penstock.engine import EngineError, Store
from penstock.engine.attributes import Attributes
from penstock.engine.check import CHECKPOINT, HEADER, SEGMENT, check, read_store
from penstock.engine.check_fold import FRAME, RECORD
from xxhash import xxh3_64_intdigest as xxh3

sys.path.insert(0, str(Path(__file__).parents[1]))
from engine_language import LONG, crashed, files, in_child, opened, quiet

A_CHILD = 20
FANOUT, SEQUENCED = 14, 1


def furnished(path: Path) -> Path:
    """A small store with something of each kind in it, crashed."""
    store = quiet(opened(path / "live"))
    queue = store.queue("red")
    for at in range(8):
        queue.append(b"body %d" % at * at, attributes=Attributes(tag="t", key=f"k{at % 2}"))
    queue.append_many([b"a", b"b"], producer=3, sequence=1)
    group = queue.group("g")
    group.confirm(group.receive(3, lease_ms=LONG).receipts)
    group.release(group.receive(2, lease_ms=LONG).receipts, delay_ms=5)
    others = [store.queue(f"blue{at}") for at in range(3)]
    store.fanout(others, b"for all")
    queue.append(b"later", due_us=1 << 56)
    queue.prepare(b"half")
    store.note("note", b"value")
    queue.group().seek(offset=0)
    store.checkpoint()
    queue.append(b"behind the checkpoint")
    group.confirm(group.receive(1, lease_ms=LONG).receipts)
    store.delete("blue0")
    queue.append(b"last")
    copy = crashed(store, path / "crashed")
    store.close()
    shutil.rmtree(path / "live")
    return copy


def sealed_segment(raw: bytearray, salt: int) -> None:
    """Let all checksums of a segment fit what is there."""
    struct.pack_into("<Q", raw, 80, xxh3(bytes(raw[:80]), salt))
    own = SEGMENT.unpack_from(raw)[5]
    at = HEADER
    while at + FRAME.size <= len(raw) and raw[at:at + 4] == b"PFRM":
        size = FRAME.unpack_from(raw, at)[3]
        if not FRAME.size <= size <= len(raw) - at:
            return
        inner, folded = at + FRAME.size, 0
        while inner + 48 <= at + size:
            record = RECORD.unpack_from(raw, inner)
            flagged = 16 if record[2] & SEQUENCED else 0
            payload = record[3] + record[0] + flagged
            if payload > at + size - inner - 48:
                break
            front = 16 * record[7] + flagged if record[1] == FANOUT else 0
            front = min(front, payload)
            seed = xxh3(bytes(raw[inner + 48 + front:inner + 48 + payload]), salt)
            if record[1] == FANOUT:
                seed = xxh3(bytes(raw[inner + 48:inner + 48 + front]), seed)
            struct.pack_into("<Q", raw, inner + 40, xxh3(bytes(raw[inner:inner + 40]), seed ^ own))
            folded = xxh3(bytes(raw[inner + 40:inner + 48]), folded)
            inner += 48 + payload + 7 & ~7
        struct.pack_into("<Q", raw, at + 48, folded)
        struct.pack_into("<Q", raw, at + 56, xxh3(bytes(raw[at:at + 56]), salt ^ own))
        at += size


def sealed_checkpoint(raw: bytearray, salt: int) -> None:
    """The same for a checkpoint."""
    if len(raw) < CHECKPOINT.size:
        return
    struct.pack_into("<Q", raw, 48, len(raw) - CHECKPOINT.size)
    struct.pack_into("<Q", raw, 56, xxh3(bytes(raw[CHECKPOINT.size:]), salt))
    struct.pack_into("<Q", raw, 80, xxh3(bytes(raw[:80]), salt))


def damage(root: Path, mutator: Mutator, salt: int) -> str:
    """Change one file of the store a little; which and how."""
    chooser = mutator.chooser
    used = [path for path in (*root.glob("log/*.seg"), *root.glob("ckpt/*")) if path.is_file()]
    used = [path for path in used if any(path.read_bytes()[:8])]
    path = chooser.choice([*used * 4, root / "store", root / "index"])
    if chooser.random() < 0.02:
        path.unlink()
        return f"{path.name} removed"
    raw = bytearray(path.read_bytes())
    end = len(raw.rstrip(b"\0")) or 1
    for _ in range(chooser.choice((1, 1, 2, 4))):
        at = chooser.randrange(end)
        piece = raw[at:at + chooser.choice((1, 4, 8, 16, 64))]
        size = len(piece)
        mutator.change(piece)
        raw[at:at + size] = piece[:size].ljust(size, b"\0")
    if chooser.random() < 0.05:
        del raw[chooser.randrange(len(raw)):]
    again = chooser.random() < 0.5
    if again and path.suffix == ".seg" and len(raw) > HEADER:
        sealed_segment(raw, salt)
    elif again and path.parent.name == "ckpt":
        sealed_checkpoint(raw, salt)
    path.write_bytes(raw)
    return f"{path.name} changed{', sealed again' if again else ''}"


def use(path: Path) -> None:
    """Everything a user does first, and what check says; raises what only a bug raises."""
    before = files(path)
    check(path)
    store = None
    with contextlib.suppress(EngineError, OSError):
        store = opened(path)
    if store is None:
        after = files(path)
        assert all(after.get(name) == before[name] for name in before), "changed, though refused"
        return
    with contextlib.suppress(EngineError, OSError), store:
        for name in list(store.queues()):
            with contextlib.suppress(EngineError, OSError):
                walk(store, name)
        store.queue("new").append(b"new")
        store.checkpoint()
    check(path)


def walk(store: Store, name: str) -> None:
    queue = store.queue(name)
    start = queue.stat()["first"]
    for _ in range(20):
        batch = queue.read(offset=start, max_messages=100)
        if not len(batch):
            break
        batch.tolist()
        start = int(batch.offsets[-1]) + 1
    for group in (queue.group(), queue.group("g")):
        batch = group.receive(50, lease_ms=LONG)
        batch.tolist()
        if len(batch):
            group.release(batch.receipts[:24], delay_ms=0)
            group.confirm(batch.receipts)
        group.stat()
        group.seek(offset=0)


def rounds(source: Path, scratch: Path, seed: int, first: int, salt: int) -> None:
    """A child's share of the executions; where it is stands in a file."""
    for number in range(first, first + A_CHILD):
        root = scratch / f"{os.getpid()}"
        shutil.copytree(source, root)
        mutator = Mutator(seed * 1_000_003 + number, [b"PENSTOCK" * 8])
        told = damage(root, mutator, salt)
        (scratch / "at").write_text(f"seed {seed}, execution {number}: {told}")
        use(root)
        shutil.rmtree(root)


def test_a_store_of_nearly_right_files_is_used_or_refused(
    trials: Trials, quick_path: Path
) -> None:
    source = furnished(quick_path)
    _, salt, _ = read_store(str(source))
    scratch = quick_path / "scratch"
    for share in trials.numbers(6):
        scratch.mkdir()
        ended: Any = in_child(
            rounds, source, scratch, trials.seed, share * A_CHILD, salt, within_s=120)
        assert ended == 0, (ended, (scratch / "at").read_text())
        shutil.rmtree(scratch)
