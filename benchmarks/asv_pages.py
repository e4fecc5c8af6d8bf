"""Make the pages of `asv publish` stand on their own: they ask other hosts for their scripts.

    python benchmarks/asv_pages.py .asv/html

What the pages load from elsewhere is fetched once with npm and put beside them, so that they can
be read offline, and by a browser that is allowed to talk to nobody. Without npm they stay as
asv made them.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

# The end of an address in the page, the package that has the file, and where it stands in it.
FILES = {
    "jquery-3.3.1.min.js": ("jquery@3.3.1", "dist/jquery.min.js"),
    "jquery.flot.min.js": ("flot@0.8.3", "jquery.flot.js"),
    "jquery.flot.time.min.js": ("flot@0.8.3", "jquery.flot.time.js"),
    "jquery.flot.selection.min.js": ("flot@0.8.3", "jquery.flot.selection.js"),
    "jquery.flot.categories.min.js": ("flot@0.8.3", "jquery.flot.categories.js"),
    "jquery.flot.orderBars.js": ("flot-orderbars@1.0.0", "js/jquery.flot.orderBars.js"),
    "stupidtable.min.js": ("stupid-table-plugin@1.1.3", "stupidtable.min.js"),
    "md5.min.js": ("blueimp-md5@2.19.0", "js/md5.min.js"),
    "bootstrap.min.js": ("bootstrap@3.1.1", "dist/js/bootstrap.min.js"),
    "bootstrap.min.css": ("bootstrap@3.1.1", "dist/css/bootstrap.min.css"),
}
ELSEWHERE = re.compile(r'(src|href)="https://[^"]+/([^"/]+\.(?:js|css))"[^>]*?(/?>)')


def packed(package: str) -> dict[str, bytes]:
    """The files of a package, by their path in it."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)
        content = next(Path(folder).glob("*.tgz")).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {
            name.partition("/")[2]: taken.read()
            for name in archive.getnames() if (taken := archive.extractfile(name)) is not None
        }


def stand_alone(pages: Path) -> list[str]:
    """Put the files beside the pages and point the pages to them; names of what is left."""
    index = pages / "index.html"
    text = index.read_text()
    wanted = {name for _, name, _ in ELSEWHERE.findall(text)}
    packages: dict[str, dict[str, bytes]] = {}
    for name in sorted(wanted & set(FILES)):
        package, path = FILES[name]
        if not (pages / name).exists():
            if package not in packages:
                packages[package] = packed(package)
            (pages / name).write_bytes(packages[package][path])
    index.write_text(ELSEWHERE.sub(
        lambda found: f'{found[1]}="{found[2]}"{found[3]}' if found[2] in FILES else found[0],
        text))
    return sorted(wanted - set(FILES))


def main() -> int:
    """Do it for the folder that is named; 0 also where there is no npm."""
    pages = Path(sys.argv[1])
    if not shutil.which("npm"):
        print("npm is not installed: the pages load their scripts from other hosts")
        return 0
    for name in stand_alone(pages):
        print(f"still loaded from another host: {name}")
    print(f"Look at {pages / 'index.html'} through a server: python -m http.server -d {pages}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
