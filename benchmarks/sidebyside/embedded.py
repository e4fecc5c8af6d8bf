"""Rows without a socket: our engine beside SQLite, LMDB and RocksDB in this process."""

from __future__ import annotations

import importlib
import itertools
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sidebyside.measure import Contender, Figures, MissingError, Row, Running
from sidebyside.servers import ROOT

BODY = bytes(range(128))
FILL = 200_000
THREADS = 64
_numbers = itertools.count(1)


class Penstock:
    """Every append and every confirmation returns after fdatasync; threads share a sync."""

    name = "penstock.engine"

    def __init__(self, path: Path) -> None:
        sys.path.insert(0, os.fspath(ROOT / "build" / "names"))
        self.store = _wanted("penstock.engine").Store.open(path, durability="disk")
        self.queue = self.store.queue("bench")
        self.consumer = self.queue.group()
        self.offset = 0

    def append(self, bodies: list[bytes]) -> None:
        if len(bodies) == 1:
            self.queue.append(bodies[0], durability="disk")
        else:
            self.queue.append_many(bodies, durability="disk")

    def read(self) -> Iterator[list[bytes]]:
        offset = 0
        while len(batch := self.queue.read(offset=offset, max_messages=1000)):
            yield batch.tolist()
            offset = int(batch.offsets[-1]) + 1

    def pop(self) -> bool:
        batch = self.consumer.receive(1)
        return bool(len(batch) and self.consumer.confirm(batch.receipts) == b"\0")

    def close(self) -> None:
        self.store.close()


class Sqlite:
    """WAL with synchronous=FULL: a sync for each transaction."""

    name = "SQLite WAL FULL"

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        self.base = sqlite3.connect(path / "m.db", isolation_level=None, check_same_thread=False)
        for order in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL",
                      "CREATE TABLE m (id INTEGER PRIMARY KEY, body BLOB)"):
            self.base.execute(order).fetchall()

    def append(self, bodies: list[bytes]) -> None:
        with self.lock:
            self.base.execute("BEGIN")
            self.base.executemany("INSERT INTO m (body) VALUES (?)", zip(bodies))
            self.base.execute("COMMIT")

    def read(self) -> Iterator[list[bytes]]:
        cursor = self.base.execute("SELECT body FROM m ORDER BY id")
        while rows := cursor.fetchmany(1000):
            yield [row[0] for row in rows]

    def pop(self) -> bool:
        with self.lock:
            return bool(self.base.execute("DELETE FROM m WHERE id = (SELECT min(id) FROM m)"
                                          " RETURNING body").fetchall())

    def close(self) -> None:
        self.base.close()


class Lmdb:
    """One sync for each write transaction, which is LMDB's default."""

    name = "LMDB"

    def __init__(self, path: Path) -> None:
        self.base = _wanted("lmdb").open(os.fspath(path), map_size=32 << 30)
        self.next = itertools.count()

    def append(self, bodies: list[bytes]) -> None:
        with self.base.begin(write=True) as transaction:
            for body in bodies:
                transaction.put(next(self.next).to_bytes(8, "big"), body, append=True)

    def read(self) -> Iterator[list[bytes]]:
        with self.base.begin() as transaction:
            bodies = iter(transaction.cursor().iternext(keys=False, values=True))
            while part := list(itertools.islice(bodies, 1000)):
                yield part

    def pop(self) -> bool:
        with self.base.begin(write=True) as transaction:
            cursor = transaction.cursor()
            return cursor.first() and bytes(cursor.value()) != b"" and cursor.delete()

    def close(self) -> None:
        self.base.close()


class RocksDb:
    """Write batches with sync. Its pop knows the next key and so searches no tombstones."""

    name = "RocksDB"

    def __init__(self, path: Path) -> None:
        rocks = _wanted("rocksdict")
        self.base = rocks.Rdict(os.fspath(path), options=rocks.Options(raw_mode=True))
        self.batch = rocks.WriteBatch
        self.synced = rocks.WriteOptions()
        self.synced.sync = True
        self.next, self.head = itertools.count(), itertools.count()

    def append(self, bodies: list[bytes]) -> None:
        batch = self.batch(raw_mode=True)
        for body in bodies:
            batch.put(next(self.next).to_bytes(8, "big"), body)
        self.base.write(batch, self.synced)

    def read(self) -> Iterator[list[bytes]]:
        values = iter(self.base.values())
        while part := list(itertools.islice(values, 1000)):
            yield part

    def pop(self) -> bool:
        key = next(self.head).to_bytes(8, "big")
        if self.base.get(key) is None:
            return False
        self.base.delete(key, write_opt=self.synced)
        return True

    def close(self) -> None:
        self.base.close()


ENGINES = (Penstock, Sqlite, Lmdb, RocksDb)


def rows(data: Path) -> list[Row]:
    """Batches of three sizes, by one thread and by many; reading; taking and confirming."""
    def row(key: str, title: str, work: Callable[[Any, float], Figures], fill: int = 0,
            of_best_peer: float = 1.0) -> Row:
        contenders = [Contender(engine.name, _starter(engine, data, work, fill))
                      for engine in ENGINES]
        return Row(key, title, contenders, f">= {of_best_peer:g} x the best", 0.0, of_best_peer)

    return [
        row("embedded-1", "durable batches of 1", _appending(1)),
        row("embedded-64", "durable batches of 64", _appending(64)),
        row("embedded-1000", "durable batches of 1000", _appending(1000)),
        row("embedded-threads", "durable batches of 1, 64 threads", _appending(1, THREADS)),
        row("embedded-read", "sequential read", _reading, FILL),
        row("embedded-pop", "take + confirm one by one, 1 thread", _popping(1), FILL),
        row("embedded-pop-threads", "take + confirm one by one, 64 threads", _popping(THREADS),
            FILL, 10.0),
    ]


def _wanted(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingError(f"{name} is not installed ({error})") from None


def _starter(engine: Any, data: Path, work: Callable[[Any, float], Figures],
             fill: int) -> Callable[[ExitStack], Running]:
    def start(stack: ExitStack) -> Running:
        path = data / f"embedded-{next(_numbers):03}"
        path.mkdir()
        contender = engine(path)
        stack.callback(contender.close)
        left = [0]

        def refill() -> None:
            while left[0] < fill:
                contender.append([BODY] * 1000)
                left[0] += 1000

        def measure(seconds: float) -> Figures:
            figures = work(contender, seconds)
            if work is not _reading:
                left[0] -= int(figures["messages"])
            return figures

        return Running(measure, os.getpid(), refill if fill else None)

    return start


def _appending(batch: int, threads: int = 1) -> Callable[[Any, float], Figures]:
    bodies = [BODY] * batch

    def step(contender: Any) -> int:
        contender.append(bodies)
        return batch

    return lambda contender, seconds: _repeat(contender, seconds, step, threads)


def _popping(threads: int) -> Callable[[Any, float], Figures]:
    return lambda contender, seconds: _repeat(contender, seconds, lambda it: it.pop(), threads)


def _reading(contender: Any, seconds: float) -> Figures:
    start = time.perf_counter()
    count = size = 0
    while (elapsed := time.perf_counter() - start) < seconds or not count:
        for bodies in contender.read():
            count += len(bodies)
            size += sum(map(len, bodies))
    if size != count * len(BODY):
        raise RuntimeError(f"{size} bytes were read, not {count * len(BODY)}")
    return {"rate": count / elapsed, "messages": count}


def _repeat(contender: Any, seconds: float, step: Callable[[Any], int],
            threads: int) -> Figures:
    """Repeat a step until the time is over or nothing is left; rates and latencies of it."""
    taken: list[list[float]] = [[] for _ in range(threads)]
    counts = [0] * threads
    errors: list[BaseException] = []
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        try:
            while (before := time.perf_counter()) < end:
                done = step(contender)
                if not done:
                    return
                taken[index].append(time.perf_counter() - before)
                counts[index] += done
        except BaseException as error:
            errors.append(error)

    start = time.perf_counter()
    workers = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - start
    if errors:
        raise errors[0]
    latencies = sorted(itertools.chain.from_iterable(taken))
    if not latencies:
        raise RuntimeError("nothing was done")
    return {
        "rate": sum(counts) / elapsed, "messages": sum(counts),
        "p50_us": latencies[len(latencies) // 2] * 1e6,
        "p99_us": latencies[int(len(latencies) * 0.99)] * 1e6,
        "p999_us": latencies[int(len(latencies) * 0.999)] * 1e6,
    }
