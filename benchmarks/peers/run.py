"""Load ours and the peers with the same works, in turns, and keep what was measured.

    python benchmarks/peers/run.py                            all works but W4, 128 and 1024 bytes
    python benchmarks/peers/run.py --works W2 --delay-ms 5    each sync takes 5 ms longer
    python benchmarks/peers/run.py --works W4 --count 10000000 --peers penstock,redis

W1  4 connections, batches of 1000 (as many as the protocol takes), each acknowledged
W2  64 connections, one message in flight on each
W3  4 that send batches of 100 and 4 that receive and confirm, at most 10,000 on their way
W3p the same at --rate messages a second, sent one by one by 16: latencies, not the rate
W4  so many are sent, and then received and confirmed by 4

Servers run side by side, and are loaded one at a time. The rate is of acknowledged (W1, W2) or of
confirmed messages (W3); CPU and memory are the server's. Results: benchmarks/peers/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, os.fspath(Path(__file__).resolve().parents[1]))

from peers import processes  # noqa: E402
from peers.processes import MissingError, Server  # noqa: E402
from peers.servers import PEERS, Peer  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results"
RUN_LIMIT_S = 900
# work: work, producers, consumers, batch
WORKS = {
    "W1": ("send", 4, 0, 1000),
    "W2": ("send", 64, 0, 1),
    "W3": ("both", 4, 4, 100),
    "W3p": ("both", 16, 4, 1),
}


def command(peer: Peer, server: Server, work: str, producers: int, consumers: int, batch: int,
            size: int, seconds: float, count: int = 0, rate: float = 0.0) -> list[str]:
    """The command of a peer's loader."""
    begin = peer.words(server)
    warm = str(peer.warm_up)
    if peer.java:
        if peer.name == "rocketmq":
            batch = min(batch, 256)
        return [*begin, work, str(producers), str(consumers), str(batch), str(size), str(seconds),
                warm, str(count), "10000", str(rate)]
    words = {"work": work, "producers": producers, "consumers": consumers, "batch": batch,
             "size": size, "seconds": seconds, "warm-up": warm, "count": count, "rate": rate}
    return [*begin, *(text for name, value in words.items() for text in (f"-{name}", str(value)))]


def measured(words: list[str], server: Server, folder: Path) -> dict[str, float]:
    """What a loader told, and what the server and the machine did meanwhile."""
    cpu, all_cpu, (written, flushes) = (processes.cpu_seconds(server.group),
                                        processes.machine_cpu_seconds(), processes.disk(folder))
    before = os.times()
    done = subprocess.run(words, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    after = os.times()
    told = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not told:
        raise RuntimeError((done.stderr or done.stdout).strip()[-300:] or "no figures")
    figures: dict[str, float] = json.loads(told[-1])
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

    def __init__(self, args: argparse.Namespace, stack: ExitStack, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.running: dict[Peer, Server] = {}
        self.rows: dict[tuple[Peer, str, int], dict[str, Any]] = {}
        self.missing: dict[str, str] = {}
        for peer in PEERS:
            if peer.name not in args.peers or args.durable and not peer.durable:
                continue
            own = folder / f"{PEERS.index(peer):02}-{peer.name}"
            own.mkdir()
            try:
                self.running[peer] = peer.start(stack, own, args.delay_ms)
                print(f"· {peer.name} ({peer.setting}) runs", flush=True)
            except (MissingError, subprocess.TimeoutExpired) as missing:
                self._miss(peer, str(missing))

    def _miss(self, peer: Peer, why: str) -> None:
        self.missing[f"{peer.name} ({peer.setting})"] = why
        print(f"  {peer.name} ({peer.setting}) is not measured: {why}", flush=True)

    def turns(self, work: str, size: int) -> None:
        """A work, in rounds, each round all peers in another order."""
        for number in range(self.args.rounds):
            for peer in list(self.running)[:: 1 if number % 2 == 0 else -1]:
                kind, producers, consumers, batch = WORKS[work]
                rate = self.args.rate if work == "W3p" else 0.0
                words = command(peer, self.running[peer], kind, producers, consumers, batch, size,
                                self.args.seconds, rate=rate)
                self._take(peer, work, size, words)

    def backlog(self, size: int) -> None:
        """So many messages sent, then received and confirmed."""
        for peer in self.running:
            for work, kind in (("W4 fill", "send"), ("W4 drain", "receive")):
                words = command(peer, self.running[peer], kind, 4, 4, 1000, size, 0,
                                self.args.count)
                self._take(peer, work, size, words)

    def _take(self, peer: Peer, work: str, size: int, words: list[str]) -> None:
        try:
            figures = measured([*shlex.split(self.args.before), *words], self.running[peer],
                               self.folder)
        except (RuntimeError, subprocess.TimeoutExpired) as failed:
            self._miss(peer, f"{work} {size}: {failed}"[:300])
            return
        row = self.rows.setdefault((peer, work, size), {
            "peer": peer.name, "setting": peer.setting, "durable": peer.durable, "work": work,
            "size": size, "delay_ms": self.args.delay_ms, "rounds": []})
        row["rounds"].append(figures)
        print(f"  {work:<9}{size:>5} B  {peer.name:<11}{peer.setting:<23}"
              f"{figures['rate']:>12,.0f} /s  p50 {figures.get('p50_us', 0):>9,.0f}  "
              f"p99 {figures.get('p99_us', 0):>9,.0f} µs  "
              f"{figures['server_cpu_per_million']:>7.1f} CPU s/M  errors {figures['errors']:.0f}",
              flush=True)


def main(words: list[str] | None = None) -> int:
    """Measure what was asked for, print it and keep it."""
    names = list(dict.fromkeys(peer.name for peer in PEERS))
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__.splitlines()[0])
    parser.add_argument("--works", default="W3p,W3,W2,W1")
    parser.add_argument("--sizes", default="128,1024")
    parser.add_argument("--peers", default=",".join(names))
    parser.add_argument("--durable", action="store_true", help="only durable settings")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="of W3p")
    parser.add_argument("--count", type=int, default=10_000_000, help="of W4")
    parser.add_argument("--delay-ms", type=float, default=0.0, help="each sync takes longer")
    parser.add_argument("--before", default="", help="words before each loader's command")
    parser.add_argument("--data", type=Path, help="where servers keep their files")
    parser.add_argument("--out", type=Path, help="the file to keep the results in")
    args = parser.parse_args(words)
    args.peers = args.peers.split(",")
    # Servers are stopped however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    args.out = args.out or RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    with tempfile.TemporaryDirectory(prefix="penstock-peers-", dir=args.data) as folder, \
            ExitStack() as stack:
        comparison = Comparison(args, stack, Path(folder))
        # What receives comes first: what is only sent would stand before it.
        for work in args.works.split(","):
            for size in map(int, args.sizes.split(",")):
                if work == "W4":
                    comparison.backlog(size)
                else:
                    comparison.turns(work, size)
                keep(args, comparison)
    print(f"Kept as {os.path.relpath(args.out)}")
    return 0


def keep(args: argparse.Namespace, comparison: Comparison) -> None:
    """Write what was measured so far."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True,
                            cwd=RESULTS.parent, check=False).stdout.strip()
    told = {"when": time.strftime("%Y-%m-%d %H:%M"), "cpus": os.cpu_count(),
            "kernel": platform.release(), "commit": commit, "seconds": args.seconds,
            "rate": args.rate, "count": args.count, "missing": comparison.missing,
            "rows": list(comparison.rows.values())}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(told, indent=0) + "\n")


if __name__ == "__main__":
    sys.exit(main())
