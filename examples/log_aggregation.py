"""Log aggregation: machines write, each consumer reads at its own pace and from where it likes.

    python examples/log_aggregation.py [127.0.0.1:7711]

One queue, two groups. The alarm reads along; the archive comes once and takes what gathered, in
large batches, without a lease for each line: it is the consumer that pulls, so none is ever
flooded.
"""

import sys
import threading

from penstock import Client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"
MACHINES, LINES = 3, 1000


def write(machine: int) -> None:
    """One machine's log, sent in batches; in the kernel is durable enough for a log line."""
    with Client(ADDRESS) as client:
        logs = client.queue("example-logs")
        lines = [b"machine %d line %d" % (machine, line) for line in range(LINES)]
        for at in range(0, LINES, 100):
            logs.send_many(lines[at:at + 100], durability="kernel")


with Client(ADDRESS) as client:
    logs = client.queue("example-logs")
    alarm = logs.group("alarm")
    archive = logs.group("archive")
    machines = [threading.Thread(target=write, args=(one,)) for one in range(MACHINES)]
    for machine in machines:
        machine.start()

    seen = 0
    while seen < MACHINES * LINES:
        messages = alarm.receive(200, wait=5)
        client.confirm(messages)
        seen += len(messages)
    for machine in machines:
        machine.join()

    stored = 0
    while messages := archive.receive(1000):
        stored += sum(len(message.body) for message in messages)
        client.confirm(messages)
    print(f"the alarm saw {seen:,} lines as they came, the archive took {stored:,} bytes later")
