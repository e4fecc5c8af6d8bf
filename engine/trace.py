"""What the records about a message say, in words: events from what Inspector.trace gives."""

from __future__ import annotations

import struct
from typing import Any

Record = tuple[int, int, int, int, int, int, int, int, bytes]

(MESSAGE, CONFIRM, SEEK, QUEUE, QUEUE_DELETE, GROUP, TRIM, LEASE, SKIP, PLACE, PENDING, CANCEL,
 MOVE, FANOUT, GROUP_SETTINGS, QUEUE_SETTINGS, RELEASE, NOTE, UNTRIM) = range(1, 20)
ADVANCE = 22
HEAD = struct.Struct("<II")
PAIR = struct.Struct("<QQ")


def event(record: Record, queue: int, offset: int) -> dict[str, Any] | None:
    """What one record says of message (queue, offset): what, time_us, position, and by kind.

    what: sent, placed, copied (into another queue), confirmed, leased, rewound, purged, restored,
    began (a group begins behind it), deleted (with its queue). None: its kind says nothing here.
    """
    position, kind, _, into, at, stored_us, producer, sequence, body = record
    told: dict[str, Any] = {"what": "", "time_us": stored_us, "position": position}
    if kind in (MESSAGE, PLACE, FANOUT):
        if (into, at) == (queue, offset) or kind == FANOUT:
            told["what"] = "placed" if kind == PLACE else "sent"
            if sequence:
                told |= {"producer": producer, "sequence": sequence}
        else:
            told |= {"what": "copied", "queue_id": into, "offset": at}
    elif kind == CONFIRM:
        told |= {"what": "confirmed", "group_id": at}
    elif kind == ADVANCE:
        told |= {"what": "confirmed", "group_id": at, "to": PAIR.unpack_from(body)[1]}
    elif kind == LEASE:
        told |= {"what": "leased", "group_id": at, "attempts": attempts_of(body, offset)}
    elif kind == SEEK:
        group = HEAD.unpack_from(body)[0]
        told |= {"what": "rewound", "group_id": group, "to": at, "again": at <= offset}
    elif kind == GROUP:
        (start,) = struct.unpack_from("<Q", body)
        told |= {"what": "began", "group_id": at, "to": start}
    elif kind in (TRIM, UNTRIM):
        told |= {"what": "purged" if kind == TRIM else "restored", "to": at}
    elif kind == QUEUE_DELETE:
        told["what"] = "deleted"
    else:
        return None
    return told


def attempts_of(body: bytes, offset: int) -> int:
    """How often a LEASE record says that the message was delivered."""
    _, count = HEAD.unpack_from(body)
    pairs = (PAIR.unpack_from(body, HEAD.size + PAIR.size * at) for at in range(count))
    return next((attempts for where, attempts in pairs if where == offset), 0)
