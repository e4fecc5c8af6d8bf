"""Examples run in any order, one after the other, against one server: no two share a queue."""

import re
from collections import defaultdict

from tree import ROOT

QUEUE = re.compile(r'"(example-[a-z-]+)"')


def test_no_two_examples_share_a_queue() -> None:
    users = defaultdict(set)
    for path in (ROOT / "examples").glob("*.py"):
        for name in QUEUE.findall(path.read_text()):
            users[name].add(path.name)
    assert users
    assert not {name: sorted(files) for name, files in users.items() if len(files) > 1}
