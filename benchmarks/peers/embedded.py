"""The peers that are libraries: W1 (batches of 1000) and W2 (one at a time), and reading back.

    python benchmarks/peers/embedded.py [--rounds 3] [--seconds 2] [--delay-ms 5]

Each is measured in a process of its own, in its durable and in its default setting, in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

import slow_disk  # noqa: E402
from peers import kept  # noqa: E402
from peers.install import CLASSES, JARS, ROOT  # noqa: E402

# Messages in a batch.
WORKS = {"E1": 1000, "E2": 1}
OPENS = [f"--add-{kind}=java.base/{name}=ALL-UNNAMED" for kind, name in (
    ("exports", "jdk.internal.ref"), ("exports", "sun.nio.ch"), ("opens", "java.lang"),
    ("opens", "java.lang.reflect"), ("opens", "java.io"), ("opens", "java.util"),
    ("opens", "java.nio"), ("opens", "sun.nio.ch"))] + [
    "--add-exports=jdk.unsupported/sun.misc=ALL-UNNAMED",
    "--add-exports=jdk.compiler/com.sun.tools.javac.file=ALL-UNNAMED",
    "--add-opens=jdk.compiler/com.sun.tools.javac=ALL-UNNAMED"]
Append = Callable[[list[bytes]], Any]
Read = Callable[[], int]


def penstock(path: str, durable: bool) -> tuple[Append, Read]:
    from penstock.engine import Store

    store = Store.open(path, durability="disk" if durable else "kernel")
    queue = store.queue("bench")

    def read() -> int:
        offset = 0
        while len(found := queue.read(offset=offset, max_messages=1000)):
            found.tolist()
            offset += len(found)
        return offset

    return lambda bodies: (queue.append(bodies[0]) if len(bodies) == 1
                           else queue.append_many(bodies)), read


def sqlite(path: str, durable: bool) -> tuple[Append, Read]:
    import sqlite3

    base = sqlite3.connect(f"{path}.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL").fetchall()
    base.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
    base.execute("CREATE TABLE m (id INTEGER PRIMARY KEY, body BLOB)")

    def append(bodies: list[bytes]) -> None:
        base.execute("BEGIN")
        base.executemany("INSERT INTO m (body) VALUES (?)", [(body,) for body in bodies])
        base.execute("COMMIT")

    return append, lambda: sum(1 for _ in base.execute("SELECT body FROM m ORDER BY id"))


def lmdb(path: str, durable: bool) -> tuple[Append, Read]:
    import lmdb as library

    base = library.open(path, map_size=32 << 30, sync=durable, metasync=durable)
    count = [0]

    def append(bodies: list[bytes]) -> None:
        with base.begin(write=True) as transaction:
            for body in bodies:
                transaction.put(count[0].to_bytes(8, "big"), body, append=True)
                count[0] += 1

    def read() -> int:
        with base.begin() as transaction:
            return sum(1 for _ in transaction.cursor().iternext(keys=False, values=True))

    return append, read


def rocksdb(path: str, durable: bool) -> tuple[Append, Read]:
    import rocksdict

    base = rocksdict.Rdict(path, options=rocksdict.Options(raw_mode=True))
    options = rocksdict.WriteOptions()
    options.sync = durable
    count = [0]

    def append(bodies: list[bytes]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for body in bodies:
            batch.put(count[0].to_bytes(8, "big"), body)
            count[0] += 1
        base.write(batch, options)

    return append, lambda: sum(1 for _ in base.values())


def persistqueue(path: str, durable: bool) -> tuple[Append, Read]:
    """Its own file queue; task by task, because it has no batches. It syncs only if told to."""
    import persistqueue as library
    from persistqueue.serializers import pickle as own

    class Synced:
        load = staticmethod(own.load)

        @staticmethod
        def dump(value: Any, file: Any) -> None:
            own.dump(value, file)
            file.flush()
            os.fsync(file.fileno())

    queue = library.Queue(path, serializer=Synced if durable else own, autosave=True)

    def append(bodies: list[bytes]) -> None:
        for body in bodies:
            queue.put(body)

    def read() -> int:
        for _ in range(limit := min(queue.qsize(), 5000)):
            queue.get(block=False)
        return limit

    return append, read


def litequeue(path: str, durable: bool) -> tuple[Append, Read]:
    """SQLite below; one transaction for each message, as it comes."""
    import litequeue as library

    queue = library.LiteQueue(f"{path}.db")
    queue.conn.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")

    def append(bodies: list[bytes]) -> None:
        for body in bodies:
            queue.put(body.decode())

    def read() -> int:
        taken = 0
        while taken < 5000 and (task := queue.pop()) is not None:
            queue.done(task.message_id)
            taken += 1
        return taken

    return append, read


LIBRARIES = {"penstock.engine": penstock, "sqlite WAL": sqlite, "lmdb": lmdb, "rocksdb": rocksdb,
             "persist-queue": persistqueue, "litequeue": litequeue}
SETTINGS = {
    "penstock.engine": ("disk (default)", "kernel"),
    "sqlite WAL": ("synchronous FULL (default)", "synchronous NORMAL"),
    "lmdb": ("sync (default)", "nosync"),
    "rocksdb": ("sync", "no sync (default)"),
    "persist-queue": ("fsync in the serializer", "no fsync (default)"),
    "litequeue": ("synchronous FULL", "synchronous NORMAL (default)"),
    "chronicle-queue": ("sync() after each batch, MS_ASYNC", "no sync (default)"),
}
# Its open edition's sync() is an msync that does not wait for the disk, as strace shows.
NEVER_DURABLE = {"chronicle-queue"}


def work(library: str, durable: bool, batch: int, size: int, seconds: float,
         folder: str) -> dict[str, float]:
    """Append for so long, read back, and tell."""
    append, read = LIBRARIES[library](f"{folder}/store", durable)
    bodies = [b"x" * size] * batch
    append(bodies)
    taken: list[float] = []
    cpu = time.process_time()
    began = now = time.perf_counter()
    while now - began < seconds:
        append(bodies)
        before, now = now, time.perf_counter()
        taken.append(now - before)
    messages = len(taken) * batch
    spent = time.process_time() - cpu
    start = time.perf_counter()
    count = read()
    reading = time.perf_counter() - start
    taken.sort()
    return {"rate": messages / (now - began), "messages": messages, "errors": 0,
            "read_rate": count / reading, "server_cpu_per_million": spent / messages * 1e6,
            **{f"{name}_us": taken[int(share * (len(taken) - 1))] * 1e6
               for name, share in (("p50", .5), ("p99", .99), ("p999", .999))}}


def command(library: str, durable: bool, batch: int, size: int, seconds: float, folder: str,
            delay_ms: float) -> list[str]:
    if library == "chronicle-queue":
        words = ["java", "-Xmx512m", *OPENS, "-cp", f"{JARS / 'chronicle'}/*:{CLASSES}",
                 "ChronicleLoad", f"{folder}/store", str(batch), str(size), str(seconds),
                 "sync" if durable else "none"]
    else:
        words = [sys.executable, __file__, "--one", json.dumps(
            [library, durable, batch, size, seconds, folder])]
    return [*slow_disk.words(delay_ms), *words]


def once(args: argparse.Namespace, library: str, durable: bool, batch: int,
         size: int) -> dict[str, float]:
    """The figures of one process that did one work; RuntimeError with its last word if none."""
    names = {"PYTHONPATH": os.fspath(ROOT / "build" / "names")}
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        words = command(library, durable, batch, size, args.seconds, folder, args.delay_ms)
        if not shutil.which(words[0]):
            raise RuntimeError(f"{words[0]} is not installed")
        done = subprocess.run(
            words, capture_output=True, text=True, timeout=300, check=False,
            env={**os.environ, **names})
    told = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not told:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no figures"])[-1][:200])
    return {name: round(value, 3) for name, value in json.loads(told[-1]).items()}


def measure(args: argparse.Namespace, work_name: str, batch: int, size: int) -> None:
    """A work, in rounds, each round all libraries in another order, each figure kept at once."""
    told = kept.Kept(args.out, work_name, size, args.delay_ms)
    settings = [(library, durable) for library in SETTINGS
                for durable in ((True,) if args.delay_ms else (True, False))]
    rows = {(library, durable): told.begin(library, SETTINGS[library][0 if durable else 1],
                                           durable and library not in NEVER_DURABLE, args.go_on)
            for library, durable in settings}
    for number in range(args.rounds):
        for library, durable in settings[:: 1 if number % 2 == 0 else -1]:
            row = rows[library, durable]
            if number < len(row["rounds"]):
                continue
            try:
                figures = once(args, library, durable, batch, size)
            except (RuntimeError, subprocess.TimeoutExpired) as failed:
                told.miss(row, str(failed)[:300])
                print(f"  {library} ({row['setting']}) is not measured: {failed}", flush=True)
                continue
            told.add(row, figures)
            print(f"  {work_name} {size:>5} B  {library:<17}{row['setting']:<27}"
                  f"{figures['rate']:>12,.0f} /s", flush=True)


def main() -> int:
    """Measure all libraries, print and keep the figures."""
    parser = argparse.ArgumentParser(prog="embedded.py", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--sizes", default="128,1024")
    parser.add_argument("--delay-ms", type=float, default=0.0)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--go-on", action="store_true", help="with the rounds that are kept")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, default=kept.RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(work(*json.loads(args.one))), flush=True)
        # Some of the libraries wait for threads of theirs; what was measured is told.
        os._exit(0)
    for work_name in args.works.split(","):
        for size in map(int, args.sizes.split(",")):
            measure(args, work_name, WORKS[work_name], size)
    print(f"Kept in {os.path.relpath(args.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
