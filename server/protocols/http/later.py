"""When a message shall come, as HTTP says it: fields of JSON objects, header fields of octets."""

from typing import Any, Protocol

from msgspec import UNSET, UnsetType

from penstock.engine._core import SendReceipt
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.later import Later, later_of
from penstock.server.protocols.http import models
from penstock.server.protocols.http.carried import Fields

# Behind "Penstock-": what a header field is called, and the field of JSON that says the same.
NAMES = {
    b"delay": "delay_ms",
    b"due": "due_us",
    b"half": "half",
    b"producer-group": "producer_group",
    b"first-check": "first_check_ms",
    b"check-interval": "check_interval_ms",
    b"checks": "checks",
}
UNKNOWN = (1 << 64) - 1


class Timed(Protocol):
    """A message as JSON has it."""

    delay_ms: int | UnsetType
    due_us: int | UnsetType
    half: bool | UnsetType
    producer_group: str | UnsetType
    first_check_ms: int | UnsetType
    check_interval_ms: int | UnsetType
    checks: int | UnsetType


def from_json(one: Timed) -> Later:
    """What the JSON object says. Raises INVALID for checks of what is no half."""
    return later_of(**{name: value for name in NAMES.values()
                       if (value := getattr(one, name)) is not UNSET})


def from_fields(fields: Fields) -> tuple[Later, Fields]:
    """What the header fields say, and the others. Raises INVALID."""
    said: dict[str, Any] = {}
    rest: Fields = []
    for name, raw in fields:
        field = NAMES.get(name)
        if field is None:
            rest.append((name, raw))
        elif field in said:
            raise BrokerError(Kind.INVALID, f"Penstock-{name.decode()} stands twice")
        elif field == "producer_group":
            said[field] = raw.decode()
        elif not raw.isdigit() or len(raw) > 18:
            raise BrokerError(Kind.INVALID, f"Penstock-{name.decode()} is a number")
        else:
            said[field] = int(raw)
    return later_of(**said), rest


def receipt_reply(receipt: SendReceipt, count: int = 1) -> models.SendReply:
    """A receipt as JSON; of a message that waits its offset is null."""
    waits = receipt.pending is not None
    # Of a repetition after a long time it may not be known any more where the first one is.
    told = not waits and receipt.offset < UNKNOWN
    return models.SendReply(
        receipt.id, receipt.offset if told else None, receipt.durability, count,
        receipt.duplicate, waits)
