"""The targets that look and change nothing: alive, ready, metrics, the description."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from penstock.engine.errors import EngineError
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import Kind
from penstock.server.metrics.exposition import Metric, expose
from penstock.server.protocols.http.openapi import document
from penstock.server.protocols.http.problem import JSON, Response, render

if TYPE_CHECKING:
    from penstock.server.protocols.http.door import HttpDoor

TEXT = b"Content-Type: text/plain; charset=utf-8\r\n"
EXPOSITION = b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"

COUNTED: tuple[tuple[str, Literal["counter", "gauge"], str], ...] = (
    ("received_bytes", "counter", "Bytes read from connections."),
    ("sent_bytes", "counter", "Bytes written to connections."),
    ("sends", "counter", "Sends staged."),
    ("messages", "counter", "Messages staged by sends."),
    ("confirms", "counter", "Receipts in staged confirmations."),
    ("delivered", "counter", "Messages delivered or read."),
    ("requests", "counter", "HTTP requests."),
    ("refused", "counter", "Connections over the limit."),
    ("dropped", "counter", "Connections dropped: idle, or not reading their replies."),
    ("connections", "gauge", "Open connections."),
    ("in_flight", "gauge", "Operations staged and not yet answered."),
    ("parked", "gauge", "Receivers that wait for a message."),
)


class Observer:
    """The functions by target."""

    def __init__(self, door: "HttpDoor", broker: Broker) -> None:
        self.door = door
        self.broker = broker
        self.description: bytes | None = None
        self.paths: dict[str, Callable[[], Response]] = {
            "/livez": lambda: (200, TEXT, b"alive\n"),
            "/readyz": self.ready,
            "/metrics": self.metrics,
            "/openapi.json": self.openapi,
        }

    def ready(self) -> Response:
        if self.door.ready:
            return 200, TEXT, b"ready\n"
        return render(503, Kind.SHUTTING_DOWN, "the server is stopping")

    def metrics(self) -> Response:
        return 200, EXPOSITION, expose(self.measure())

    def measure(self) -> Iterator[Metric]:
        for name, kind, text in COUNTED:
            suffix = "_total" if kind == "counter" else ""
            yield Metric(f"worker_{name}{suffix}", kind, text, getattr(self.door.hub, name))
        try:
            numbers = self.broker.store.stat()
        except EngineError:
            return
        for name, value in sorted(numbers.items()):
            if isinstance(value, int):
                yield Metric(f"store_{name}", "gauge", f"The store's {name}.", value)

    def openapi(self) -> Response:
        if self.description is None:
            self.description = document()
        return 200, JSON, self.description
