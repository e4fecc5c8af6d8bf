"""Where crash images are built: in memory if there is room, because hundreds of them are made."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


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
