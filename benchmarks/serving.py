"""A server in a process of its own for the suites, on free ports of the loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .disk import PREFIX, folder

COMMAND = "import sys; from penstock.server.cli import main; sys.exit(main())"


class Serving:
    """Starts the server that the suite's own Python has installed, not one of the work tree."""

    def __init__(self, *words: str, before: Sequence[str] = (),
                 data: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=data or folder()))
        self.process = subprocess.Popen(
            [*before, sys.executable, "-c", COMMAND, "serve", "--data", str(self.folder / "data"),
             "--tcp", "127.0.0.1:0", "--http", "127.0.0.1:0", *words],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("ready"):
            raise RuntimeError(f"the server said {line!r}")
        told = dict(word.split("=", 1) for word in line.split() if "=" in word)
        self.tcp, self.http, self.cmq = told["tcp"], told["http"], told.get("cmq-tcp", "")

    def bench(self, *words: object) -> dict[str, Any]:
        """The figures of `penstock bench` with these words."""
        command = [sys.executable, "-m", "penstock.server.bench", *map(str, words), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-300:] or done.stdout[-300:])
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    def cpu_seconds(self) -> float:
        """User and system time of the server so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(stat[11]) + int(stat[12])) / 100

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder)
