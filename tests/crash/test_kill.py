"""kill -9 of processes that share a store, under load, at any moment."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

from engine_language import deliveries, messages, opened, started

WRITERS, READERS = 3, 3


def write_on(path: Path, number: int, life: int) -> None:
    """Append for ever; a line in the ledger for each acknowledged message."""
    store = opened(path / "store")
    ledger = os.open(path / f"stored.{number}.{life}", os.O_WRONLY | os.O_CREAT)
    chooser = random.Random(life)
    count = 0
    while True:
        queue = store.queue(f"q{chooser.randrange(3)}")
        body = b"%d:%d:%d:" % (number, life, count) + b"z" * chooser.randrange(300)
        kind = chooser.randrange(4)
        if kind == 0:
            receipt = queue.append_many([body, body])
            lines = [(receipt.offset, body), (receipt.offset + 1, body)]
        elif kind == 1:
            receipt = queue.append(body, producer=number + 1, sequence=life << 32 | count + 1)
            lines = [(receipt.offset, body)]
        else:
            level = chooser.choice(("disk", "kernel"))
            lines = [(queue.append(body, durability=level).offset, body)]
        os.write(ledger, b"".join(b"%s %d %s\n" % (queue.name.encode(), *at) for at in lines))
        count += 1


def read_on(path: Path, number: int, life: int) -> None:
    """Receive and confirm for ever; a line for each message whose confirmation was granted."""
    store = opened(path / "store")
    ledger = os.open(path / f"confirmed.{number}.{life}", os.O_WRONLY | os.O_CREAT)
    chooser = random.Random(life)
    while True:
        queue = store.queue(f"q{chooser.randrange(3)}")
        group = queue.group()
        batch = group.receive(chooser.randrange(1, 20), lease_ms=300, wait_ms=20)
        if not len(batch):
            continue
        if chooser.random() < 0.1:
            group.release(batch.receipts, delay_ms=chooser.choice((0, 50)))
            continue
        verdicts = group.confirm(batch.receipts)
        done = [o for o, v in zip(batch.offsets.tolist(), verdicts, strict=True) if v == 0]
        os.write(ledger, b"".join(b"%s %d\n" % (queue.name.encode(), at) for at in done))


class House:
    """The processes at work; somebody dies again and again."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chooser = random.Random(seed)
        self.people: dict[int, Any] = {}
        self.kills = self.lives = 0
        for number in range(WRITERS + READERS):
            self.start(number)

    def start(self, number: int) -> None:
        self.lives += 1
        work = write_on if number < WRITERS else read_on
        self.people[number] = started(work, self.path, number, self.lives)

    def kill(self, numbers: list[int]) -> None:
        for number in numbers:
            process = self.people[number]
            assert process.is_alive(), f"process {number} ended by itself: {process.exitcode}"
            process.kill()
        for number in numbers:
            self.people[number].join()
            self.kills += 1

    def live(self, kills: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        while self.kills < kills and time.monotonic() < end:
            # The moment of death is what is tested: it must fall anywhere.
            time.sleep(self.chooser.random() * 0.15)
            everybody = list(self.people)
            numbers = everybody if self.chooser.random() < 0.2 else [self.chooser.choice(everybody)]
            self.kill(numbers)
            for number in numbers:
                self.start(number)
        self.kill(list(self.people))


def ledgers(path: Path, kind: str) -> list[list[bytes]]:
    """The whole lines of the ledgers of a kind: one a life, whose last line may be torn."""
    lines = []
    for ledger in path.glob(f"{kind}.*"):
        lines += [line.split(b" ", 2) for line in ledger.read_bytes().split(b"\n")[:-1]]
    return lines


def test_killed_processes_lose_nothing_and_repeat_nothing(tmp_path: Path, soak: bool) -> None:
    house = House(tmp_path, 5)
    house.live(*((5000, 1800) if soak else (300, 40)))
    assert house.kills > 100
    with opened(tmp_path / "store") as store:
        held = {name.encode(): messages(store.queue(name)) for name in store.queues()}
        coming = {name.encode(): deliveries(store.queue(name).group()) for name in store.queues()}
        assert store.stat()["corrupt"] == 0
    stored = ledgers(tmp_path, "stored")
    lost = [line for line in stored if held[line[0]].get(int(line[1])) != line[2]]
    confirmed = Counter((name, int(offset)) for name, offset in ledgers(tmp_path, "confirmed"))
    twice = [key for key, count in confirmed.items() if count > 1]
    again = [(name, offset) for name, offset in confirmed if offset in coming[name]]
    missing = [
        (name, offset)
        for name, bodies in held.items()
        for offset in bodies
        if offset not in coming[name] and (name, offset) not in confirmed
    ]
    assert len(stored) > 1000 and len(confirmed) > 300
    assert not lost and not twice and not again
    # Killed between the confirmation and its line in the ledger: a batch for each dead reader.
    assert len(missing) <= house.kills * 20
