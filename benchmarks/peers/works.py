"""What peers are loaded with, and the command of a loader that does it."""

from __future__ import annotations

from dataclasses import dataclass

from peers.processes import Server
from peers.servers import Peer


@dataclass(frozen=True)
class Work:
    """How many send and receive, and how; half: at half the rate of W2; paced: at a given one."""

    kind: str
    producers: int
    consumers: int
    batch: int
    half: bool = False
    paced: bool = False


# W4 is two of them, one after the other, and counts messages, not seconds.
WORKS = {
    "W1": Work("send", 4, 0, 1000),
    "W2": Work("send", 64, 0, 1),
    "W2h": Work("send", 64, 0, 1, half=True),
    "W3": Work("both", 4, 4, 100),
    "W3p": Work("both", 16, 4, 1, paced=True),
    "W4 fill": Work("send", 4, 0, 1000),
    "W4 drain": Work("receive", 0, 4, 1000),
}
WINDOW = 10_000
LONG_BATCH = 1000


def command(peer: Peer, server: Server, work: Work, size: int, seconds: float, count: int = 0,
            rate: float = 0.0) -> list[str]:
    """The command of a peer's loader; with a count it ends there, or after so many seconds."""
    begin = peer.words(server)
    warm = str(peer.warm_up)
    batch = min(work.batch, peer.batch)
    if peer.java:
        # Of so short a run the second compiler takes more than it gives, unless a batch is long.
        if work.batch < LONG_BATCH:
            begin.insert(1, "-XX:TieredStopAtLevel=1")
        return [*begin, *map(str, (work.kind, work.producers, work.consumers, batch, size, seconds,
                                   warm, count, WINDOW, rate))]
    words = {"work": work.kind, "producers": work.producers, "consumers": work.consumers,
             "batch": batch, "size": size, "seconds": seconds, "warm-up": warm, "count": count,
             "window": WINDOW, "rate": rate}
    return [*begin, *(text for name, value in words.items() for text in (f"-{name}", str(value)))]
