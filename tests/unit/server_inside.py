"""Both doors of a worker in the test's own process, with limits of the test's choice."""

import asyncio
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.engine._core import Lane, Store
from penstock.server._wire import Hub
from penstock.server.app import loop_factory
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.limits import Limits
from penstock.server.protocols.http.door import HttpDoor
from penstock.server.protocols.listener import Listener, bind
from penstock.server.protocols.native.connection import NativeDoor

sys.path.insert(0, str(Path(__file__).parent))
from server_process import frame

HELLO = frame(1, 0, struct.pack("<4sHHQ", b"PNST", 1, 0, 0))


@dataclass(frozen=True)
class Doors:
    """Both doors of a worker in this process, with limits of the test's choice."""

    hub: Hub
    store: Store
    tcp: int
    http: int
    kept: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that lives as long as the doors: one that is forgotten closes itself."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26)
        self.kept.append(writer)
        return reader, writer

    async def native(self, hello: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await self.connect(self.tcp)
        if hello:
            writer.write(HELLO)
            assert (await reply(reader))[1] == 0
        return reader, writer


async def reply(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    """Verb, status, tag, payload."""
    size, verb, _, status, tag, _ = struct.unpack("<IBBHII", await reader.readexactly(16))
    return verb, status, tag, await reader.readexactly(size - 12)


@asynccontextmanager
async def opened(path: Path, segment_size: int, **limits: Any) -> AsyncIterator[Doors]:
    loop = asyncio.get_running_loop()
    store = Store.open(path, durability="kernel", segment_size=segment_size)
    lane, bridge = Lane(store), Bridge(loop)
    broker = Broker(store, Limits(**limits))
    http = HttpDoor(broker, bridge, "kernel")
    hub = http.hub = Hub(loop, lane, broker, bridge, http, "kernel")
    bound = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    broker.gate = hub.gates.admit
    listeners = [Listener(bound[0], NativeDoor(hub, broker)), Listener(bound[1], http)]
    for listener in listeners:
        await listener.start()
    try:
        yield Doors(hub, store, *(one.getsockname()[1] for one in bound))
    finally:
        for listener in listeners:
            listener.stop()
        hub.begin_stop()
        while hub.in_flight or hub.in_calls:
            await asyncio.sleep(0.01)
        hub.abort_all()
        while hub.connections:
            await asyncio.sleep(0.01)
        bridge.close()
        hub.close()
        lane.close()
        store.close()


def play(
    path: Path,
    scene: Callable[[Doors], Awaitable[None]],
    segment_size: int = 64 << 20,
    **limits: Any,
) -> None:
    async def act() -> None:
        async with opened(path, segment_size, **limits) as doors:
            try:
                await asyncio.wait_for(scene(doors), 20)
            finally:
                for writer in doors.kept:
                    writer.transport.abort()
                await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(act())


async def ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(1), 2) == b""
    except ConnectionError:
        return True


async def open_still(reader: asyncio.StreamReader) -> bool:
    await asyncio.sleep(0.02)
    return not reader.at_eof() and reader.exception() is None
