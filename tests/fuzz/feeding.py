"""A worker without sockets: bytes go straight into a connection, replies come straight out."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penstock.engine._core import Lane, Store
from penstock.server._wire import Hub
from penstock.server.broker.broker import Broker
from penstock.server.broker.limits import Limits
from penstock.server.protocols.http.door import HttpDoor
from penstock.server.protocols.native.connection import NativeDoor

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

QUICK, WITHIN_S = 100, 60.0


class InlineBridge:
    """What a thread would do is done at once; the result comes a turn of the loop later."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future = self.loop.create_future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # as an executor does
            future.set_exception(error)
        return future


class Transport:
    """What a connection believes to be its socket."""

    def __init__(self) -> None:
        self.said = bytearray()
        self.open = True
        self.reading = True

    def write(self, data: bytes) -> None:
        assert self.open, "written after the end"
        self.said += data

    def close(self) -> None:
        self.open = False

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name in ("sockname", "peername") else None


class Worker:
    """Both doors over one store."""

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, **limits: Any) -> None:
        self.loop = loop
        self.store = store
        self.lane = Lane(store)
        self.bridge = InlineBridge(loop)
        self.broker = Broker(store, Limits(**limits))
        self.door = HttpDoor(self.broker, self.bridge, "kernel")  # type: ignore[arg-type]
        bridge: Any = self.bridge
        self.hub = Hub(loop, self.lane, self.broker, bridge, self.door, "kernel")
        self.door.hub = self.hub
        self.native = NativeDoor(self.hub, self.broker)

    def turns(self) -> Iterator[int]:
        """Turns of the loop: some at once, then with time for the committer's thread."""
        end = time.monotonic() + WITHIN_S
        number = 0
        while number < QUICK or time.monotonic() < end:
            self.loop.run_until_complete(asyncio.sleep(0 if number < QUICK else 0.001))
            yield number
            number += 1

    def settle(self, transport: Transport) -> None:
        """Until nothing is under way any more, but for those who wait for a message."""
        for turn in self.turns():
            waiting = turn > 20 and self.hub.in_calls <= self.hub.parked
            if not self.hub.in_flight and (not self.hub.in_calls or waiting):
                return
        raise AssertionError(f"{self.hub.in_calls} calls, {self.hub.in_flight} in flight for ever")

    def heard(self, door: Callable[[], Any], pieces: list[bytes]) -> bytes:
        """What a new connection says to the pieces, one read each; it is lost at the end."""
        transport = Transport()
        connection = door()
        connection.connection_made(transport)
        for piece in pieces:
            at = 0
            while at < len(piece) and transport.open:
                room = memoryview(connection.get_buffer(-1))
                part = piece[at:at + len(room)]
                room[:len(part)] = part
                room.release()
                connection.buffer_updated(len(part))
                at += len(part)
                if not transport.reading or self.hub.in_flight:
                    self.settle(transport)
                if not transport.reading:
                    # It waits for a message, and more was asked behind it: as good as answered.
                    break
            if not transport.reading:
                break
        self.settle(transport)
        transport.open = False
        connection.connection_lost(None)
        for _ in self.turns():
            if not (self.hub.in_calls or self.hub.connections or self.hub.parked):
                return bytes(transport.said)
        raise AssertionError("a lost connection leaves something behind")

    def close(self) -> None:
        self.hub.close()
        self.lane.close()


@contextmanager
def working(path: Path, **limits: Any) -> Iterator[Worker]:
    """A worker over a new store."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        with Store.open(path, durability="kernel", segment_size=16 << 20) as store:
            worker = Worker(loop, store, **limits)
            try:
                yield worker
            finally:
                worker.close()
