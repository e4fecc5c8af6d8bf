"""Names that nobody should have: none of them becomes a file, a path or another queue's."""

from __future__ import annotations

import os
from pathlib import Path

from mutation import Mutator
from trials import Trials

from penstock.engine import Store
from penstock.server.broker.broker import NAME, NAME_CHARACTERS, Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits

CORPUS = [
    b"orders", b"ns/orders", b"../../etc/passwd", b"..", b"/", b"a/b/c", b"a\0b", b"%2e%2e/x",
    b"a b", b"\xe2\x80\xae", b"con", b"LOCK", b"control", b"a" * 129, b".hidden",
    b"-rf", b"x\n", b"~root",
    "ａ".encode(), b"a/", b"//", b"\\..\\x", b"log/00000001.seg", b"", b"ns/.", b"./.",
]


def tree(root: Path) -> set[str]:
    return {os.path.relpath(os.path.join(at, name), root)
            for at, folders, names in os.walk(root) for name in (*folders, *names)}


def test_only_what_the_store_made_is_there(trials: Trials, tmp_path: Path) -> None:
    root = tmp_path / "outer" / "store"
    root.parent.mkdir()
    with Store.open(root, durability="kernel", segment_size=16 << 20) as store:
        broker = Broker(store, Limits())
        store.queue("first").append(b"x")
        before = tree(tmp_path)
        made = 0
        for raw in trials.mutants(CORPUS, 3000):
            name = raw.decode("utf-8", "surrogateescape")
            try:
                queue, _ = broker.create(name)
            except BrokerError as error:
                assert error.kind is Kind.INVALID, (name, error)
                assert not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS
                continue
            assert queue.name == name and NAME.fullmatch(name)
            queue.append(b"x")
            made += 1
            if made % 500 == 0:
                broker.delete(name)
        assert made
        # Segments that are made ahead, and checkpoints, are the store's own.
        own = ("outer/store/log/", "outer/store/ckpt/")
        assert all(name.startswith(own) for name in tree(tmp_path) - before)
