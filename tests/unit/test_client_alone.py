"""The client by itself: a wheel of pure Python that needs no compiler, no engine and no server."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"


def test_it_can_be_installed_without_a_compiler(tmp_path: Path) -> None:
    source = tmp_path / "client"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--wheel-dir", tmp_path, source],
        check=True, timeout=120,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    packed = zipfile.ZipFile(wheel)
    python = {name for name in packed.namelist() if name.endswith(".py")}
    assert python == {f"penstock/{path.name}" for path in CLIENT.glob("*.py")}
    assert "penstock/py.typed" in packed.namelist()
    alone = tmp_path / "alone"
    packed.extractall(alone)
    # -S: nothing that this environment has installed can be imported.
    said = subprocess.run(
        [sys.executable, "-S", "-E", "-c",
         "import penstock; print(penstock.Client.__name__, penstock.AsyncClient.__name__)"],
        cwd=alone, check=True, capture_output=True, text=True, timeout=60,
    ).stdout  # fmt: skip
    assert said == "Client AsyncClient\n"


def test_both_distributions_have_one_version_and_one_python() -> None:
    whole, alone = (
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        for folder in (ROOT, CLIENT)
    )
    assert whole["version"] == alone["version"]
    assert whole["requires-python"] == alone["requires-python"]
    assert alone["dependencies"] == []
