"""Payment transaction with check-back: the order ships exactly if the payment was booked.

    python examples/payment.py

A half message is stored and seen by nobody. The producer books the payment in its own database,
then commits or rolls back. One that died in between is asked: check-back finds halves without a
verdict.
"""

import tempfile
import time

from penstock.engine import Store

booked: set[bytes] = set()                              # the producer's own database

with tempfile.TemporaryDirectory() as folder, Store.open(folder + "/payments.store") as store:
    orders = store.queue("paid orders")
    halves = {order: orders.prepare(order, check_ms=50).pending
              for order in (b"lamp", b"sofa", b"yacht")}
    assert len(orders.group().receive(10)) == 0         # nobody sees a half message

    booked.add(b"lamp")
    store.pending.commit(halves[b"lamp"])               # the normal way
    # The sofa is booked and its producer dies before the commit; the yacht could not be paid.
    booked.add(b"sofa")
    while len(store.pending):
        for half in store.pending.checks(orders, interval_ms=50):
            order, _, _ = store.pending.read(half.id)
            if order in booked:
                store.pending.commit(half.id)
            else:
                store.pending.rollback(half.id)
            print(f"asked about the {order.decode()}: "
                  f"{'committed' if order in booked else 'rolled back'}")
        time.sleep(0.01)

    shipped = []
    while len(batch := orders.group().receive(10)):
        shipped += batch.tolist()
        orders.group().confirm(batch.receipts)
    assert sorted(shipped) == sorted(booked) == [b"lamp", b"sofa"]
    print("shipped:", b", ".join(shipped).decode())
