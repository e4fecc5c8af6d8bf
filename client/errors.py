"""What a request to the server can fail with. The table at the end is total over the statuses."""

from __future__ import annotations

import builtins

from penstock.wire import Status


class PenstockError(Exception):
    """Any failure of a client; retry_after_ms is 0 where a retry will not help by itself."""

    def __init__(self, text: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(text)
        self.retry_after_ms = retry_after_ms


class ConnectionLostError(PenstockError, ConnectionError):
    """The server was not reached in time; whether the request was carried out is not known."""


class ClosedError(PenstockError):
    """The client was closed."""


class TimeoutError(PenstockError, builtins.TimeoutError):  # noqa: A001
    """No reply in time; whether the request was carried out is not known."""


class ProtocolError(PenstockError):
    """One end said what docs/wire.md does not allow."""


class QueueNotFoundError(PenstockError, LookupError):
    """There is no such queue, group or message."""


class ExistsError(PenstockError):
    """There is one of that name already."""


class TooLargeError(PenstockError, ValueError):
    """A message, batch or frame is over its limit."""


class StoreFullError(PenstockError):
    """The server's disk is full; receiving and confirming go on."""


class PoisonedError(PenstockError):
    """A write or fsync of the server failed; its store must be opened again."""


class BusyError(PenstockError):
    """Too much is in flight; try again after retry_after_ms."""


class ThrottledError(BusyError):
    """Over a quota of the queue or its namespace; try again after retry_after_ms."""


class InvalidError(PenstockError, ValueError):
    """A field has an impossible value."""


class ShuttingDownError(PenstockError):
    """The server is about to stop and takes no new work."""


class InternalError(PenstockError):
    """The server has a bug; its log says which."""


class CorruptError(PenstockError):
    """The record is damaged; the others are served."""


class StaleError(PenstockError):
    """The lease was lost, or the message was confirmed or rewound: someone else may have it."""


class ForgedError(PenstockError):
    """The receipt is not one that this server gave."""


ERRORS: dict[Status, type[PenstockError]] = {
    Status.MALFORMED: ProtocolError,
    Status.UNKNOWN_VERB: ProtocolError,
    Status.NOT_FOUND: QueueNotFoundError,
    Status.EXISTS: ExistsError,
    Status.TOO_LARGE: TooLargeError,
    Status.STORE_FULL: StoreFullError,
    Status.POISONED: PoisonedError,
    Status.BUSY: BusyError,
    Status.INVALID: InvalidError,
    Status.SHUTTING_DOWN: ShuttingDownError,
    Status.INTERNAL: InternalError,
    Status.CORRUPT: CorruptError,
    Status.THROTTLED: ThrottledError,
}


def error_for(status: int, retry_after_ms: int, text: str) -> PenstockError:
    """The error that a reply's status stands for; one of a newer server is a ProtocolError."""
    try:
        known = Status(status)
    except ValueError:
        return ProtocolError(f"unknown status {status}: {text}")
    return ERRORS[known](text or known.name.lower(), retry_after_ms)
