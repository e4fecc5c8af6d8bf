"""The CMQ doors of a worker in the test's own process, with rules and a clock of its choice."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.engine._core import Lane, Store
from penstock.server._wire import CallRates, FirstTimes, Hub, MessageNames, Repeats
from penstock.server.app import loop_factory
from penstock.server.bridge import Bridge
from penstock.server.broker.access import Keys
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.limits import Limits
from penstock.server.protocols.cmq_http.door import CmqDoor as CmqHttpDoor
from penstock.server.protocols.cmq_tcp.connection import CmqDoor as CmqTcpDoor
from penstock.server.protocols.cmq_tcp.handler import Handler
from penstock.server.protocols.http.door import HttpDoor
from penstock.server.protocols.listener import Listener, bind


@dataclass(frozen=True)
class Inside:
    """rates: the calls that are counted; its second stands still at 1 until a test moves it."""

    store: Store
    http: int
    tcp: int
    rates: CallRates
    lane: Lane


@asynccontextmanager
async def inside(path: Path, rules: Rules) -> AsyncIterator[Inside]:
    loop = asyncio.get_running_loop()
    store = Store.open(path, durability="kernel")
    lane, bridge = Lane(store), Bridge(loop)
    broker = Broker(store, Limits())
    http = HttpDoor(broker, bridge, "kernel")
    hub = http.hub = Hub(loop, lane, broker, bridge, http, "kernel")
    firsts, names = FirstTimes(bytearray(1 << 12)), MessageNames(bytearray(16))
    rates, calls = CallRates(bytearray(1 << 12), rules.calls), http.observer.cmq
    rates.second = 1
    keys = Keys(broker)
    cmq = CmqHttpDoor(broker, bridge, keys, rules, names=names, rates=rates, calls=calls,
                      firsts=firsts, repeats=Repeats(bytearray(24 << 10)))
    http.hot = cmq.serve(hub)
    http.beside.append((cmq.wants, cmq.answer))
    tcp = CmqTcpDoor(hub, Handler(broker, keys, rules, names), firsts, rates, calls)
    bound = [bind("127.0.0.1", 0), bind("127.0.0.1", 0)]
    listeners = [Listener(bound[0], http), Listener(bound[1], tcp)]
    for listener in listeners:
        await listener.start()
    try:
        yield Inside(store, *(one.getsockname()[1] for one in bound), rates, lane)
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


def play(path: Path, rules: Rules, scene: Callable[[Inside], None]) -> None:
    """Run a scene of clients that block, in a thread, while the doors are open."""

    async def act() -> None:
        async with inside(path, rules) as doors:
            await asyncio.to_thread(scene, doors)

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(act())
