"""Cache synchronisation by broadcasting: every node drops what changed, also one that was away.

    python examples/cache_sync.py

Each node is a group of its own, so each gets every message. A node that was away goes on where it
stood; a new node begins at the end, since its cache is empty.
"""

import tempfile

from penstock.engine import Consumer, Store


def invalidate(node: Consumer, cache: dict[str, int]) -> None:
    """Drop everything that changed since the node last looked."""
    while len(batch := node.receive(100)):
        for body in batch.tolist():
            cache.pop(body.decode(), None)
        node.confirm(batch.receipts)


with tempfile.TemporaryDirectory() as folder, Store.open(folder + "/cache.store") as store:
    changes = store.queue("changed keys")
    caches = {name: {f"key {number}": number for number in range(10)} for name in ("a", "b")}
    nodes = {name: changes.group(name) for name in caches}

    for number in (1, 3, 5):
        changes.append(f"key {number}".encode())
    invalidate(nodes["a"], caches["a"])             # node b is away
    changes.append(b"key 7")

    nodes["c"], caches["c"] = changes.group("c"), {"key 8": 8}
    nodes["c"].seek(offset=changes.stat()["next"])  # a new node: nothing to drop
    changes.append(b"key 8")
    for name, node in nodes.items():
        invalidate(node, caches[name])
    assert caches["a"] == caches["b"] == {f"key {one}": one for one in (0, 2, 4, 6, 9)}
    assert caches["c"] == {}
    print("three caches agree; one node had been away, one was new")
