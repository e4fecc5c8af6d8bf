"""Sizes and words: what docs/style.md says about the shape of a file, kept by counting."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from tree import ROOT, tracked

FILE_LINES = {".py": 400, ".pyx": 500, ".pxi": 500}
FUNCTION_LINES = 60
# C types make a signature long, and a table of declarations is read line by line.
LINE_LENGTH = {".py": 100, ".pyx": 120, ".pxi": 120, ".h": 120, ".pxd": 130, ".pyi": 130}

# Spelled in pieces, because this file is searched as well.
BANNED = [
    "/wo" "rk/",
    ".lib" "rary/",
    ".mir" "ror/",
    "../sha" "red",
    "/ro" "ot/",
    "/ho" "me/",
    "pypi" ".org",
    "pythonhosted" ".org",
    "registry" ".npmjs",
    "proxy.golang" ".org",
    "FIX" "ME",
    "TO" "DO",
    "XX" "X",
]
TEXT = {".py", ".pyx", ".pxi", ".pxd", ".pyi", ".h", ".c", ".md", ".toml", ".json", ".sh", ""}

TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "LICENSE",
    "MANIFEST.in",
    "Makefile",
    "README.md",
    "asv.conf.json",
    "benchmarks",
    "client",
    "docs",
    "examples",
    "engine",
    "pyproject.toml",
    "server",
    "setup.py",
    "tests",
}
ROOM_KINDS = {
    ".py", ".pyx", ".pxi", ".pxd", ".pyi", ".h", ".toml", ".typed", ".html", ".css", ".js", ".svg",
}  # fmt: skip
LARGEST_FILE = 2 << 20

CYTHON_FUNCTION = re.compile(r"( *)(?:async )?c?p?def (?!class |extern |struct |enum )[^=]*\(.*$")


def python_functions(text: str) -> dict[str, int]:
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }


def cython_functions(text: str) -> dict[str, int]:
    """The lines of each function, from its first line to the last one that is indented deeper."""
    lines = text.splitlines()
    sizes = {}
    for start, line in enumerate(lines):
        head = CYTHON_FUNCTION.match(line)
        if not head:
            continue
        indent, end, last = len(head[1]), start + 1, start
        # A signature may go on over several lines and close in the column of its head.
        while end < len(lines) and (
            not lines[end].strip()
            or len(lines[end]) - len(lines[end].lstrip()) > indent
            or lines[end].lstrip().startswith(")")
        ):
            last = end if lines[end].strip() else last
            end += 1
        sizes[f"{line.strip()} (line {start + 1})"] = last - start + 1
    return sizes


def sources(*kinds: str) -> list[Path]:
    return [path for path in tracked() if path.suffix in kinds]


def test_a_file_holds_one_idea() -> None:
    counted = {path: len(path.read_text().splitlines()) for path in sources(*FILE_LINES)}
    assert not {
        str(path.relative_to(ROOT)): lines
        for path, lines in counted.items()
        if lines > FILE_LINES[path.suffix]
    }


def test_a_function_fits_on_a_screen() -> None:
    long = {}
    for path in sources(".py", ".pyx", ".pxi"):
        measure = python_functions if path.suffix == ".py" else cython_functions
        for name, lines in measure(path.read_text()).items():
            if lines > FUNCTION_LINES:
                long[f"{path.relative_to(ROOT)}: {name}"] = lines
    assert not long


def test_a_line_can_be_read_beside_another() -> None:
    assert not [
        f"{path.relative_to(ROOT)}:{number}: {len(line)}"
        for path in sources(*LINE_LENGTH)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if len(line) > LINE_LENGTH[path.suffix]
    ]


@pytest.mark.parametrize("word", BANNED)
def test_nothing_names_a_machine_or_an_intention(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b" if word.isalpha() else re.escape(word))
    assert not [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sources(*TEXT)
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_top_of_the_house_is_known() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP


def test_nothing_stray_lies_in_a_room() -> None:
    rooms = ("engine", "server", "client")
    assert not [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.relative_to(ROOT).parts[0] in rooms and path.suffix not in ROOM_KINDS
    ]
    assert not [str(path) for path in tracked() if path.stat().st_size > LARGEST_FILE]


def test_two_tests_never_share_a_name() -> None:
    # Without packages pytest imports a test by its bare name.
    names = Counter(
        path.name
        for path in sources(".py")
        if path.is_relative_to(ROOT / "tests") and not (path.parent / "__init__.py").exists()
        and path.name != "conftest.py"
    )
    assert not [name for name, count in names.items() if count > 1]
