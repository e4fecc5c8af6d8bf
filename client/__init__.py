"""The client of Penstock, a durable message queue. A program that only sends pays for no server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from penstock.errors import (
    BusyError,
    ClosedError,
    ConnectionLostError,
    CorruptError,
    ExistsError,
    ForgedError,
    InternalError,
    InvalidError,
    PenstockError,
    PoisonedError,
    ProtocolError,
    QueueNotFoundError,
    ShuttingDownError,
    StaleError,
    StoreFullError,
    ThrottledError,
    TimeoutError,
    TooLargeError,
)
from penstock.sync import Client, Message, Queue, connect
from penstock.wire import Receipt, Verdict

if TYPE_CHECKING:
    from penstock.aio import AsyncClient, AsyncMessage, AsyncQueue

__all__ = [
    "AsyncClient",
    "AsyncMessage",
    "AsyncQueue",
    "BusyError",
    "Client",
    "ClosedError",
    "ConnectionLostError",
    "CorruptError",
    "ExistsError",
    "ForgedError",
    "InternalError",
    "InvalidError",
    "Message",
    "PenstockError",
    "PoisonedError",
    "ProtocolError",
    "Queue",
    "QueueNotFoundError",
    "Receipt",
    "ShuttingDownError",
    "StaleError",
    "StoreFullError",
    "ThrottledError",
    "TimeoutError",
    "TooLargeError",
    "Verdict",
    "connect",
]


def __getattr__(name: str) -> Any:
    # The sync client has no use for asyncio, which takes longer to import than all of this.
    if name in ("AsyncClient", "AsyncMessage", "AsyncQueue"):
        from penstock import aio

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
