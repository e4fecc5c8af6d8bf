"""The targets that look and change nothing: alive, ready, metrics, the description."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from penstock.engine.errors import EngineError
from penstock.server.broker.errors import Kind
from penstock.server.broker.seeing import Seeing
from penstock.server.metrics import cmq
from penstock.server.metrics.board import Board
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


COUNTERS = (*(kind == "counter" for _, kind, _ in COUNTED), *cmq.COUNTERS)

BEHIND: tuple[tuple[str, str, str], ...] = (
    ("group_lag", "lag", "Visible messages that the group has not confirmed."),
    ("group_ready", "ready", "Of the lag, what may be taken at once."),
    ("group_in_flight", "in_flight", "Of the lag, what is leased or delayed."),
    ("group_oldest_age_seconds", "oldest_age_s", "Age of the oldest of the lag."),
)


class Observer:
    """The functions by target; metrics runs on a thread."""

    def __init__(self, door: "HttpDoor", seeing: Seeing, board: Board | None) -> None:
        self.door = door
        self.seeing = seeing
        self.description: bytes | None = None
        self.cmq = cmq.CmqCalls()
        self.board = board or Board()
        if board is None:
            self.board.begin(0, COUNTERS)
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

    def publish(self) -> None:
        """Let the other workers see what this one counted."""
        own = [getattr(self.door.hub, name) for name, _, _ in COUNTED]
        self.board.put([*own, *self.cmq.values()])

    def measure(self) -> Iterator[Metric]:
        self.publish()
        sums = self.board.sums(len(COUNTERS))
        for (name, kind, text), value in zip(COUNTED, sums, strict=False):
            suffix = "_total" if kind == "counter" else ""
            yield Metric(f"worker_{name}{suffix}", kind, f"{text} All workers.", value)
        yield from cmq.series(sums[len(COUNTED):])
        yield Metric("workers", "gauge", "Workers of this server.", self.board.workers)
        yield Metric("worker_restarts_total", "counter", "Workers started in place of dead ones.",
                     self.board.restarts)
        try:
            numbers = self.seeing.broker.store.stat()
            rows, left_out = self.seeing.overview(self.seeing.broker.limits.metric_groups)
        except EngineError:
            return
        for name, value in sorted(numbers.items()):
            if isinstance(value, int):
                yield Metric(f"store_{name}", "gauge", f"The store's {name}.", value)
        yield from behind(rows)
        yield Metric("groups_left_out", "gauge", "Groups without series of their own: too many.",
                     left_out)

    def openapi(self) -> Response:
        if self.description is None:
            self.description = document()
        return 200, JSON, self.description


def behind(rows: list[dict[str, Any]]) -> Iterator[Metric]:
    """The series of the groups."""
    for name, field, text in BEHIND:
        for row in rows:
            labels = (("queue", row["queue"]), ("group", row["group"]))
            yield Metric(name, "gauge", text, row[field] or 0, labels)
