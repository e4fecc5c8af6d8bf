"""Two systems that know nothing of each other but a queue's name.

    python examples/only_a_name.py [127.0.0.1:7711]

The shop sends whether or not the warehouse runs; the warehouse finds everything when it is
back. Here both are processes of their own.
"""

import subprocess
import sys

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"

SHOP = """
import sys
from penstock import Client
with Client(sys.argv[1]) as client:
    for order in (b"1 bolt", b"2 nuts", b"3 washers"):
        client.queue("example-orders").send(order)
"""
WAREHOUSE = """
import sys
from penstock import Client
with Client(sys.argv[1]) as client:
    for message in client.queue("example-orders").receive(10, wait=5):
        print("packed", message.body.decode())
        message.confirm()
"""

subprocess.run([sys.executable, "-c", SHOP, ADDRESS], check=True)
packed = subprocess.run([sys.executable, "-c", WAREHOUSE, ADDRESS], check=True, text=True,
                        stdout=subprocess.PIPE).stdout
print(packed, end="")
assert packed.split() == ["packed", "1", "bolt", "packed", "2", "nuts", "packed", "3", "washers"]
