"""The broker's refusals as statuses of the native protocol."""

from penstock.server.broker.errors import BrokerError, Kind

STATUSES: dict[Kind, int] = {
    Kind.MALFORMED: 1,
    Kind.UNKNOWN: 2,
    Kind.NOT_FOUND: 3,
    Kind.EXISTS: 4,
    Kind.TOO_LARGE: 5,
    Kind.STORE_FULL: 6,
    Kind.POISONED: 7,
    Kind.BUSY: 8,
    Kind.INVALID: 9,
    Kind.SHUTTING_DOWN: 10,
    Kind.INTERNAL: 11,
    Kind.CORRUPT: 12,
    Kind.THROTTLED: 13,
}


def refused(error: BrokerError) -> tuple[int, bytes]:
    """Status and payload of the error reply."""
    return STATUSES[error.kind], error.retry_after_ms.to_bytes(4, "little") + error.text.encode()
