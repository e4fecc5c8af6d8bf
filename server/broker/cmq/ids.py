"""The ids of messages: decimal numbers below 2^63 that stay with a message for its life.

A message that goes straight into its queue is named by the queue's number and its offset. One that
is delayed, prepared, or published to several queues has no offset yet: it gets a name when it is
sent and carries it as its id, so that receiving tells the same one.
"""

import os

QUEUE_BITS, OFFSET_BITS = 22, 40
GIVEN = 1 << 62
# 51 bits of µs since 2020 last until 2091.
EPOCH_US = 1_577_836_800_000_000
OWN_BITS = 11


def placed_id(queue: int, offset: int) -> int:
    """The id of a message by the place it got: below 2^62."""
    return (queue & (1 << QUEUE_BITS) - 1) << OFFSET_BITS | offset & (1 << OFFSET_BITS) - 1


def id_of(queue: int, offset: int, carried: str) -> int:
    """The id of a received message; carried: its attribute id."""
    if carried and carried.isascii() and carried.isdigit() and len(carried) < 20:
        given = int(carried)
        if GIVEN <= given < 1 << 63:
            return given
    return placed_id(queue, offset)


class Names:
    """Names for messages that have no place yet: 2^62 and above, never the same one twice.

    One process never tells the same µs again; the workers of a server were started one after the
    other, so the low bits of their numbers differ.
    """

    def __init__(self) -> None:
        self.own = os.getpid() & (1 << OWN_BITS) - 1
        self.last = 0

    def next(self, now_us: int) -> int:
        self.last = max(self.last + 1, now_us - EPOCH_US)
        return GIVEN | (self.last & (1 << 51) - 1) << OWN_BITS | self.own
