"""Peak shifting: a flash sale's orders come in a second, the shop works them off at its own pace.

    python examples/flash_sale.py [127.0.0.1:7711]

Prints the depth of the queue over time.
"""

import sys
import threading
import time

from penstock import Client

ADDRESS = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7711"
ORDERS, RUSH_S, SHOP_PER_S, STEP_S, WIDTH = 2000, 0.5, 1000, 0.1, 60


def rush() -> None:
    """The customers: all of them within half a second."""
    with Client(ADDRESS) as client:
        orders = client.queue("example-sale")
        for _ in range(10):
            orders.send_many([b"one lamp"] * (ORDERS // 10))
            time.sleep(RUSH_S / 10)


with Client(ADDRESS) as client:
    orders = client.queue("example-sale")
    customers = threading.Thread(target=rush)
    began = time.monotonic()
    customers.start()
    depths = []
    done = 0
    while done < ORDERS:
        # The shop: never more than it can do in a step.
        room = int((time.monotonic() - began + STEP_S) * SHOP_PER_S) - done
        messages = orders.receive(min(room, ORDERS - done), wait=STEP_S) if room else []
        client.confirm(messages)
        done += len(messages)
        depths.append((time.monotonic() - began, client.show("example-sale")["next"] - done))
        time.sleep(max(0.0, len(depths) * STEP_S - (time.monotonic() - began)))
    customers.join()

print("seconds  depth")
highest = max(depth for _, depth in depths)
for seconds, depth in depths:
    print(f"{seconds:7.1f}  {depth:5}  {'#' * (depth * WIDTH // max(highest, 1))}")
assert depths[-1][1] == 0
