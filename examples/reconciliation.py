"""Reconciliation by rewind: the day's payments are consumed once more and compared with the books.

    python examples/reconciliation.py [127.0.0.1:7711]

Confirmed messages are deleted for their group, not from the log. An auditor's group of its own
starts at a time and leaves the one that works alone.
"""

import sys
import time

from penstock import Client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"

with Client(ADDRESS) as client:
    payments = client.queue("example-payments")
    payments.send(b"yesterday 999")
    time.sleep(0.01)
    midnight = time.time()
    payments.send_many([b"today %d" % amount for amount in (10, 20, 30)])

    books = 0
    for message in payments.receive(100, wait=5):
        books += int(message.body.split()[1])
        message.confirm()
    books -= 999
    books -= 5                                  # the bug that the auditor shall find

    auditor = payments.group("auditor")
    sought = auditor.seek(time=midnight)
    print(f"{sought.messages} payments come again")
    again = sum(int(message.body.split()[1]) for message in auditor.receive(100, wait=5))
    assert payments.receive(1) == []            # the group that works was not disturbed
    assert again == 60
    assert again - books == 5
    print(f"paid {again}, booked {books}: {again - books} are missing in the books")
