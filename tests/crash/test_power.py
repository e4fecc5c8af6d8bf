"""Lost, torn and reordered writes: what a power cut may do, and what it must not."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
from engine_language import LONG, crashed, deliveries, messages, opened, quiet
from power import Promise, Saved, Story, broken_promises, cut, events, without_syncs

from penstock.engine import Store

QUEUES = ("red", "green", "blue")


class Life:
    """A store that lives, its trace on; every promise it makes is written down."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chooser = random.Random(seed)
        self.store = quiet(opened(path / "store"))
        self.file = os.open(path / "trace", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.store._trace(self.file)
        self.story = Story((path / "store" / "store").read_bytes(), b"")
        self.first = (path / "store" / "log" / "00000001.seg").read_bytes()[:4096]
        self.unsynced: list[Promise] = []
        self.leased: dict[str, list[tuple[int, bytes]]] = {name: [] for name in QUEUES}
        for name in QUEUES:
            self.store.queue(name)

    def promise(self, kind: str, queue: str, offset: int, body: bytes = b"") -> Promise:
        return Promise(os.fstat(self.file).st_size, kind, queue, offset, body)

    def append(self) -> None:
        name = self.chooser.choice(QUEUES)
        bodies = [
            self.chooser.randbytes(self.chooser.choice((0, 3, 100, 600, 9000)))
            for _ in range(self.chooser.choice((1, 1, 1, 4, 30)))
        ]
        level = self.chooser.choice(("disk", "disk", "kernel"))
        receipt = self.store.queue(name).append_many(bodies, durability=level)
        made = [
            self.promise("stored", name, receipt.offset + at, body)
            for at, body in enumerate(bodies)
        ]
        if level == "disk":
            self.story.promises += made
        else:
            self.unsynced += made

    def take(self) -> None:
        name = self.chooser.choice(QUEUES)
        queue = self.store.queue(name)
        batch = queue.group().receive(self.chooser.randrange(1, 20), lease_ms=LONG)
        # What a consumer has seen must never be taken back.
        for offset, body in zip(batch.offsets.tolist(), batch.tolist(), strict=True):
            self.story.promises.append(self.promise("stored", name, offset, body))
        pieces = batch.receipts
        for at, offset in enumerate(batch.offsets.tolist()):
            self.leased[name].append((offset, pieces[24 * at : 24 * at + 24]))

    def confirm(self) -> None:
        name = self.chooser.choice(QUEUES)
        self.chooser.shuffle(self.leased[name])
        some = [self.leased[name].pop() for _ in range(min(5, len(self.leased[name])))]
        if some:
            verdicts = self.store.queue(name).group().confirm(b"".join(r for _, r in some))
            assert set(verdicts) == {0}
            self.story.promises += [self.promise("confirmed", name, offset) for offset, _ in some]

    def roll(self) -> None:
        self.store._prepare()

    def save(self) -> None:
        self.store.checkpoint()
        folder = self.path / "store" / "ckpt"
        name = max(path.name for path in folder.iterdir() if path.name != "new")
        index = (self.path / "store" / "index").read_bytes()
        traced = os.fstat(self.file).st_size
        self.story.saved.append(Saved(traced, name, (folder / name).read_bytes(), index))

    def run(self, steps: int) -> Story:
        acts = [self.append] * 10 + [self.take] * 3 + [self.confirm] * 4 + [self.roll]
        for _ in range(steps):
            self.chooser.choice(acts)()
            if self.chooser.random() < 0.02:
                self.save()
        self.store._trace(-1)
        os.close(self.file)
        self.story.trace = header_first(self.first, (self.path / "trace").read_bytes())
        shift = len(self.story.trace) - (self.path / "trace").stat().st_size
        for made in [*self.story.promises, *self.story.saved]:
            made.traced += shift
        self.store.close()
        return self.story


def header_first(header: bytes, trace: bytes) -> bytes:
    """The trace with what was written before it began: the header of the first segment."""
    place = (1 << 32).to_bytes(8, "little")
    one, two = (1).to_bytes(8, "little"), (2).to_bytes(8, "little")
    size = len(header).to_bytes(8, "little")
    return one + place + size + header + two + place + bytes(8) + trace


def after_the_cut(story: Story, after: int, to: Path, chooser: random.Random) -> list[Promise]:
    """Open what a cut left; the promises that are broken."""
    cut(story, after, to, chooser)
    try:
        with opened(to) as store:
            held = {name: messages(store.queue(name)) for name in QUEUES}
            assert store.stat()["corrupt"] == 0
            coming = {name: deliveries(store.queue(name).group()) for name in QUEUES}
        return broken_promises(story, after, held, coming)
    finally:
        shutil.rmtree(to)


@pytest.fixture(scope="module")
def cuts(request: pytest.FixtureRequest) -> int:
    return 3000 if request.config.getoption("--soak") else 120


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_power_cut_takes_back_nothing_that_was_promised(
    seed: int, cuts: int, quick_path: Path
) -> None:
    story = Life(quick_path, seed).run(400)
    sizes = [size for size, _ in events(story.trace)]
    assert len({event.segment for _, event in events(story.trace)}) > 1
    chooser = random.Random(seed)
    for number in range(cuts):
        after = chooser.choice(sizes[1:])
        assert not after_the_cut(story, after, quick_path / f"cut{number}", chooser), after


def test_the_checker_finds_a_store_that_does_not_wait_for_the_disk(quick_path: Path) -> None:
    story = Life(quick_path, 4).run(200)
    chooser = random.Random(4)
    story.trace = without_syncs(story.trace, 1.0, chooser)
    story.saved.clear()
    # The header of the first segment stays synced, so that there is a log at all.
    story.trace = header_first(story.trace[24 : 24 + 4096], story.trace[24 + 4096 + 24 :])
    last = events(story.trace)[-1][0]
    broken = 0
    for number in range(10):
        try:
            broken += bool(after_the_cut(story, last, quick_path / f"cut{number}", chooser))
        except Exception:
            broken += 1
    assert broken >= 5


class Watched(Store):
    """A store whose opening is traced from the first write on."""

    trace_file = -1

    def _start(self, *args: object) -> None:
        self._trace(Watched.trace_file)
        super()._start(*args)


def test_what_recovery_lets_be_seen_is_on_disk_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = quiet(opened(tmp_path / "one"))
    store.queue("red").append(b"known to the kernel only", durability="kernel")
    copy = crashed(store, tmp_path / "two")
    synced: set[str] = set()
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os,
            name,
            lambda fd, real=real: (synced.add(os.readlink(f"/proc/self/fd/{fd}")), real(fd)),
        )
    Watched.trace_file = os.open(tmp_path / "trace", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    try:
        reopened = Watched.open(copy, segment_size=1 << 20)
        reopened._trace(-1)
        assert messages(reopened.queue("red")) == {0: b"known to the kernel only"}
        reopened.close()
    finally:
        os.close(Watched.trace_file)
        store.close()
    order = [(e.kind, e.segment) for _, e in events((tmp_path / "trace").read_bytes())]
    by_python = any(name.endswith("00000001.seg") for name in synced)
    assert by_python or (2, 1) in order[: order.index((1, 2))]


def test_what_a_crash_tore_is_never_written_over(tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "one"))
    store.queue("red").append(b"whole")
    whole = store.stat()["written"] & 0xFFFFFFFF
    store.queue("red").append(b"torn" * 300)
    copy = crashed(store, tmp_path / "two")
    store.close()
    log = copy / "log" / "00000001.seg"
    left = bytearray(log.read_bytes())
    left[whole + 600 : whole + 1200] = bytes(600)
    log.write_bytes(left)
    with opened(copy) as again:
        assert messages(again.queue("red")) == {0: b"whole"}
        again.queue("red").append(b"later")
        assert again.stat()["written"] >> 32 > 1
        assert messages(again.queue("red")) == {0: b"whole", 1: b"later"}
    assert log.read_bytes() == left
