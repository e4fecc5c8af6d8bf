"""Who may import whom. Think hard about the layers before changing this file.

engine ← broker ← protocols ← app: a room imports itself and what stands to its left. The
client stands alone beside them. Both imports and cimports are read, also those inside functions.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree import ROOT, tracked

ROOMS = {"client": "penstock", "engine": "penstock.engine", "server": "penstock.server"}
NAMES = str(ROOT / "build/names")
CYTHON_IMPORT = re.compile(r"^\s*(?:from\s+([\w.]+)\s+)?c?import\s+(\w[\w., ]*|\()", re.MULTILINE)
CYTHON = {".pyx", ".pxi", ".pxd"}
LOOPS = {"asyncio", "uvloop"}
ASYNC_FILES = {"connection.py", "listener.py", "bridge.py"}

# Beyond the standard library, and beside what the layers allow.
LIBRARIES = {
    "client": set[str](),
    "engine": {"numpy", "xxhash"},
    "broker": {"numpy", "msgspec", "cronsim"},
    "protocols": {"numpy", "msgspec", "httptools", "uvloop"},
    "app": {"numpy", "msgspec", "uvloop", "rich"},
}
# What a file of the layer may import of penstock, as prefixes of dotted names.
LAYERS = {
    "client": ["penstock"],
    "engine": ["penstock.engine"],
    "broker": ["penstock.engine", "penstock.server.broker"],
    "protocols": [
        "penstock.engine",
        "penstock.server.broker",
        "penstock.server.protocols",
        "penstock.server.bridge",
        "penstock.server.metrics",
        "penstock.server._wire",
    ],
    "app": ["penstock"],
}


def imports(path: Path) -> Iterator[str]:
    """The absolute dotted names that a file imports or cimports."""
    room, *inner = path.relative_to(ROOT).with_suffix("").parts
    package = ".".join([ROOMS.get(room, room), *inner[:-1]]).split(".")
    text = path.read_text()
    if path.suffix not in CYTHON:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, node.module or ""]).strip(".")
                yield from (f"{module}.{alias.name}" for alias in node.names)
        return
    for module, names in CYTHON_IMPORT.findall(text):
        if module.startswith("."):
            level = len(module) - len(module.lstrip("."))
            module = ".".join([*package[: len(package) - level + 1], module.lstrip(".")])
        for name in names.split(","):
            name = name.split(" as ")[0].strip(" (")
            yield f"{module}.{name}".strip(".")


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if parts[0] != "server":
        return parts[0]
    # _wire is the hot path of the protocols, and no Python file.
    if parts[1].startswith("_wire"):
        return "protocols"
    return parts[1] if parts[1] in LAYERS else "app"


def within(name: str, prefixes: list[str]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


SOURCES = [
    path
    for path in tracked()
    if path.suffix in {".py", ".pyi", *CYTHON}
    and path.relative_to(ROOT).parts[0] in ROOMS
]
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES]
)


@each_source
def test_imports_point_downward(path: Path) -> None:
    allowed = LAYERS[layer(path)]
    own = [name for name in imports(path) if within(name, ["penstock"])]
    assert not [name for name in own if not within(name, allowed)]
    if layer(path) == "client":
        assert not [name for name in own if within(name, ["penstock.engine", "penstock.server"])]


@each_source
def test_a_room_uses_only_the_libraries_it_may(path: Path) -> None:
    foreign = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names
    cython = {"cython", "libc", "cpython", "posix"} if path.suffix in CYTHON else set()
    assert foreign - {"penstock"} - cython <= LIBRARIES[layer(path)]


@each_source
def test_an_event_loop_is_known_in_few_places(path: Path) -> None:
    if path.suffix != ".py" or not LOOPS & {name.split(".")[0] for name in imports(path)}:
        return
    inner = str(path.relative_to(ROOT))
    assert (
        # ship is a program of many producers and consumers at once: a user of the client.
        inner in {"engine/aio.py", "server/app.py", "server/bridge.py", "server/ship.py"}
        or inner in {"server/housekeeping.py", "server/push/pusher.py", "client/areplies.py"}
        or inner in {"client/aio.py", "client/aqueue.py", "client/consume.py"}
        or (inner.startswith("server/protocols/") and path.name in ASYNC_FILES)
    )


def test_the_blocking_client_does_not_pay_for_an_event_loop() -> None:
    code = "import sys, penstock; sys.exit('asyncio' in sys.modules or 'numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": NAMES}, check=True)


@each_source
def test_the_broker_has_no_wire_and_no_clock(path: Path) -> None:
    if layer(path) == "broker":
        roots = {name.split(".")[0] for name in imports(path)}
        assert not roots & (LOOPS | {"socket", "selectors", "ssl", "time"})


@each_source
def test_an_adapter_never_imports_another(path: Path) -> None:
    parts = path.relative_to(ROOT).parts
    if layer(path) != "protocols" or len(parts) < 4:
        return
    base = "penstock.server.protocols"
    allowed = [f"{base}.{parts[2]}", f"{base}.listener"]
    assert not [
        name for name in imports(path) if within(name, [base]) and not within(name, allowed)
    ]


@each_source
def test_only_the_command_line_imports_the_composition_root(path: Path) -> None:
    if path.relative_to(ROOT).parts not in {("server", "serving.py"), ("server", "ship.py")}:
        assert not [name for name in imports(path) if within(name, ["penstock.server.app"])]


def test_nobody_imports_a_room_by_its_folder() -> None:
    # It works by accident of the working directory, and then every class exists twice.
    assert not [
        f"{path.relative_to(ROOT)}: {name}"
        for path in tracked()
        if path.suffix in {".py", *CYTHON}
        for name in imports(path)
        if name.split(".")[0] in ROOMS
    ]


def test_the_reader_of_imports_sees_both_languages(tmp_path: Path) -> None:
    found = re.findall(CYTHON_IMPORT, "from penstock.engine._core cimport Lane, Store\nimport os\n")
    assert found == [("penstock.engine._core", "Lane, Store"), ("", "os")]
    assert "tree.ROOT" in list(imports(Path(__file__)))
