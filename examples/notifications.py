"""Scheduled notifications: reminders wait in the log until they are due, move and are cancelled.

    python examples/notifications.py
"""

import tempfile
import time

from penstock.engine import Store

with tempfile.TemporaryDirectory() as folder, Store.open(folder + "/reminders.store") as store:
    reminders = store.queue("reminders")
    now = time.time_ns() // 1000
    tea = reminders.append(b"tea is ready", due_us=now + 400_000)
    train = reminders.append(b"the train leaves", due_us=now + 200_000)
    party = reminders.append(b"the party starts", due_us=now + 365 * 86_400_000_000)
    assert tea.pending and train.pending and party.pending

    store.pending.move(train.pending, now + 600_000)    # it is late
    store.pending.cancel(party.pending)
    for waiting in store.pending.list(reminders):
        print(f"in {(waiting.due_us - now) / 1e6:.1f} s: id {waiting.id:x}")

    group = reminders.group()
    for expected, due in ((b"tea is ready", 400_000), (b"the train leaves", 600_000)):
        batch = group.receive(1, wait_ms=10_000)
        assert batch.tolist() == [expected]
        assert time.time_ns() // 1000 >= now + due      # never early
        group.confirm(batch.receipts)
        print(expected.decode())
    assert len(store.pending) == 0
