"""The pages keep up with the code: examples compile, links lead somewhere, limits are explained."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from tree import ROOT, tracked

PAGES = [path for path in tracked() if path.suffix == ".md"]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(prose(page)))
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_examples_in_python_compile(page: Path) -> None:
    for language, text in FENCE.findall(page.read_text()):
        if language == "python":
            compile(text, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target in tracked() or target.is_dir(), link
        assert not anchor or anchor in anchors(target), link


def test_the_map_in_the_readme_is_complete() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text()))
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.parent == ROOT / "docs"}
    assert pages <= linked


def test_the_readme_names_only_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"^ *make ([a-z-]+)|`make ([a-z-]+)", (ROOT / "README.md").read_text(), re.M)
    assert {first or second for first, second in code} <= targets


def test_every_limit_is_explained() -> None:
    code, page = ROOT / "server/broker/limits.py", ROOT / "docs/limits.md"
    if not code.exists() or not page.exists():
        pytest.skip("the limits are not written yet")
    fields = {
        node.target.id
        for node in ast.walk(ast.parse(code.read_text()))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    explained = set(re.findall(r"`(\w+)`", page.read_text()))
    assert not {name for name in fields if not name.startswith("_")} - explained


EMBEDDED = [
    text for language, text in FENCE.findall((ROOT / "README.md").read_text())
    if language == "python" and "penstock.engine" in text
]


@pytest.mark.parametrize("text", EMBEDDED)
def test_the_embedded_examples_run(text: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "build/names")}
    subprocess.run([sys.executable, "-c", text], cwd=tmp_path, env=environment, check=True)
