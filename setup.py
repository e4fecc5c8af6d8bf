"""Maps the folders to their import names and builds the extensions.

Whatever needs no computing is declared in pyproject.toml.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

ROOMS = {"penstock": "client", "penstock.engine": "engine", "penstock.server": "server"}

# cimport, mypy and pyright look a dotted name up as a path and do not read
# package_dir. build/names spells the import names for them, as links to the rooms.
NAMES = Path("build", "names")
for name, folder in ROOMS.items():
    for source in sorted(Path(folder).iterdir()) if name == "penstock" else [Path(folder)]:
        link = NAMES.joinpath("penstock", source.name)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists() and source.name != "__pycache__":
            link.symlink_to(os.path.relpath(source, link.parent))

# release, debug (bounds checked), trace (for coverage; several times slower), asan (addresses
# and undefined behaviour checked; runs only beside the sanitizer's library: make asan-test) or
# quick (compiled in a sixth of the time, and slow: make mutants).
# The C files of another kind are stale although no source is newer: hence last.
BUILD = os.environ.get("PENSTOCK_BUILD", "release")
last = Path("build", "last")
stale = not last.exists() or last.read_text() != BUILD

# Receipts are read where they stand in a frame, as the platforms we build for allow: hence no
# check of alignment.
SANITIZERS = [
    "-fsanitize=address,undefined", "-fno-sanitize=alignment", "-fno-sanitize-recover=all",
]
COMPILED = {
    "asan": ["-O1", "-g", "-fno-omit-frame-pointer", *SANITIZERS],
    "quick": ["-O0", "-g0"],
}


def extension(name: str, source: str) -> Extension:
    folder = Path(source).parent
    tracing = [("CYTHON_TRACE", "1"), ("CYTHON_TRACE_NOGIL", "1")]
    return Extension(
        name,
        [source],
        define_macros=tracing if BUILD == "trace" else [],
        include_dirs=["engine"],
        depends=[os.fspath(p) for p in (*folder.glob("*.pxi"), *Path("engine").glob("*.h"))],
        extra_compile_args=[
            *COMPILED.get(BUILD, ["-O3", "-g1"]),
            "-Wall", "-Wextra", "-Wno-unused-parameter",
        ],
        extra_link_args=["-pthread", *(SANITIZERS if BUILD == "asan" else [])],
    )


EXTENSIONS = {
    "penstock.engine._core": "engine/_core.pyx",
    "penstock.server._wire": "server/_wire.pyx",
    "penstock.server._load": "server/_load.pyx",
}

setup(
    package_dir=ROOMS,
    packages=[
        "penstock",
        *(f"penstock.{name}" for name in find_packages(include=["engine*", "server*"])),
    ],
    ext_modules=cythonize(
        [extension(name, source) for name, source in EXTENSIONS.items() if Path(source).exists()],
        include_path=[os.fspath(NAMES)],
        compiler_directives={
            "language_level": 3,
            "boundscheck": BUILD not in ("release", "quick"),
            "wraparound": False,
            "linetrace": BUILD == "trace",
        },
        annotate=os.environ.get("PENSTOCK_ANNOTATE") == "1",
        force=stale,
    ),
)
last.write_text(BUILD)
