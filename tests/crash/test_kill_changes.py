"""kill -9 in the middle of what changes a store: create, delete, purge, seek, settings, notes.

Each worker owns a queue and a note, and writes down each change before it makes it. Whoever follows
finds the state before the last change or the state after it, and nothing between.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

from engine_language import crashed, opened, started

from penstock.engine import QueueNotFoundError, Store
from penstock.engine.check import check

WORKERS = 4
ORDERS = ("none", "key", "strict")


class State(NamedTuple):
    """What a worker's queue and note are like."""

    exists: bool = False
    first: int = 0
    next: int = 0
    floor: int = 0
    order: str = "none"
    note: str = ""


def after(state: State, change: list[Any]) -> State:
    """The state that a change leads to."""
    what, value = change
    if what == "note":
        return state._replace(note=value)
    if what == "create":
        return state if state.exists else State(exists=True, note=state.note)
    if what == "delete":
        return State(note=state.note)
    if what == "append":
        return state._replace(next=state.next + value)
    if what == "purge":
        return state._replace(first=state.next, floor=state.next)
    if what == "confirm":
        return state._replace(floor=state.next)
    if what == "seek":
        return state._replace(floor=state.first)
    return state._replace(order=value)


def observed(store: Store, name: str) -> State:
    noted = store.noted(name)
    note = "" if noted is None else noted[0].decode()
    try:
        queue = store.queue(name, create=False)
        stat, group = queue.stat(), queue.group()
        order = group.settings()["order"]
        # The floor is raised over what was purged when somebody looks next.
        floor = max(stat["first"], group.stat()["floor"])
        return State(True, stat["first"], stat["next"], floor, order, note)
    except QueueNotFoundError:
        return State(note=note)


def make(store: Store, name: str, change: list[Any]) -> None:
    what, value = change
    if what == "note":
        store.note(name, value.encode())
        return
    if what == "delete":
        store.delete(name)
        return
    queue = store.queue(name)
    group = queue.group()
    if what == "append":
        queue.append_many([b"%d" % at for at in range(value)])
    elif what == "purge":
        queue.purge()
    elif what == "seek":
        group.seek(offset=queue.stat()["first"])
    elif what == "order":
        group.configure(order=value)
    elif what == "confirm":
        # What a dead one has leased comes again when its lease is over.
        while group.stat()["floor"] < queue.stat()["next"]:
            batch = group.receive(100, lease_ms=50, wait_ms=100)
            group.confirm(batch.receipts) if len(batch) else None


def last_change(path: Path, number: int) -> tuple[State, list[Any]]:
    """What a worker's things were like before what it did last."""
    known, change = json.loads((path / f"changes.{number}").read_text().splitlines()[-1])
    return State(*known), change


def change_on(path: Path, number: int, life: int) -> None:
    """Change and change again; a wrong state found at the start is written down."""
    store = opened(path / "store")
    name = f"w{number}"
    ledger = path / f"changes.{number}"
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    state = observed(store, name)
    known = State(*json.loads(lines[-1])[0]) if lines else State()
    last = json.loads(lines[-1])[1] if lines else None
    done = after(known, last) if last else known
    if last and last[0] == "confirm" and known.floor < state.floor < done.floor:
        known = known._replace(floor=state.floor)       # confirmed batch by batch
    if state not in (known, done):
        (path / f"broken.{number}.{life}").write_text(f"{known} then {last}, found {state}")
    chooser = random.Random(life)
    file = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        options: list[list[Any]] = [["note", str(chooser.random())], ["create", 0]]
        if state.exists:
            options = [
                ["note", str(chooser.random())], ["delete", 0], ["purge", 0], ["seek", 0],
                *([["append", chooser.randrange(1, 300)]] * 4), ["confirm", 0],
                ["order", chooser.choice(ORDERS)],
            ]
        change = chooser.choice(options)
        os.write(file, json.dumps([state, change]).encode() + b"\n")
        make(store, name, change)
        state = after(state, change)


def test_a_killed_change_was_made_or_not(tmp_path: Path, soak: bool) -> None:
    chooser = random.Random(3)
    lives = 0

    def start(number: int) -> Any:
        nonlocal lives
        lives += 1
        return started(change_on, tmp_path, number, lives)

    with opened(tmp_path / "store") as keeper:
        people = {number: start(number) for number in range(WORKERS)}
        end = time.monotonic() + (900 if soak else 12)
        for _ in range(5000 if soak else 100):
            # The moment of death is what is tested: it must fall anywhere.
            time.sleep(chooser.random() * 0.1)
            number = chooser.randrange(WORKERS)
            assert people[number].is_alive(), f"it ended by itself: {people[number].exitcode}"
            people[number].kill()
            people[number].join()
            people[number] = start(number)
            if time.monotonic() > end:
                break
        for person in people.values():
            person.kill()
            person.join()
        broken = [found.read_text() for found in tmp_path.glob("broken.*")]
        assert not broken, "\n".join(broken)
        found = {name: observed(keeper, name) for name in (f"w{at}" for at in range(WORKERS))}
        image = crashed(keeper, tmp_path / "image")
    report = check(str(image))
    assert not report.problems, report.lines()
    with opened(image) as store:
        # Recovered from the log alone, it is what the living had before them.
        for number in range(WORKERS):
            name = f"w{number}"
            again = observed(store, name)
            before, change = last_change(tmp_path, number)
            if change[0] == "confirm" and before.floor <= again.floor < found[name].floor:
                # Nobody was told of a confirmation whose caller died before it was written.
                again = again._replace(floor=found[name].floor)
            assert again == found[name]
    changes = sum(len(file.read_text().splitlines()) for file in tmp_path.glob("changes.*"))
    assert changes > 100
