"""The ids of messages: decimal numbers below 2^63 that stay with a message for its life.

A message that goes straight into its queue is named by the queue's number and its offset. One that
is delayed, prepared, or published to several queues has no offset yet: it gets a name when it is
sent and carries it as its id, so that receiving tells the same one.
"""

from typing import Protocol

QUEUE_BITS, OFFSET_BITS = 22, 40
GIVEN = 1 << 62


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


class Names(Protocol):
    """Names messages that have no place yet: never two with one, whichever worker does it."""

    def give(self, now_us: int, count: int) -> list[int]:
        """So many, ascending."""
