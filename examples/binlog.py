"""Ordered binlog sync: a row's changes are applied in their order, those of other rows beside.

    python examples/binlog.py

The key of a message is the row it changes. The group asks for order by key: a message comes only
after the one before it of the same key was confirmed, so three workers may apply side by side.
"""

import tempfile
import threading

from penstock.engine import Attributes, Store

ROWS, CHANGES, WORKERS = 20, 15, 3

with tempfile.TemporaryDirectory() as folder, Store.open(folder + "/binlog.store") as store:
    binlog = store.queue("binlog")
    replica = binlog.group("replica")
    replica.configure(order="key")
    for change in range(CHANGES):
        for row in range(ROWS):
            binlog.append(b"%d" % change, attributes=Attributes(key=f"row {row}"),
                          durability="kernel")

    applied: dict[str, list[int]] = {f"row {row}": [] for row in range(ROWS)}
    left = threading.Semaphore(ROWS * CHANGES)

    def apply() -> None:
        """One worker, until every change is taken."""
        while left.acquire(blocking=False):
            while not len(batch := replica.receive(1, wait_ms=1000)):
                pass
            applied[batch.attributes(0).key].append(int(bytes(batch[0])))
            replica.confirm(batch.receipts)

    workers = [threading.Thread(target=apply) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(changes == list(range(CHANGES)) for changes in applied.values())
    print(f"{ROWS} rows have their {CHANGES} changes in order, applied by {WORKERS} workers")
