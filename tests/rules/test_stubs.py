"""The .pyi files say what the extensions have: checked against the build by mypy's stubtest."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXTENSIONS = ("penstock.engine._core", "penstock.server._wire", "penstock.server._load")
# What Cython adds to every class, and what no extension can say: signatures of __init__, bases.
ALLOWED = r"""
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__test__
.*\.__pyx_.*
.*\.__init__
.*\.Durability
.*\.FilterKind
.*\.Keep
.*\.HasFileno
"""


def test_stubs_and_extensions_agree(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    allowed.write_text(ALLOWED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", *EXTENSIONS, "--concise", "--allowlist", allowed,
         "--ignore-unused-allowlist", "--ignore-disjoint-bases",
         "--ignore-missing-stub"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT / "build" / "names")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
