"""The storage engine: a durable message log that any number of threads and processes may share."""

from penstock.engine._core import (
    AtomicBatch,
    Batch,
    Consumer,
    FanoutReceipt,
    Lane,
    PendingMessages,
    Queue,
    SendReceipt,
    Store,
)
from penstock.engine.attributes import Attributes
from penstock.engine.errors import (
    ConflictError,
    CorruptionError,
    EngineError,
    FilterError,
    InvalidError,
    OpenLimitError,
    PendingDecidedError,
    PendingNotFoundError,
    QueueNotFoundError,
    StoreBusyError,
    StoreClosedError,
    StoreFullError,
    StoreLockedError,
    StorePoisonedError,
    TooLargeError,
)
from penstock.engine.filters import Filter
from penstock.engine.pending import Pending
from penstock.engine.retries import Origin, Retry, redrive

__all__ = [
    "AtomicBatch",
    "Attributes",
    "Batch",
    "ConflictError",
    "Consumer",
    "CorruptionError",
    "EngineError",
    "FanoutReceipt",
    "Filter",
    "FilterError",
    "InvalidError",
    "Lane",
    "OpenLimitError",
    "Origin",
    "Pending",
    "PendingDecidedError",
    "PendingMessages",
    "PendingNotFoundError",
    "Queue",
    "QueueNotFoundError",
    "Retry",
    "SendReceipt",
    "Store",
    "StoreBusyError",
    "StoreClosedError",
    "StoreFullError",
    "StoreLockedError",
    "StorePoisonedError",
    "TooLargeError",
    "redrive",
]
