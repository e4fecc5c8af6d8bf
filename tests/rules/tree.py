"""The files that the rules are about: those that git knows, not what lies about."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IGNORED = {".git", ".venv", "build", "dist", "__pycache__", ".asv"}


@cache
def tracked() -> tuple[Path, ...]:
    """All regular files of the project; without git (a source archive), all but litter."""
    listing = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    )
    if listing.returncode == 0 and listing.stdout:
        paths = (ROOT / name.decode() for name in listing.stdout.split(b"\0") if name)
    else:
        paths = (
            path
            for path in ROOT.rglob("*")
            if not IGNORED.intersection(path.relative_to(ROOT).parts)
            and path.suffix not in {".so", ".pyc"}
        )
    return tuple(sorted(path for path in paths if path.is_file()))
