"""The Python face of the hot path."""

import asyncio
from collections.abc import Callable
from typing import Any, final

from penstock.engine._core import Lane
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker

@final
class HttpRequest:
    """A whole request."""

    @property
    def method(self) -> bytes: ...
    @property
    def url(self) -> bytes: ...
    @property
    def body(self) -> bytes: ...
    @property
    def content_type(self) -> bytes | None: ...
    @property
    def accept(self) -> bytes | None: ...
    @property
    def producer(self) -> int: ...
    @property
    def sequence(self) -> int: ...
    @property
    def fields(self) -> list[tuple[bytes, bytes]] | None: ...

class Hub:
    """The lane, the connections and the waiting receivers of one worker."""

    received_bytes: int
    sent_bytes: int
    sends: int
    messages: int
    confirms: int
    delivered: int
    refused: int
    requests: int
    dropped: int
    drains: int
    @property
    def in_flight(self) -> int: ...
    @property
    def in_calls(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def stopping(self) -> bool: ...
    @property
    def parked(self) -> int: ...
    @property
    def routes(self) -> dict[bytes, int]: ...
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lane: Lane,
        broker: Broker,
        bridge: Bridge,
        http_handler: Any = None,
        durability: str = "disk",
    ) -> None: ...
    def wait(self, queue: int, group: int, wait_ms: int) -> asyncio.Future[None]: ...
    def on_ready(self) -> None: ...
    def sweep(self) -> None: ...
    def begin_stop(self) -> None: ...
    def abort_all(self) -> None: ...
    def close(self) -> None: ...

class Connection(asyncio.BufferedProtocol):
    def __init__(self, hub: Hub, answer: Callable[[int, bytes], tuple[int, bytes]]) -> None: ...

class HttpConnection(asyncio.BufferedProtocol):
    def __init__(self, hub: Hub, door: Any) -> None: ...
