"""The words that go before a command, so that its syncs take longer: slow_disk.c, compiled.

    python benchmarks/slow_disk.py            what a synced write takes with a delay, and without
    build/slow_disk 5000 penstock serve ...   5 ms longer, once that was run
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAM = HERE.parent / "build" / "slow_disk"


class NoSlowDiskError(Exception):
    """There is no C compiler, or what it said."""


def words(delay_ms: float) -> list[str]:
    """Nothing for 0; else the program and by how much it delays a sync."""
    if not delay_ms:
        return []
    source = HERE / "slow_disk.c"
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < source.stat().st_mtime:
        compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))),
                        None)
        if compiler is None:
            raise NoSlowDiskError("there is no C compiler for slow_disk.c")
        PROGRAM.parent.mkdir(parents=True, exist_ok=True)
        made = PROGRAM.with_name(f"slow_disk.{os.getpid()}")
        done = subprocess.run([compiler, "-O2", "-o", os.fspath(made), os.fspath(source)],
                              capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoSlowDiskError(f"slow_disk.c: {done.stderr.strip()[-200:]}")
        made.replace(PROGRAM)
    return [os.fspath(PROGRAM), str(delay_ms * 1000)]


def main() -> None:
    """Measure a pwrite of 4 KiB and its fdatasync, delayed and not."""
    if len(sys.argv) > 1:
        from machine import synced_writes

        with tempfile.TemporaryDirectory() as folder:
            found = synced_writes(Path(folder, "file"), 4096, 1.0)
        print(f"{statistics.median(found) * 1e6:.0f} µs")
        return
    for delay_ms in (0.0, 0.001, 1.0, 5.0):
        print(f"delayed by {delay_ms:g} ms: ", end="", flush=True)
        subprocess.run([*words(delay_ms), sys.executable, __file__, "once"], check=True)


if __name__ == "__main__":
    main()
