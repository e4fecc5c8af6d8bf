"""The files that the rules are about: what git knows, and what is new beside it."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IGNORED = {".git", ".venv", "build", "dist", "__pycache__", ".asv"}


def listed(*which: str) -> list[Path]:
    """What git lists; nothing where there is no git."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", *which], capture_output=True, check=False
    )
    return [ROOT / name.decode() for name in listing.stdout.split(b"\0") if name]


@cache
def tracked() -> tuple[Path, ...]:
    """All regular files of the project; without git (a source archive), all but litter."""
    known, new = listed(), listed("--others", "--exclude-standard")
    if known:
        # New files beside known ones: a rule is broken before the commit, not after it.
        folders = {path.parent for path in known} - {ROOT}
        paths = iter([*known, *(path for path in new if path.parent in folders)])
    else:
        paths = (
            path
            for path in ROOT.rglob("*")
            if not IGNORED.intersection(path.relative_to(ROOT).parts)
            and path.suffix not in {".so", ".pyc"}
        )
    return tuple(sorted(path for path in paths if path.is_file()))
