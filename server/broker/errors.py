"""Why a request is refused, in words that know no wire."""

from enum import Enum

from penstock.engine import errors as engine


class Kind(Enum):
    """Every reason there is. Each adapter has a total table from these to its own codes."""

    MALFORMED = "malformed"
    UNKNOWN = "unknown"
    NOT_FOUND = "not-found"
    EXISTS = "exists"
    TOO_LARGE = "too-large"
    STORE_FULL = "store-full"
    POISONED = "poisoned"
    BUSY = "busy"
    INVALID = "invalid"
    SHUTTING_DOWN = "shutting-down"
    INTERNAL = "internal"
    CORRUPT = "corrupt"
    THROTTLED = "throttled"


RETRY_AFTER_MS = {
    Kind.STORE_FULL: 1000,
    Kind.BUSY: 20,
    Kind.SHUTTING_DOWN: 500,
    Kind.THROTTLED: 500,
}


class BrokerError(Exception):
    """The request is refused; nothing was changed by it."""

    def __init__(
        self, kind: Kind, text: str, *, limit: int | None = None, retry_after_ms: int = 0
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.limit = limit
        self.retry_after_ms = retry_after_ms or RETRY_AFTER_MS.get(kind, 0)


# In this order: the first class that matches decides.
KINDS: tuple[tuple[type[engine.EngineError], Kind], ...] = (
    (engine.QueueNotFoundError, Kind.NOT_FOUND),
    (engine.ConflictError, Kind.EXISTS),
    (engine.PendingNotFoundError, Kind.NOT_FOUND),
    (engine.PendingDecidedError, Kind.EXISTS),
    (engine.TooLargeError, Kind.TOO_LARGE),
    (engine.InvalidError, Kind.INVALID),
    (engine.StoreFullError, Kind.STORE_FULL),
    (engine.StorePoisonedError, Kind.POISONED),
    (engine.StoreClosedError, Kind.SHUTTING_DOWN),
    (engine.StoreBusyError, Kind.BUSY),
    (engine.StoreLockedError, Kind.BUSY),
    (engine.OpenLimitError, Kind.BUSY),
    (engine.CorruptionError, Kind.CORRUPT),
    (engine.EngineError, Kind.INTERNAL),
)


def refusal(error: engine.EngineError) -> BrokerError:
    """The broker's word for what the store could not do."""
    kind = next(kind for cls, kind in KINDS if isinstance(error, cls))
    # KeyError's str() is the repr of its argument; the argument itself is the sentence.
    return BrokerError(kind, str(error.args[0]) if error.args else kind.value)
