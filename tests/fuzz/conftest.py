"""How long a fuzz test runs: a fixed number of executions, or with --fuzz SECONDS that long."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from trials import DONE, Trials


@pytest.fixture
def trials(request: pytest.FixtureRequest) -> Trials:
    """Executions of this test. A failure is repeated with the seed that the summary tells."""
    seconds = float(request.config.getoption("--fuzz"))
    told = os.environ.get("PENSTOCK_FUZZ_SEED")
    seed = int(told) if told else int.from_bytes(os.urandom(4), "little") if seconds else 1
    return Trials(request.node.name, seconds, seed)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not DONE or not terminalreporter.config.getoption("--fuzz"):
        return
    terminalreporter.section("fuzzing")
    for name, count, seconds, seed in DONE:
        rate = count / max(seconds, 1e-9)
        terminalreporter.line(f"{count:>12,} at {rate:>9,.0f}/s  seed {seed:<10}  {name}")
    terminalreporter.line(f"{sum(one[1] for one in DONE):>12,} in all")


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A directory whose files live in memory where the machine offers that."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        yield tmp_path
        return
    path = Path(tempfile.mkdtemp(prefix="penstock-", dir=memory))
    yield path
    shutil.rmtree(path, ignore_errors=True)
