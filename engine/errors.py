"""What the store cannot do. A refusal of one request is not here but in the broker's errors."""


class EngineError(Exception):
    """Any failure of the store."""


class QueueNotFoundError(EngineError, KeyError):
    """There is no queue of that name."""


class InvalidError(EngineError, ValueError):
    """An argument has an impossible value."""


class FilterError(InvalidError):
    """A filter does not compile; column says where, counted from 1, 0 if it is about the whole."""

    def __init__(self, reason: str = "", column: int = 0) -> None:
        super().__init__(*([f"column {column}: {reason}" if column else reason] if reason else []))
        self.column = column


class TooLargeError(EngineError, ValueError):
    """A message or batch is over its limit."""


class PendingNotFoundError(EngineError, KeyError):
    """No such message is pending: it never was, or it was decided long ago."""


class PendingDecidedError(EngineError):
    """A pending message was decided otherwise before; the first verdict wins."""


class StoreFullError(EngineError, OSError):
    """No room for another segment. Reading and confirming go on; free space and try again."""


class StorePoisonedError(EngineError, OSError):
    """A write or an fsync failed: what was not acknowledged may be lost.

    Close the store in all its users and open it again.
    """


class StoreClosedError(EngineError):
    """The store was closed."""


class StoreBusyError(EngineError):
    """Too much is in flight; try again."""


class OpenLimitError(EngineError, OSError):
    """The process has no descriptors, threads or addresses left for one more open store."""


class StoreLockedError(EngineError, OSError):
    """Another process recovers the store, or holds it in a way that excludes us."""


class ConflictError(EngineError):
    """What was to be changed was changed meanwhile by somebody else: read it again."""


class CorruptionError(EngineError):
    """Stored bytes are not what was written; path and position say which. Nothing was deleted."""
