"""What fails is tried again, ends among the dead letters with its story, and is put back.

    penstock serve --data demo.store &
    python examples/dead_letters.py [127.0.0.1:7711]

Payments of one account stay in order. One account is closed: its payments fail, but hold up nobody
else's. When it is open again, the dead letters that died for that reason are redriven.
"""

import sys

from penstock import Client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"

closed = {"bob"}
paid: list[tuple[str, int]] = []


def work(client: Client, group: str) -> None:
    """Pay what can be paid; give back the rest, and say why."""
    queue = client.queue("example-invoices", group=group)
    while messages := queue.receive(10, wait=0.3):
        for message in messages:
            if message.key in closed:
                message.release(reason=f"account {message.key} is closed")
            else:
                paid.append((message.key, int(message.body)))
                message.confirm()


with Client(ADDRESS) as client:
    payments = client.queue("example-invoices")
    client.set_order("example-invoices", "bank", "key")
    client.set_retry("example-invoices", "bank", attempts=3, dead_letter="example-unpaid",
                     backoff=[0.01, 0.05])
    for amount in range(1, 6):
        payments.send(b"%d" % amount, key="anne")
        payments.send(b"%d" % amount, key="bob")
    unpaid = client.queue("example-unpaid")
    while len(unpaid.peek(max_messages=10)) < 5:
        work(client, "bank")
    assert paid == [("anne", amount) for amount in range(1, 6)]

    letter = unpaid.peek()[0]
    assert (letter.origin.queue, letter.origin.attempts) == ("example-invoices", 3)
    assert letter.origin.text == "account bob is closed"

    closed.clear()
    tried = client.redrive("example-unpaid", text="is closed", dry_run=True)
    done = client.redrive_all("example-unpaid", text="is closed", rate=1000)
    assert tried["moved"] == done["moved"] == 5
    work(client, "bank")
    assert paid[5:] == [("bob", amount) for amount in range(1, 6)]
    print(f"5 payments went through at once, 5 after {letter.origin.attempts} attempts each, "
          f"because {letter.origin.text!r}, and a redrive")
