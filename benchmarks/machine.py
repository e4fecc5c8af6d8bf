"""What this machine can do at best: the ceilings that the figures of compare.py stand under.

    python benchmarks/machine.py [--data DIR]

Measured bare, without any of our code: a synced write (one pwrite into a file whose blocks are
written, then one fdatasync), and bytes copied into pages of the page cache that were never used
against pages that are there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

FILE = 64 << 20
SIZES = (4096, 16384, 65536, 262144, 1 << 20)
ROUNDS = 5


def synced_writes(path: Path, size: int, seconds: float) -> list[float]:
    """Seconds of each pwrite + fdatasync, at rising places of a file that was written before."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for at in range(0, FILE, 1 << 20):
            os.pwrite(fd, bytes(1 << 20), at)
        os.fsync(fd)
        body = os.urandom(size)
        found = []
        at, end = 0, time.monotonic() + seconds
        while (began := time.monotonic()) < end:
            os.pwrite(fd, body, at)
            os.fdatasync(fd)
            found.append(time.monotonic() - began)
            at = (at + size) % (FILE - size)
        return found
    finally:
        os.close(fd)
        path.unlink()


def page_copies(path: Path) -> tuple[float, float]:
    """Seconds to write a GiB into new pages of the page cache, and into pages that are there."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        body = os.urandom(1 << 20)
        took = []
        for _ in range(2):
            began = time.monotonic()
            for at in range(0, 8 * FILE, 1 << 20):
                os.pwrite(fd, body, at)
            took.append((time.monotonic() - began) * (1 << 30) / (8 * FILE))
        return took[0], took[1]
    finally:
        os.close(fd)
        path.unlink()


def main() -> None:
    """Print the ceilings, medians of several rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="where files are made (default: temporary)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of each round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        path = Path(name, "file")
        print(f"{os.cpu_count()} CPUs, {ROUNDS} rounds of {options.seconds:g} s, medians\n")
        print("one pwrite and one fdatasync, one writer")
        for size in SIZES:
            rounds = [statistics.median(synced_writes(path, size, options.seconds))
                      for _ in range(ROUNDS)]
            took = statistics.median(rounds)
            print(f"  {size:>9,} bytes  {took * 1e6:8.0f} µs  {1 / took:10,.0f} /s  "
                  f"{size / took / 1e6:8,.0f} MB/s   ({min(rounds) * 1e6:.0f}-"
                  f"{max(rounds) * 1e6:.0f} µs)")
        copies = [page_copies(path) for _ in range(ROUNDS)]
        print("\na GiB copied into the page cache")
        for at, what in enumerate(("pages never used", "pages that are there")):
            all_ = [copy[at] for copy in copies]
            print(f"  {what:<21}  {statistics.median(all_):6.2f} s  "
                  f"({min(all_):.2f}-{max(all_):.2f})")


if __name__ == "__main__":
    main()
