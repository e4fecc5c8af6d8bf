"""Load ours and the peers with the same works, in turns, and keep what was measured.

    python benchmarks/peers/run.py                            all works but W4, 128 and 1024 bytes
    python benchmarks/peers/run.py --go-on                    only the rounds that are not kept yet
    python benchmarks/peers/run.py --go-on --others 0.25      and those that were disturbed
    python benchmarks/peers/run.py --works W3,W3p:128         of W3p only 128 bytes
    python benchmarks/peers/run.py --works W2 --durable --delay-ms 5    each sync takes 5 ms longer
    python benchmarks/peers/run.py --works W4 --count 10000000 --limit 60 --peers penstock,redis

W1  4 connections, batches of 1000 (as many as the protocol takes), each acknowledged
W2  64 connections, one message in flight on each
W2h the same at half of the rate that the peer reached in W2 (which is measured before)
W3  4 that send batches of 100 and 4 that receive and confirm, at most 10,000 on their way
W3p the same at --rate messages a second, sent one by one by 16: latencies, not the rate
W4  so many are sent, and then received and confirmed by 4; either ends after --limit seconds

Servers run side by side, and are loaded one at a time; for W4 each runs alone. The rate is of
acknowledged (W1, W2) or of confirmed messages (W3); CPU and memory are the server's. Results:
benchmarks/peers/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from peers import kept, processes  # noqa: E402
from peers.processes import MissingError, Server  # noqa: E402
from peers.servers import PEERS, Peer  # noqa: E402
from peers.works import WORKS, command  # noqa: E402

RUN_LIMIT_S = 900.0
# A virtual machine that was paused, or processes that were: such a round is taken again.
STILL_S = 1.0
AGAIN = 3


class StoodStillError(Exception):
    """Nothing ran for a while."""


def loaded(words: list[str]) -> str:
    """What a loader printed; StoodStillError if all this stood still meanwhile."""
    if not shutil.which(words[0]):
        raise RuntimeError(f"its loader cannot be had: there is no {Path(words[0]).name}")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as process:
        began = last = time.monotonic()
        still = 0.0
        while True:
            try:
                out, err = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                now = time.monotonic()
                still, last = max(still, now - last - 0.1), now
                if now - began > RUN_LIMIT_S:
                    process.kill()
                    raise RuntimeError(f"no end after {RUN_LIMIT_S:g} s") from None
            except BaseException:
                process.kill()
                raise
    if still > STILL_S:
        raise StoodStillError(f"everything stood still for {still:.1f} s")
    told = [line for line in out.splitlines() if line.startswith("{")]
    if not told:
        raise RuntimeError((err or out).strip()[-300:] or "no figures")
    return told[-1]


def measured(words: list[str], server: Server, folder: Path) -> dict[str, float]:
    """What a loader told, and what the server and the machine did meanwhile."""
    cpu, all_cpu, (written, flushes) = (processes.cpu_seconds(server.group),
                                        processes.machine_cpu_seconds(), processes.disk(folder))
    before = os.times()
    figures: dict[str, float] = json.loads(loaded(words))
    after = os.times()
    messages = max(figures["acknowledged"], 1)
    spent = processes.cpu_seconds(server.group) - cpu
    loader = sum(after[2:4]) - sum(before[2:4])
    others = processes.machine_cpu_seconds() - all_cpu - spent - loader
    now_written, now_flushes = processes.disk(folder)
    resident, private = processes.memory_bytes(server.group)
    figures.update({
        "server_cpu_per_million": spent / messages * 1e6, "loader_cpu": loader,
        "others_share": min(1.0, max(0.0, others) / (os.cpu_count() or 1)
                            / max(after.elapsed - before.elapsed, 1e-3)),
        "written_per_message": (now_written - written) / messages,
        "flushes_per_thousand": (now_flushes - flushes) / messages * 1e3,
        "resident_bytes": resident, "private_bytes": private,
    })
    return {name: round(value, 3) for name, value in figures.items()}


class Comparison:
    """Peers that run side by side, loaded in turns."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.chosen = [peer for peer in PEERS if peer.name in args.peers
                       and (peer.durable or not args.durable)]
        self.running: dict[Peer, Server] = {}
        self.missing: dict[Peer, str] = {}

    def start(self, stack: ExitStack, peers: list[Peer]) -> None:
        for peer in peers:
            own = Path(tempfile.mkdtemp(prefix=f"{peer.name}-", dir=self.folder))
            try:
                self.running[peer] = peer.start(stack, own, self.args.delay_ms)
                print(f"· {peer.name} ({peer.setting}) runs", flush=True)
            except (MissingError, subprocess.TimeoutExpired) as missing:
                self.missing[peer] = str(missing)[:300]
                print(f"  {peer.name} ({peer.setting}) does not run: {missing}", flush=True)

    def warm(self) -> None:
        """Load what runs in a JVM for a while: its first seconds are spent on being compiled."""
        for peer in self.running:
            if peer.jvm:
                words = command(peer, self.running[peer], WORKS["W3"], 128, self.args.warm)
                subprocess.run(words, capture_output=True, timeout=RUN_LIMIT_S, check=False)

    def turns(self, work: str, size: int) -> None:
        """A work, in rounds, each round all peers in another order."""
        told = kept.Kept(self.args.out, work, size, self.args.delay_ms)
        rows = {peer: told.begin(peer.name, peer.setting, peer.durable, self.args.go_on)
                for peer in self.chosen}
        for number in range(self.args.rounds):
            for peer in self.chosen[:: 1 if number % 2 == 0 else -1]:
                row = rows[peer]
                if peer in self.missing:
                    told.miss(row, self.missing[peer])
                elif number >= kept.quiet(row, self.args.others):
                    try:
                        rate = self.rate(peer, work, size)
                        figures = self.take(peer, work, size, self.args.seconds, rate=rate)
                    except RuntimeError as failed:
                        self.failed(peer, work, size, failed)
                        told.miss(row, str(failed))
                    else:
                        told.add(row, figures, self.args.rounds)

    def rate(self, peer: Peer, work: str, size: int) -> float:
        """At what rate messages are due; 0: as fast as it goes."""
        if WORKS[work].half:
            row = kept.Kept(self.args.out, "W2", size, self.args.delay_ms).row(
                peer.name, peer.setting)
            rate = kept.median(row, "rate") if row else None
            if rate is None:
                raise RuntimeError("its rate of W2, of which this is the half, is not known")
            return rate / 2
        return float(self.args.rate) if WORKS[work].paced else 0.0

    def backlog(self, size: int) -> None:
        """Each peer alone: so many messages sent, then received and confirmed."""
        for peer in self.chosen:
            tables = [kept.Kept(self.args.out, work, size, self.args.delay_ms)
                      for work in ("W4 fill", "W4 drain")]
            rows = [told.begin(peer.name, peer.setting, peer.durable, self.args.go_on)
                    for told in tables]
            if all(row["rounds"] for row in rows):
                continue
            for _ in range(AGAIN):
                try:
                    self.filled_and_drained(peer, size, tables, rows)
                    break
                except StoodStillError as still:
                    self.failed(peer, "W4", size, still)
                    for told, row in zip(tables, rows, strict=True):
                        told.miss(row, str(still))

    def filled_and_drained(self, peer: Peer, size: int, tables: list[kept.Kept],
                           rows: list[kept.Row]) -> None:
        count = self.args.count
        with ExitStack() as stack:
            self.start(stack, [peer])
            why = self.missing.get(peer, "")
            for told, row in zip(tables, rows, strict=True):
                row["rounds"] = []
                if why:
                    told.miss(row, why)
                    continue
                try:
                    figures = self.take(peer, told.same["work"], size, self.args.limit, count)
                except RuntimeError as failed:
                    why = str(failed)
                    self.failed(peer, told.same["work"], size, failed)
                    told.miss(row, why)
                    continue
                told.add(row, figures)
                # What was not sent before the limit cannot be received.
                count = int(figures["acknowledged"])

    def take(self, peer: Peer, work: str, size: int, seconds: float, count: int = 0,
             rate: float = 0.0) -> dict[str, float]:
        """A round; what the one before has left to be written back is not this one's."""
        words = command(peer, self.running[peer], WORKS[work], size, seconds, count, rate)
        for _ in range(AGAIN):
            os.sync()
            try:
                figures = measured([*shlex.split(self.args.before), *words], self.running[peer],
                                   self.folder)
            except StoodStillError as still:
                if count:
                    raise
                self.failed(peer, work, size, still)
                continue
            if rate:
                figures["due"] = rate
            if count:
                figures.update(asked=count, limit_s=seconds)
            print(f"  {work:<9}{size:>5} B  {peer.name:<11}{peer.setting:<23}"
                  f"{figures['rate']:>12,.0f} /s  p50 {figures.get('p50_us', 0):>9,.0f}  "
                  f"p99.9 {figures.get('p999_us', 0):>9,.0f} µs  "
                  f"{figures['server_cpu_per_million']:>7.1f} CPU s/M  errors "
                  f"{figures['errors']:.0f}  others {figures['others_share']:.0%}", flush=True)
            return figures
        raise RuntimeError("the machine stood still meanwhile, more than once")

    def failed(self, peer: Peer, work: str, size: int, why: Exception) -> None:
        print(f"  {work:<9}{size:>5} B  {peer.name:<11}{peer.setting:<23}{why}", flush=True)


def main(words: list[str] | None = None) -> int:
    """Measure what was asked for, print it and keep it."""
    names = list(dict.fromkeys(peer.name for peer in PEERS))
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.splitlines()[0])
    # What receives comes first: what is only sent would stand before it.
    parser.add_argument("--works", default="W3p,W3,W2,W2h,W1")
    parser.add_argument("--sizes", default="128,1024")
    parser.add_argument("--peers", default=",".join(names))
    parser.add_argument("--durable", action="store_true", help="only durable settings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--warm", type=float, default=4.0, help="seconds for each JVM, before")
    parser.add_argument("--rate", type=float, default=2000.0, help="of W3p")
    parser.add_argument("--count", type=int, default=10_000_000, help="of W4")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds of each half of W4")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="each sync takes longer")
    parser.add_argument("--go-on", action="store_true", help="with the rounds that are kept")
    parser.add_argument("--others", type=float, default=1.0, help="going on: rounds beside which "
                        "others took a larger share of the machine are measured again")
    parser.add_argument("--before", default="", help="words before each loader's command")
    parser.add_argument("--data", type=Path, help="where servers keep their files")
    parser.add_argument("--out", type=Path, default=kept.RESULTS, help="where results are kept")
    args = parser.parse_args(words)
    args.peers = args.peers.split(",")
    signal.signal(signal.SIGTERM, ended)
    works = [(work, [int(size) for size in (own or args.sizes).split(",")]) for work, _, own in
             (text.partition(":") for text in args.works.split(","))]
    with tempfile.TemporaryDirectory(prefix="penstock-peers-", dir=args.data) as folder, \
            ExitStack() as stack:
        comparison = Comparison(args, Path(folder))
        if any(work != "W4" for work, _ in works):
            comparison.start(stack, comparison.chosen)
            comparison.warm()
        for work, sizes in works:
            for size in sizes:
                if work == "W4":
                    comparison.backlog(size)
                else:
                    comparison.turns(work, size)
    print(f"Kept in {os.path.relpath(args.out)}")
    return 0


def ended(*_: object) -> None:
    """Servers are stopped however this ends, and who is impatient does not stop that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


if __name__ == "__main__":
    sys.exit(main())
