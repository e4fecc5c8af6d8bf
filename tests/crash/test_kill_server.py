"""kill -9 of servers under load: clients connect again, and nothing is lost, stored or done twice.

Several servers share one store, and one of them, or all at once, are killed again and again. Their
clients know nothing of it but that connections break.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from pathlib import Path

from engine_language import deliveries, messages, opened

from penstock import Client, Verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from server_process import Server

SERVERS = 3
WRITERS = 3
READERS = 2
PATIENCE = 120.0


class House:
    """Servers on one store, and threads that send and receive through them.

    Invariants:
      1. stored has what a send was answered for: the offset, and the body.
      2. confirmed has the offsets of answered confirmations, from before any later delivery is
         looked at: again has those that came after that.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.chooser = random.Random(seed)
        self.kills = 0
        self.stored: dict[int, bytes] = {}
        self.confirmed: set[int] = set()
        self.again: list[int] = []
        self.failures: list[BaseException] = []
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.servers = [Server(path) for _ in range(SERVERS)]
        self.threads = [
            threading.Thread(target=self.guarded, args=(work, number))
            for work, count in ((self.write_on, WRITERS), (self.read_on, READERS))
            for number in range(count)
        ]
        for thread in self.threads:
            thread.start()

    def guarded(self, work: object, number: int) -> None:
        try:
            with Client(
                f"127.0.0.1:{self.servers[number % SERVERS].tcp}",
                timeout=PATIENCE, connect_for=PATIENCE, reconnect_for=PATIENCE,
            ) as client:
                work(client, number)  # type: ignore[operator]
        except BaseException as error:
            self.failures.append(error)

    def write_on(self, client: Client, number: int) -> None:
        queue = client.queue("q")
        count = 0
        while not self.ended.is_set():
            bodies = [b"%d:%d" % (number, count + at) for at in range(20)]
            count += len(bodies)
            level = "kernel" if count % 3 else "disk"
            receipts = queue.send_each(bodies, level)
            first = queue.send_many(bodies := [body + b"m" for body in bodies]).offset
            with self.lock:
                self.stored |= {one.offset: body[:-1]
                                for one, body in zip(receipts, bodies, strict=True)}
                self.stored |= {first + at: body for at, body in enumerate(bodies)}

    def read_on(self, client: Client, number: int) -> None:
        queue = client.queue("q")
        while not self.ended.is_set():
            found = queue.receive(50, wait=0.2, lease=PATIENCE)
            with self.lock:
                self.again += [one.offset for one in found if one.offset in self.confirmed]
            verdicts = client.confirm(found)
            with self.lock:
                self.confirmed |= {
                    one.offset for one, verdict in zip(found, verdicts, strict=True)
                    if verdict is Verdict.DONE
                }

    def kill(self, numbers: list[int]) -> None:
        for number in numbers:
            self.servers[number].process.send_signal(signal.SIGKILL)
        for number in numbers:
            dead = self.servers[number]
            dead.process.wait()
            assert dead.process.stdout is not None
            dead.process.stdout.close()
            self.kills += 1
            self.servers[number] = Server(
                self.path, tcp=f"127.0.0.1:{dead.tcp}", http=f"127.0.0.1:{dead.http}")

    def live(self, kills: int, seconds: float) -> None:
        end = time.monotonic() + seconds
        everybody = list(range(SERVERS))
        while self.kills < kills and time.monotonic() < end and not self.failures:
            # The moment of death is what is tested: it must fall anywhere.
            time.sleep(self.chooser.random() * 0.3)
            whole = self.chooser.random() < 0.2
            self.kill(everybody if whole else [self.chooser.choice(everybody)])
        self.ended.set()
        for thread in self.threads:
            thread.join()
        for server in self.servers:
            with server:
                pass


def test_killed_servers_lose_nothing_and_repeat_nothing(tmp_path: Path, soak: bool) -> None:
    house = House(tmp_path / "store", 7)
    house.live(*((2000, 1800) if soak else (100, 30)))
    assert not house.failures and house.kills > 3
    with opened(tmp_path / "store") as store:
        held = messages(store.queue("q"))
        coming = deliveries(store.queue("q").group())
        assert store.stat()["corrupt"] == 0
    assert len(house.stored) > 100 and len(house.confirmed) > 50
    lost = [offset for offset, body in house.stored.items() if held.get(offset) != body]
    assert not lost and not house.again
    assert len(set(held.values())) == len(held), "a retried send was stored twice"
    assert not house.confirmed & set(coming), "a confirmed message came again"
    # Of these nobody was told: the answer to a confirmation was on its way.
    assert len(set(held) - set(coming) - house.confirmed) <= READERS * 50
