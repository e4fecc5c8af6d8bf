"""How a group is served: order, retries, dead letters; docs/format.md has the bytes."""

from __future__ import annotations

import struct

from penstock.engine.errors import InvalidError

FIELD = struct.Struct("<BBH")
ORDER = 2
ORDERS = ("none", "key", "strict")


def pack(*, order: str | None = None) -> bytes:
    """The fields of a GROUP_SETTINGS record for what is not None."""
    fields = b""
    if order is not None:
        if order not in ORDERS:
            raise InvalidError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
        fields += field(ORDER, bytes([ORDERS.index(order)]) if order != "none" else b"")
    return fields


def field(number: int, value: bytes) -> bytes:
    """One field; without a value it is removed."""
    return FIELD.pack(number, 0, len(value)) + value
