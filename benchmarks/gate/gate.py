"""Compare two commits by what does not depend on the day: a gate that fails only for a reason.

    python benchmarks/gate/gate.py --base main~1              build both, count, compare
    python benchmarks/gate/gate.py --base main~1 --counters own,syscalls --works append-1
    python benchmarks/gate/gate.py --record                   keep this tree's counts as ceilings
    python benchmarks/gate/gate.py --ceilings                 compare this tree with the kept ones

Syncs, bytes, system calls, allocations, copies and instructions per call fail the gate when they
grow by more than a few per cent, after they were counted again to be sure. Times are taken in
turns, base and candidate, and only warn: on a busy machine they say little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent))

from counting import COUNTERS, Counter, Counting, Figures, MissingError  # noqa: E402
from works import WORKS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
CEILINGS = Path(__file__).resolve().parent / "ceilings.json"
# Ceilings are kept for what is the same on every machine; instructions depend on the compiler.
KEPT = ("own", "syscalls", "allocations", "copies")
ROUNDS = 2
MORE_ROUNDS = 4


@dataclass(frozen=True)
class Verdict:
    """A figure of a work, before and now."""

    work: str
    figure: str
    base: float
    now: float
    worse: bool
    fails: bool

    def line(self) -> str:
        change = f"{(self.now / self.base - 1) * 100:+7.1f} %" if self.base else "       "
        word = ("FAILED" if self.fails else "slower") if self.worse else ""
        return (f"  {self.work:<16}{self.figure:<14}{self.base:>14,.6g}{self.now:>14,.6g}"
                f"{change}  {word}").rstrip()


def judge(counter: Counter, work: str, base: Figures, now: Figures) -> list[Verdict]:
    """The verdicts on all figures that both have."""
    return [Verdict(work, figure, base[figure], now[figure],
                    counter.worse(work, base[figure], now[figure]), counter.fails)
            for figure in now if figure in base]


def compare(counter: Counter, work: str, base: Path, now: Path) -> list[Verdict]:
    """Count a work in both trees in turns; once more before anything is called worse."""
    both = (Counting(counter, base, work), Counting(counter, now, work))
    for number in range(ROUNDS + MORE_ROUNDS):
        # The order changes, so that what one leaves behind does not always hit the other.
        for counting in both[:: 1 if number % 2 == 0 else -1]:
            counting.round()
        verdicts = judge(counter, work, both[0].per_call(), both[1].per_call())
        if number + 1 >= ROUNDS and not any(verdict.worse for verdict in verdicts):
            break
    return verdicts


def against(counter: Counter, work: str, kept: Figures, now: Path) -> list[Verdict]:
    """Count a work in one tree and hold it against what is kept."""
    counting = Counting(counter, now, work)
    for _ in range(1 + MORE_ROUNDS):
        counting.round()
        verdicts = judge(counter, work, kept, counting.per_call())
        if not any(verdict.worse for verdict in verdicts):
            break
    return verdicts


def ceilings() -> dict[str, Figures]:
    """What is kept, by work."""
    kept: dict[str, Figures] = json.loads(CEILINGS.read_text())
    return kept


def record(tree: Path, works: Iterable[str]) -> None:
    """Keep the counts of a tree as the ceilings."""
    kept = ceilings() if CEILINGS.exists() else {}
    for work in works:
        figures: Figures = {}
        for name in KEPT:
            counting = Counting(COUNTERS[name], tree, work)
            for _ in range(ROUNDS + 1):
                counting.round()
            figures.update(counting.per_call())
        kept[work] = {name: round(value, 3) for name, value in sorted(figures.items())}
        print(f"  {work:<16}{kept[work]}", flush=True)
    CEILINGS.write_text(json.dumps(kept, indent=1) + "\n")


class NoCommitError(Exception):
    """The commit to compare with is not in this clone."""


def named(commit: str) -> str:
    """The hash of a commit; of a branch that only the remote has, too."""
    for wanted in (commit, f"origin/{commit}"):
        done = subprocess.run(["git", "-C", os.fspath(ROOT), "rev-parse", "--verify", "--quiet",
                               f"{wanted}^{{commit}}"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    shallow = subprocess.run(["git", "-C", os.fspath(ROOT), "rev-parse", "--is-shallow-repository"],
                             capture_output=True, text=True, check=False).stdout.strip() == "true"
    why = ("this clone is shallow: git fetch --unshallow" if shallow else
           done.stderr.strip() or "name another: make gate BASE=COMMIT")
    raise NoCommitError(f"there is no commit {commit} here; {why}")


def built(commit: str) -> Path:
    """The tree of a commit, built once and kept below build/gate."""
    name = named(commit)
    tree = ROOT / "build" / "gate" / name
    if not (tree / "build" / "gate-built").exists():
        print(f"· building {commit} ({name[:10]})", flush=True)
        tree.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "-C", os.fspath(ROOT), "archive", name],
                                 capture_output=True, check=True).stdout
        subprocess.run(["tar", "-x", "-C", os.fspath(tree)], input=archive, check=True)
        subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace", "-j2"],
                       cwd=tree, check=True, capture_output=True)
        (tree / "build" / "gate-built").touch()
    return tree


def main(words: list[str] | None = None) -> int:
    """Print a table; 1 if anything that may fail has grown."""
    parser = argparse.ArgumentParser(prog="gate.py", description=__doc__.splitlines()[0])
    parser.add_argument("--base", help="a commit, or a tree that is built")
    parser.add_argument("--candidate", type=Path, default=ROOT, help="a tree that is built")
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--counters", default=",".join(COUNTERS))
    parser.add_argument("--record", action="store_true", help="keep the counts as ceilings")
    parser.add_argument("--ceilings", action="store_true", help="compare with what is kept")
    args = parser.parse_args(words)
    works, counters = args.works.split(","), args.counters.split(",")
    for kind, asked, known in (("work", works, WORKS), ("counter", counters, COUNTERS)):
        for name in set(asked) - set(known):
            parser.error(f"there is no {kind} {name}; there are {', '.join(known)}")
    if args.record:
        record(args.candidate, works)
        return 0
    if args.ceilings:
        counters = [name for name in counters if name in KEPT]
        kept = ceilings()
    elif args.base is None:
        parser.error("say what to compare with: --base COMMIT, or --ceilings")
    else:
        try:
            base = Path(args.base) if Path(args.base).is_dir() else built(args.base)
        except NoCommitError as missing:
            parser.error(str(missing))
    print(f"  {'work':<16}{'figure':<14}{'base':>14}{'now':>14}   change", flush=True)
    verdicts: list[Verdict] = []
    absent: list[str] = []
    for name in counters:
        for work in works:
            try:
                found = (against(COUNTERS[name], work, kept.get(work, {}), args.candidate)
                         if args.ceilings else
                         compare(COUNTERS[name], work, base, args.candidate))
            except MissingError as missing:
                print(f"  {name} is not compared: {missing}", flush=True)
                absent.append(name)
                break
            for verdict in found:
                print(verdict.line(), flush=True)
            verdicts += found
    return told(verdicts, absent)


def told(verdicts: list[Verdict], absent: list[str]) -> int:
    """Say what came of it; 1 if something that may fail has grown, or if nothing was compared."""
    failed = [verdict for verdict in verdicts if verdict.worse and verdict.fails]
    slower = [verdict for verdict in verdicts if verdict.worse and not verdict.fails]
    if slower:
        print("\nslower, which only warns: " + ", ".join(one.work for one in slower))
    if absent:
        print(f"\nnot compared here: {', '.join(absent)}")
    if failed:
        print("\nFAILED: " + ", ".join(f"{one.work} {one.figure}" for one in failed))
        return 1
    if not any(verdict.fails for verdict in verdicts):
        print("\nFAILED: nothing was compared that could fail")
        return 1
    print(f"\n{len(verdicts)} figures compared, none that counts has grown")
    return 0


if __name__ == "__main__":
    sys.exit(main())
