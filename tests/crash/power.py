"""Power cuts made of a trace: what a disk may hold when the power goes, and what it must hold.

A disk keeps everything written before a sync that returned. Of later writes it keeps any sectors
it likes, in any order. The trace (Store._trace) has every write and sync of the log in order.
"""

from __future__ import annotations

import random
import struct
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from engine_language import SEGMENT

UNIT = 512
WRITE, SYNC = 1, 2


@dataclass
class Event:
    kind: int
    segment: int
    byte: int
    data: bytes


@dataclass
class Promise:
    """A fact that holds once the trace had so many bytes: it was acknowledged, or could be seen."""

    traced: int
    kind: str
    queue: str
    offset: int
    body: bytes = b""


@dataclass
class Saved:
    """A checkpoint with the index that was synced before it."""

    traced: int
    name: str
    checkpoint: bytes
    index: bytes


@dataclass
class Story:
    """All that is known of one run: its trace, its promises, its checkpoints."""

    identity: bytes
    trace: bytes
    promises: list[Promise] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)


def events(trace: bytes) -> list[tuple[int, Event]]:
    """The events, each with the size of the trace behind it."""
    found = []
    at = 0
    while at < len(trace):
        kind, position, size = struct.unpack_from("<QQQ", trace, at)
        at += 24
        data = trace[at : at + size]
        at += size
        found.append((at, Event(kind, position >> 32, position & 0xFFFFFFFF, data)))
    return found


def without_syncs(trace: bytes, chance: float, chooser: random.Random) -> bytes:
    """A trace some of whose syncs never happened: what a store that does not wait would do."""
    kept = []
    before = 0
    for after, event in events(trace):
        if event.kind != SYNC or chooser.random() >= chance:
            kept.append(trace[before:after])
        else:
            # A write of nothing: the trace keeps its length, so that promises keep their place.
            kept.append(struct.pack("<QQQ", WRITE, 1 << 32, 0))
        before = after
    return b"".join(kept)


def surviving(past: list[Event], chooser: random.Random) -> dict[int, bytearray]:
    """The segments after the power went: synced writes whole, of later ones some sectors."""
    synced: dict[int, int] = defaultdict(int)
    for number, event in enumerate(past):
        if event.kind == SYNC:
            synced[event.segment] = number
    keep = chooser.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    segments: dict[int, bytearray] = {}
    for number, event in enumerate(past):
        log = segments.setdefault(event.segment, bytearray(SEGMENT))
        if event.kind != WRITE:
            continue
        if number < synced[event.segment]:
            log[event.byte : event.byte + len(event.data)] = event.data
            continue
        at = 0
        while at < len(event.data):
            room = UNIT - (event.byte + at) % UNIT
            part = event.data[at : at + room]
            if chooser.random() < keep:
                log[event.byte + at : event.byte + at + len(part)] = part
            at += room
    return segments


def cut(story: Story, after: int, to: Path, chooser: random.Random) -> None:
    """Build the directory that a power cut leaves when the trace had so many bytes."""
    for part in ("", "log", "ckpt"):
        (to / part).mkdir(parents=True, exist_ok=True)
    (to / "store").write_bytes(story.identity)
    past = [event for size, event in events(story.trace) if size <= after]
    segments = surviving(past, chooser)
    for number, log in segments.items():
        (to / "log" / f"{number:08x}.seg").write_bytes(log)
    if chooser.random() < 0.5:
        # The segment made ahead of need.
        (to / "log" / f"{max(segments, default=0) + 1:08x}.seg").write_bytes(bytes(SEGMENT))
    old = [saved for saved in story.saved if saved.traced <= after]
    for saved in old[-2:]:
        (to / "ckpt" / saved.name).write_bytes(saved.checkpoint)
    if old:
        (to / "index").write_bytes(later_index(old[-1].index, chooser))
    elif chooser.random() < 0.5:
        (to / "index").write_bytes(chooser.randbytes(64 << 10))


def later_index(index: bytes, chooser: random.Random) -> bytes:
    """The index as it was synced; behind its last used page whatever came later."""
    used = len(index.rstrip(b"\0"))
    used = (used + 4095) // 4096 * 4096
    return index[:used] + chooser.randbytes(min(len(index) - used, 16 << 10))


def broken_promises(
    story: Story, after: int, held: dict[str, dict[int, bytes]], coming: dict[str, dict[int, bytes]]
) -> list[Promise]:
    """The promises made before the cut that the reopened store does not keep."""
    broken = []
    for promise in story.promises:
        if promise.traced > after:
            continue
        queue, offset = promise.queue, promise.offset
        if promise.kind == "stored" and held[queue].get(offset) != promise.body:
            broken.append(promise)
        if promise.kind == "confirmed" and offset in coming[queue]:
            broken.append(promise)
    return broken
