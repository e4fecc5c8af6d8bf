"""Change one rule of safety at a time in a copy of the tree and see that a test fails.

    python tests/mutants/run.py [--only WORD] [--keep]

A mutant that no test notices is printed as SURVIVED, and the exit code is 1. Takes about a minute
for each mutant: the copy is compiled anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from catalogue import MUTANTS, Mutant
from cold import COLD_MUTANTS

ROOT = Path(__file__).parents[2]
WITHIN_S = 900
COPIED = ("engine", "server", "client", "tests", "build", "setup.py", "pyproject.toml", "README.md")


def copied(to: Path) -> Path:
    """A copy of the tree with its build, so that only what a mutant changes is compiled."""
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, to / name, symlinks=True,
                            ignore=shutil.ignore_patterns("__pycache__", ".hypothesis"))
        elif (ROOT / name).exists():
            shutil.copy2(ROOT / name, to / name)
    return to


def build(tree: Path) -> None:
    """Compile what changed; raises if it does not compile."""
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tree,
                   check=True, capture_output=True, text=True)


def tried(tree: Path, mutant: Mutant) -> str:
    """killed, SURVIVED, or why it could not be tried."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        return f"STALE: its text stands {text.count(mutant.old)} times in {mutant.file}"
    path.write_text(text.replace(mutant.old, mutant.new))
    # Compilers look at times of whole seconds, and one translation unit includes all others.
    for unit in (tree / "engine" / "_core.pyx", tree / "server" / "_wire.pyx"):
        os.utime(unit)
    try:
        build(tree)
        for tests in mutant.tests:
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", tests],
                cwd=tree, capture_output=True, text=True, check=False, timeout=WITHIN_S,
                env={**os.environ, "PYTHONPATH": os.fspath(tree / "build" / "names"),
                     "PENSTOCK_UNSHRUNK": "1"})
            if done.returncode == 1:
                return f"killed by {tests}"
            if done.returncode != 0:
                return f"STALE: {tests} ended with {done.returncode}"
        return "SURVIVED"
    except subprocess.TimeoutExpired:
        return "killed: a test did not end"
    except subprocess.CalledProcessError as error:
        return f"STALE: it does not compile: {error.stderr[-300:]}"
    finally:
        path.write_text(text)


def main() -> int:
    """Try them all; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="mutants whose rule has this word")
    parser.add_argument("--keep", action="store_true", help="leave the copy where it is")
    options = parser.parse_args()
    chosen = [mutant for mutant in (*MUTANTS, *COLD_MUTANTS) if options.only in mutant.rule]
    folder = Path(tempfile.mkdtemp(prefix="penstock-mutants-"))
    bad = 0
    try:
        tree = copied(folder)
        for number, mutant in enumerate(chosen, 1):
            began = time.monotonic()
            verdict = tried(tree, mutant)
            bad += not verdict.startswith("killed")
            print(f"{number:>3}/{len(chosen)}  {mutant.rule}: {verdict}, "
                  f"{time.monotonic() - began:.0f} s", flush=True)
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
