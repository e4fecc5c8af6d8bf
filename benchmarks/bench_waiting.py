"""What waiting costs over the native protocol: delays, halves, commits beside plain sends.

    python -m benchmarks.bench_waiting      prints the rates and the ratios of several rounds
"""

from __future__ import annotations

import socket
import statistics
import struct
import time

import numpy as np

from .serving import Serving

WINDOW = 8192           # requests in flight on one connection
SIZE = 128
HOUR_US = 3_600_000_000
DELAY, HALF = 4, 8
SEND, COMMIT = 3, 14
HEAD = [("size", "<u4"), ("verb", "u1"), ("flags", "u1"), ("status", "<u2"), ("tag", "<u4"),
        ("zero", "<u4")]
FIXED = [("queue", "<u4"), ("durability", "u1"), ("how", "u1"), ("ext", "<u2"),
         ("sequence", "<u8")]
LATER = [("time", "<u8"), ("check", "<u4"), ("zeros", "<u4")]
BODY = [("body", f"V{SIZE}")]
REPLY = np.dtype([*HEAD, ("offset", "<u8"), ("level", "u1"), ("twice", "u1"), ("waits", "<u2")])


def frames(fields, verb, **values):
    """WINDOW frames of these fields, tags from 1 on."""
    made = np.zeros(WINDOW, np.dtype([*HEAD, *fields]))
    made["size"], made["verb"] = made.itemsize - 4, verb
    made["tag"] = np.arange(1, WINDOW + 1)
    for name, value in values.items():
        made[name] = value
    return made


class Wire:
    """One connection that keeps a window of requests in flight."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.call(struct.pack("<IBBHII4sHHQ", 28, 1, 0, 0, 1, 0, b"PNST", 1, 0, 0), 40)
        reply = self.call(struct.pack("<IBBHIII", 21, 2, 0, 0, 2, 0, 1) + b"bench", 20)
        self.queue = int.from_bytes(reply[16:20], "little")

    def call(self, data, size):
        self.socket.sendall(data)
        return self.exactly(size)

    def exactly(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while len(view):
            view = view[self.socket.recv_into(view):]
        return data

    def window(self, made):
        """The replies to one window of frames, in the order of their tags."""
        data = made.tobytes()
        half = len(data) // 2
        # The second half leaves while the first is answered.
        self.socket.sendall(data[:half])
        self.socket.sendall(data[half:])
        replies = np.frombuffer(self.exactly(WINDOW * REPLY.itemsize), REPLY)
        assert not replies["status"].any()
        return replies[np.argsort(replies["tag"])]

    def kinds(self):
        """The windows of each kind of send."""
        common = {"queue": self.queue, "durability": 1}
        return {
            "plain": frames([*FIXED, *BODY], SEND, **common),
            "delayed": frames([*FIXED, *LATER, *BODY], SEND, how=DELAY, time=HOUR_US, **common),
            "half": frames([*FIXED, *LATER, *BODY], SEND, how=HALF, check=600_000, **common),
        }

    def rate(self, kind, seconds):
        """Messages a second; of "committed" each is prepared and committed."""
        made = self.kinds()["half" if kind == "committed" else kind]
        count, began = 0, time.perf_counter()
        while (spent := time.perf_counter() - began) < seconds:
            replies = self.window(made)
            if kind == "committed":
                self.window(frames([("id", "<u8")], COMMIT, id=replies["offset"]))
            count += WINDOW
        return count / spent


class Waiting:
    """One connection, 8,192 requests in flight, 128 bytes each, every reply after an fdatasync."""

    params = ["plain", "delayed", "half", "committed"]
    param_names = ("kind",)
    timeout = 120

    def setup(self, *_):
        self.server = Serving()
        self.wire = Wire(int(self.server.tcp.rpartition(":")[2]))

    def teardown(self, *_):
        self.wire.socket.close()
        self.server.close()

    def track_rate(self, kind):
        return self.wire.rate(kind, 2)

    track_rate.unit = "messages/s"


def main(rounds=9, seconds=1.5):
    suite = Waiting()
    suite.setup()
    try:
        rates = {kind: [] for kind in Waiting.params}
        costs = {kind: [] for kind in Waiting.params}
        for _ in range(rounds):
            for kind in Waiting.params:
                before, began = suite.server.cpu_seconds(), time.perf_counter()
                rates[kind].append(suite.wire.rate(kind, seconds))
                spent = time.perf_counter() - began
                costs[kind].append(
                    (suite.server.cpu_seconds() - before) / (rates[kind][-1] * spent) * 1e6)
    finally:
        suite.teardown()
    for kind, found in rates.items():
        ratios = [one / plain for one, plain in zip(found, rates["plain"])]
        print(f"{kind:10} {statistics.median(found):12,.0f}/s  "
              f"{statistics.median(ratios):.2f} of plain  ({min(ratios):.2f} to {max(ratios):.2f})"
              f"  {statistics.median(costs[kind]):.2f} µs of CPU a message")


if __name__ == "__main__":
    main()
