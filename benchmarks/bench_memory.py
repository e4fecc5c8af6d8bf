"""Memory of the process's own, each figure from a process that does nothing else."""

import subprocess
import sys
import tempfile
import textwrap

from .disk import PREFIX
from .disk import folder as disk

BEGIN = """
import sys
from pathlib import Path
from penstock.engine import Store

def private():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) * 1024

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

amount = int(sys.argv[2])
store = Store.open(sys.argv[1])
queue = store.queue("bench")
body = b"x" * 128
queue.append_many([body] * 1000, durability="kernel")
"""
MESSAGES = """
before = private()
for _ in range(amount // 1000):
    queue.append_many([body] * 1000, durability="kernel")
print((private() - before) / amount)
"""
QUEUES = """
before = private()
kept = [store.queue(f"q{number}") for number in range(amount)]
for one in kept[::8192]:
    store.fanout(kept[:8192], body, durability="kernel")
    del kept[:8192]
print((private() - before) / amount)
"""
LEASES = """
for _ in range(amount // 1000):
    queue.append_many([body] * 1000, durability="kernel")
group = queue.group("bench")
before = private()
taken = 0
while taken < amount:
    taken += len(group.receive(1000, lease_ms=600_000))
print((private() - before) / amount)
"""
PEAK = """
group = queue.group("bench")
for _ in range(amount // 1000):
    queue.append_many([body] * 1000, durability="kernel")
while found := group.receive(1000):
    group.confirm(found.receipts)
print(peak())
"""


def told(work: str, amount: int) -> float:
    """What a process prints that does a work of such an amount."""
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=disk()) as folder:
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(BEGIN + work),
                               f"{folder}/store", str(amount)],
                              capture_output=True, text=True, check=True)
    return float(done.stdout)


class Memory:
    """Private dirty memory: what is mapped from files and clean can be taken back at any time."""

    timeout = 600

    def track_private_per_message(self):
        return told(MESSAGES, 1_000_000)

    def track_private_per_queue(self):
        return told(QUEUES, 10_000)

    def track_private_per_lease(self):
        return told(LEASES, 200_000)

    def track_peak_of_a_million(self):
        """The peak of a process that appends a million messages and confirms them all."""
        return told(PEAK, 1_000_000)

    for track in (track_private_per_message, track_private_per_queue, track_private_per_lease,
                  track_peak_of_a_million):
        track.unit = "bytes"
    del track
