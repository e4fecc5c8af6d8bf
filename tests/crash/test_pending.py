"""Delayed messages and halves when processes die: none lost, none early, none twice."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_language import crashed, messages, opened, quiet, started
from penstock.engine import PendingDecidedError, Store
from penstock.engine.check import check
from test_faults import killed_inside_the_write

SECOND = 1_000_000
HOUR = 3600 * SECOND


def now_us() -> int:
    return time.time_ns() // 1000


def late(store: Store, ahead_us: int) -> int:
    store._clock(ahead_us)
    placed = 0
    while some := store.pending._keep():
        placed += some
    return placed


ACTS: dict[str, Callable[[Store], object]] = {
    "append": lambda store: store.queue("red").append(b"never", due_us=now_us() + HOUR),
    "cancel": lambda store: store.pending.cancel(store.pending.list(state="delayed")[0].id),
    "move": lambda store: store.pending.move(
        store.pending.list(state="delayed")[0].id, now_us() + 9 * HOUR),
    "commit": lambda store: store.pending.commit(store.pending.list(state="half")[0].id),
    "rollback": lambda store: store.pending.rollback(store.pending.list(state="half")[0].id),
    "fire": lambda store: late(store, 2 * HOUR),
}


@pytest.mark.parametrize("act", ACTS)
def test_a_process_killed_while_it_decides_decided_nothing(act: str, tmp_path: Path) -> None:
    store = quiet(opened(tmp_path / "store"))
    queue = store.queue("red")
    for at in range(130):
        queue.append(b"%d" % at, due_us=now_us() + HOUR)
    half = queue.prepare(b"half").pending
    before = store.pending.list()
    assert killed_inside_the_write(ACTS[act], tmp_path / "store") < 0  # type: ignore[operator]
    store._clock(0)
    queue.append(b"the next one takes the lock")
    assert store.pending.list() == before and len(store.pending) == 131
    copy = crashed(store, tmp_path / "copy")
    for one in (store, quiet(opened(copy))):
        assert one.pending.commit(half).offset == 1
        assert late(one, 2 * HOUR) == 130
        want = {b"%d" % at for at in range(130)} | {b"half", b"the next one takes the lock"}
        assert set(messages(one.queue("red")).values()) == want
        one.close()
        assert check(one.path).problems == []


def delay_on(path: Path, number: int, life: int) -> None:
    """Send delayed messages and halves for ever; a line for each that was acknowledged."""
    store = opened(path / "store")
    ledger = os.open(path / f"sent.{number}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chooser = random.Random(life)
    queue = store.queue("red")
    count = 0
    while True:
        body = b"%d:%d:%d" % (number, life, count)
        count += 1
        due = now_us() + chooser.randrange(400_000)
        if chooser.random() < 0.7:
            receipt = queue.append(body, due_us=due)
            os.write(ledger, b"%s %d\n" % (body, due))
            if receipt.pending and chooser.random() < 0.2:
                with contextlib.suppress(PendingDecidedError):
                    store.pending.move(receipt.pending, due + 100_000)
        else:
            id = queue.prepare(body).pending
            if chooser.random() < 0.5:
                store.pending.commit(id)
                os.write(ledger, b"%s 0\n" % body)
            else:
                store.pending.rollback(id)
                os.write(ledger, b"%s never\n" % body)


def test_killed_processes_lose_nothing_and_fire_nothing_twice(tmp_path: Path, soak: bool) -> None:
    chooser = random.Random(3)
    opened(tmp_path / "store").close()
    people: dict[int, Any] = {n: started(delay_on, tmp_path, n, n) for n in range(3)}
    lives = 3
    end = time.monotonic() + (600 if soak else 12)
    while time.monotonic() < end:
        # The moment of death is what is tested: it must fall anywhere.
        time.sleep(chooser.random() * 0.2)
        dead = list(people) if chooser.random() < 0.2 else [chooser.choice(list(people))]
        for number in dead:
            assert people[number].is_alive(), people[number].exitcode
            people[number].kill()
        for number in dead:
            people[number].join()
            lives += 1
            people[number] = started(delay_on, tmp_path, number, lives)
    for process in people.values():
        process.kill()
        process.join()
    with quiet(opened(tmp_path / "store")) as store:
        late(store, HOUR)
        queue = store.queue("red")
        found = messages(queue)
        times = {body: int(entry["stored_us"]) for body, entry in
                 zip(found.values(), queue.index(), strict=True)}
        assert len(set(found.values())) == len(found) and store.stat()["corrupt"] == 0
    sent = dict(line.split(b" ") for ledger in tmp_path.glob("sent.*")
                for line in ledger.read_bytes().split(b"\n")[:-1])
    assert len(sent) > 300 and lives > 20
    for body, due in sent.items():
        if due == b"never":
            assert body not in times
        else:
            assert times[body] >= int(due)
    assert check(tmp_path / "store").problems == []
