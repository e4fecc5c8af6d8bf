"""The power goes at any moment of a compaction: what queues have is there, wherever it stands.

The disk keeps what was synced. Of writes that were not it keeps any part, and of names that were
not put on disk with their folder a first part, in the order in which they were given.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from engine_language import SEGMENT, messages, opened, quiet
from power import events

from penstock.engine import Store
from penstock.engine._core import Compactor, Reclaimer
from penstock.engine.check import check
from penstock.engine.reclaim import save

WRITE, SYNC, REUSE, LOG_FOLDER, REMOVE = 1, 2, 3, 4, 5
COLD_WRITE, COLD_SYNC, COLD_NAME, COLD_FOLDER, COLD_REMOVE = 6, 7, 8, 9, 10


@dataclass
class Story:
    """A store at rest, the trace of what came then, and its checkpoints, each with the index."""

    base: Path
    trace: Path
    saved: list[tuple[int, dict[str, bytes], bytes]] = field(default_factory=list)

    def note(self, store: Store) -> None:
        folder = Path(store.path)
        self.saved.append((
            self.trace.stat().st_size if self.trace.exists() else 0,
            {path.name: path.read_bytes() for path in (folder / "ckpt").iterdir()},
            (folder / "index").read_bytes()))


def give_up(store: Store, story: Story | None = None) -> None:
    while not Reclaimer(store).give_up():
        pass
    for _ in range(2):
        Reclaimer(store).mark()
        save(store)
        if story is not None:
            story.note(store)
    Reclaimer(store).recycle()


def lived(folder: Path) -> tuple[Story, dict[int, bytes]]:
    """A store that was compacted twice, and what must be there at every moment of it."""
    store = quiet(opened(folder / "store"))
    slow, busy = store.queue("slow"), store.queue("busy")

    def flood(turns: int) -> None:
        for number in range(turns):
            store._prepare()
            slow.append(b"%d" % number * 1000)
            busy.append_many([b"x" * 15000] * 20)

    flood(12)
    wanted = messages(slow)
    busy.purge()
    give_up(store)
    story = Story(folder / "base", folder / "trace")
    shutil.copytree(store.path, story.base, ignore=shutil.ignore_patterns("control*", "LOCK"))
    story.note(store)
    with open(story.trace, "wb", buffering=0) as trace:
        store._trace(trace.fileno())
        for _ in range(2):
            assert Compactor(store).compact(90) is not None
            give_up(store, story)
            Reclaimer(store).shed()
            assert Compactor(store).retire() is not None
            store.queue("after").append(b"z" * 100)
            flood(4)
            busy.purge()
            give_up(store, story)
        store._trace(-1)
    assert messages(slow).items() >= wanted.items()
    store.close()
    return story, wanted


def cut(story: Story, after: int, to: Path, chooser: random.Random) -> None:
    """The directory that a power cut leaves when the trace had so many bytes."""
    shutil.copytree(story.base, to)
    (to / "cold").mkdir(exist_ok=True)
    past = [event for size, event in events(story.trace.read_bytes()) if size <= after]
    segments = {int(path.stem, 16): bytearray(path.read_bytes())
                for path in (to / "log").glob("*.seg")}
    synced = {event.segment: at for at, event in enumerate(past) if event.kind == SYNC}
    settled = {kind: max((at for at, event in enumerate(past) if event.kind == kind), default=-1)
               for kind in (LOG_FOLDER, COLD_FOLDER)}
    names = [at for at, event in enumerate(past)
             if event.kind in (REUSE, REMOVE, COLD_NAME, COLD_REMOVE)
             and at > settled[LOG_FOLDER if event.kind in (REUSE, REMOVE) else COLD_FOLDER]]
    lost = set(names[chooser.randint(0, len(names)):])
    fresh = bytearray()
    cold: dict[int, bytes] = {}
    for at, event in enumerate(past):
        if event.kind == WRITE:
            log = segments.setdefault(event.segment, bytearray(SEGMENT))
            if at < synced.get(event.segment, -1) or chooser.random() < 0.5:
                log[event.byte:event.byte + len(event.data)] = event.data
        elif event.kind == REUSE and at not in lost:
            segments[int.from_bytes(event.data, "little") + 1] = segments.pop(event.segment)
        elif event.kind == REMOVE and at not in lost:
            segments.pop(event.segment, None)
        elif event.kind == COLD_WRITE:
            fresh.extend(bytes(max(event.byte + len(event.data) - len(fresh), 0)))
            fresh[event.byte:event.byte + len(event.data)] = event.data
        elif event.kind == COLD_NAME and at not in lost:
            # Synced before it got its name, or a part of it may be anything.
            whole = any(one.kind == COLD_SYNC for one in past[max(at - 3, 0):at])
            cold[event.byte] = bytes(fresh) if whole else bytes(fresh[:len(fresh) // 2])
            fresh = bytearray()
        elif event.kind == COLD_REMOVE and at not in lost:
            cold.pop(event.byte, None)
    shutil.rmtree(to / "log")
    (to / "log").mkdir()
    for number, log in segments.items():
        (to / "log" / f"{number:08x}.seg").write_bytes(log)
    for number, raw in cold.items():
        (to / "cold" / f"{number:08x}.cold").write_bytes(raw)
    (to / "cold" / "new").write_bytes(bytes(fresh[:chooser.randint(0, len(fresh))]))
    _, checkpoints, index = [saved for saved in story.saved if saved[0] <= after][-1]
    for path in (to / "ckpt").iterdir():
        path.unlink()
    for name, raw in checkpoints.items():
        (to / "ckpt" / name).write_bytes(raw)
    (to / "index").write_bytes(index)


def test_a_power_cut_at_any_moment_of_a_compaction(tmp_path: Path, soak: bool) -> None:
    memory = Path("/dev/shm")
    root = memory / f"penstock-{os.getpid()}" if memory.is_dir() else tmp_path
    root.mkdir(exist_ok=True)
    try:
        story, wanted = lived(root)
        moments = [size for size, event in events(story.trace.read_bytes())]
        kinds = {event.kind for _, event in events(story.trace.read_bytes())}
        assert kinds >= {WRITE, SYNC, COLD_WRITE, COLD_SYNC, COLD_NAME, COLD_FOLDER, COLD_REMOVE}
        assert kinds & {REUSE, REMOVE}
        chooser = random.Random(7)
        turning = [size for size, event in events(story.trace.read_bytes()) if event.kind > SYNC]
        chosen = turning * (8 if soak else 1) + chooser.sample(moments, min(len(moments), 30))
        for turn, after in enumerate(chosen):
            copy = root / f"cut{turn}"
            cut(story, after, copy, chooser)
            with quiet(opened(copy)) as store:
                assert messages(store.queue("slow")).items() >= wanted.items(), after
                assert store.stat()["corrupt"] == 0
            assert check(copy).problems == []
            shutil.rmtree(copy)
    finally:
        if root != tmp_path:
            shutil.rmtree(root)
