"""One order event, dozens of downstream systems: each gets what it wants, the event is stored once.

    python examples/order_event.py

Every system has a group of its own on the same queue, with a filter that is judged where the
messages lie: what a system does not want never reaches it, what it wants waits until it is there.
"""

import tempfile

from penstock.engine import Attributes, Store

EVENTS = [
    ("created", {"region": "north", "amount": "15"}),
    ("paid", {"region": "north", "amount": "900"}),
    ("paid", {"region": "south", "amount": "20"}),
    ("shipped", {"region": "south", "amount": "20"}),
]
SYSTEMS = {
    "stock": ("tag", "created || shipped"),
    "invoices": ("tag", "paid"),
    "fraud": ("sql", "amount > 500 AND region IN ('north', 'west')"),
    "newsletter": ("sql", "region LIKE 's%' AND TAGS = 'paid'"),
    "archive": (None, ""),
} | {f"shop {number}": ("tag", "shipped") for number in range(20)}

with tempfile.TemporaryDirectory() as folder, Store.open(folder + "/orders.store") as store:
    orders = store.queue("orders")
    for system, (kind, source) in SYSTEMS.items():
        orders.group(system).filter(kind, source)
    for tag, properties in EVENTS:
        orders.append(tag.encode(), attributes=Attributes(tag=tag, properties=properties))

    got = {}
    for system in SYSTEMS:
        batch = orders.group(system).receive(100)
        got[system] = [body.decode() for body in batch.tolist()]
        orders.group(system).confirm(batch.receipts)
    assert got["stock"] == ["created", "shipped"]
    assert got["invoices"] == ["paid", "paid"]
    assert got["fraud"] == ["paid"]
    assert got["newsletter"] == ["paid"]
    assert len(got["archive"]) == len(EVENTS)
    assert all(got[f"shop {number}"] == ["shipped"] for number in range(20))
    print(f"{len(EVENTS)} events stored once, {sum(map(len, got.values()))} delivered to "
          f"{len(SYSTEMS)} systems")
