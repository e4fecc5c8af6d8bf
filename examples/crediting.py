"""Asynchronous crediting: an account is credited once for each message, though workers die.

    penstock serve --data demo.store &
    python examples/crediting.py [127.0.0.1:7711]

A message is deleted by its confirmation, and confirmed only after the credit is booked. A
worker that dies in between leaves its message to the next one, which sees by the message's
offset that it was booked.
"""

import sys

from penstock import Client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"

booked: set[int] = set()
balance = 0


def book(offset: int, amount: int) -> None:
    """Credit the account, once for each message."""
    global balance
    if offset not in booked:
        booked.add(offset)
        balance += amount


with Client(ADDRESS) as client:
    credits = client.queue("example-credits")
    credits.send_many([b"%d" % amount for amount in range(1, 101)])

    # The first worker books ten credits and dies before it confirms them: their leases run out.
    for message in credits.receive(10, lease=0.2):
        book(message.offset, int(message.body))
    left = 100
    while left:
        for message in credits.receive(10, wait=5):
            book(message.offset, int(message.body))
            message.confirm()
            left -= 1
    assert credits.receive(1) == []
    assert balance == sum(range(1, 101))
    print(f"100 credits booked once each, {balance} in all; 10 of them came twice")
