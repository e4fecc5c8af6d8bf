"""Change one rule of safety at a time in a copy of the tree and see that a test fails.

    python tests/mutants/run.py [--only WORD ...] [--jobs N] [--within SECONDS] [--keep]

A mutant that no test notices is printed as SURVIVED, one that lets a test go on for ever as HUNG:
a test that notices says so within limits of its own. Then the exit code is 1. Of an extension only
what a mutant changes is compiled anew, without optimisation: some 15 s. A test that notices a
mutant must pass without it, which is seen once for each.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from catalogue import MUTANTS, Mutant
from cold import COLD_MUTANTS

ROOT = Path(__file__).parents[2]
COPIED = ("engine", "server", "client", "tests", "build", "setup.py", "pyproject.toml", "README.md",
          "docs", "examples", "benchmarks", "Makefile")
UNITS = {"engine/_core": ("engine/",), "server/_wire": ("server/_wire", "engine/_core.pxd"),
         "server/_load": ("server/_load",)}


def copied(to: Path) -> Path:
    """A copy of the tree with its build, so that only what a mutant changes is compiled."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)
    return to


def made(tree: Path, unit: str) -> list[Path]:
    """What was compiled of an extension, the C file first."""
    return [*tree.glob(f"{unit}.c"), *tree.glob(f"{unit}.*.so")]


def build(tree: Path, changed: str = "") -> None:
    """Compile what the changed file is part of, else everything; raises if it does not compile."""
    if changed.endswith(".py"):
        return
    for unit, parts in UNITS.items():
        if not changed or changed.endswith(".h") or changed.startswith(parts):
            # Compilers look at times of whole seconds.
            os.utime(tree / f"{unit}.pyx")
            continue
        # The others lie in the same folders, and are as they were.
        for file in made(tree, unit):
            os.utime(file)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree,
                   check=True, capture_output=True, text=True,
                   env={**os.environ, "PENSTOCK_BUILD": "quick"})


class Ended(NamedTuple):
    """The exit code of a run of tests, None if it had to be ended; what failed first."""

    code: int | None
    failed: str


def ended(tree: Path, tests: str, within_s: int) -> Ended:
    """How tests end in a tree, or that they do not. What they started goes with them."""
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests],
        cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.fspath(tree / "build" / "names"),
             "PENSTOCK_UNSHRUNK": "1"})
    try:
        told = running.communicate(timeout=within_s)[0]
    except subprocess.TimeoutExpired:
        return Ended(None, "")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()
    failed = re.search(r"^(?:FAILED|ERROR) \S+?(::.*?)(?: - .*)?$", told, re.MULTILINE)
    return Ended(running.returncode, failed[1] if failed else "")


class Trees:
    """One tree that is never changed, and as many to change as there are jobs."""

    def __init__(self, folder: Path, jobs: int, within_s: int) -> None:
        self.within_s = within_s
        self.sound = copied(folder / "sound")
        build(self.sound)
        self.free: SimpleQueue[Path] = SimpleQueue()
        for job in range(jobs):
            shutil.copytree(self.sound, folder / str(job), symlinks=True)
            self.free.put(folder / str(job))
        self.passing: dict[str, bool] = {}
        self.looking = threading.Lock()

    def passes(self, tests: str) -> bool:
        """Whether tests pass in the tree as it is."""
        with self.looking:
            if tests not in self.passing:
                self.passing[tests] = ended(self.sound, tests, self.within_s).code == 0
            return self.passing[tests]


def tried(trees: Trees, mutant: Mutant) -> str:
    """killed, SURVIVED, or why it could not be tried."""
    tree = trees.free.get()
    path = tree / mutant.file
    text = path.read_text()
    try:
        if text.count(mutant.old) != 1:
            return f"STALE: its text stands {text.count(mutant.old)} times in {mutant.file}"
        path.write_text(text.replace(mutant.old, mutant.new))
        build(tree, mutant.file)
        for tests in mutant.tests:
            code, failed = ended(tree, tests, trees.within_s)
            if code == 0:
                continue
            if code is None:
                return f"HUNG: {tests} did not end in {trees.within_s} s, which no test noticed"
            # A signal ends it with less than nothing.
            if code > 1:
                return f"STALE: {tests} ended with {code}"
            if not trees.passes(tests):
                return f"STALE: {tests} fails without it"
            return f"killed by {tests.partition('::')[0]}{failed}" + (
                f", of signal {-code}" if code < 0 else "")
        return "SURVIVED"
    except subprocess.CalledProcessError as error:
        return f"STALE: it does not compile: {error.stderr[-300:]}"
    finally:
        path.write_text(text)
        for unit in UNITS if not mutant.file.endswith(".py") else ():
            for file in made(trees.sound, unit):
                shutil.copy2(file, tree / file.relative_to(trees.sound))
        trees.free.put(tree)


def timed(trees: Trees, mutant: Mutant) -> tuple[str, float]:
    """The verdict, and the seconds it took."""
    began = time.monotonic()
    return tried(trees, mutant), time.monotonic() - began


def main() -> int:
    """Try them all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=[""], nargs="+",
                        help="mutants whose rule or file has one of these words, in this order")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once")
    parser.add_argument("--within", type=int, default=900, help="seconds that tests may take")
    parser.add_argument("--keep", action="store_true", help="leave the copies where they are")
    options = parser.parse_args()
    every = sorted((*MUTANTS, *COLD_MUTANTS), key=lambda mutant: not mutant.file.endswith(".py"))
    chosen = list(dict.fromkeys(mutant for word in options.only for mutant in every
                                if word in mutant.rule or word in mutant.file))
    folder = Path(tempfile.mkdtemp(prefix="penstock-mutants-"))
    bad = 0
    try:
        trees = Trees(folder, options.jobs, options.within)
        with ThreadPoolExecutor(options.jobs) as pool:
            running = {pool.submit(timed, trees, mutant): mutant for mutant in chosen}
            for number, done in enumerate(as_completed(running), 1):
                verdict, took = done.result()
                bad += not verdict.startswith("killed")
                print(f"{number:>3}/{len(chosen)}  {running[done].rule}: {verdict}, {took:.0f} s",
                      flush=True)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mutants killed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
