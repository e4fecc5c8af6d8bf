"""The composition root: builds a worker from its options and runs it until told to stop."""

import asyncio
import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from penstock.engine._core import Lane, Store
from penstock.engine.errors import EngineError, StoreLockedError
from penstock.server import remembering
from penstock.server._wire import CallRates, FirstTimes, Hub, MessageNames, Repeats
from penstock.server.bridge import Bridge
from penstock.server.broker.access import Keys, Pair, checked_pair
from penstock.server.broker.aging import Aging
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import STRICT, Rules
from penstock.server.broker.errors import BrokerError
from penstock.server.broker.cron import Crons
from penstock.server.broker.limits import Limits
from penstock.server.broker.modes import Members
from penstock.server.broker.temporary import Temporary
from penstock.server.broker.transaction import Transactions
from penstock.server.broker.throttle import Quotas
from penstock.server.cells import CALLS, CONNECTED, FIRSTS, NAMES, REPEATS, SHARED
from penstock.server.config import ServeOptions, format_address, parse_address
from penstock.server.fanning import Fanner
from penstock.server.housekeeping import Chore, keep_house
from penstock.server.metrics.board import Board
from penstock.server.protocols.cmq_http.door import CmqDoor as CmqHttpDoor
from penstock.server.protocols.cmq_tcp.connection import CmqDoor as CmqTcpDoor
from penstock.server.protocols.cmq_tcp.handler import Handler as CmqHandler
from penstock.server.protocols.http.door import HttpDoor
from penstock.server.protocols.http.observe import COUNTERS
from penstock.server.protocols.listener import Listener, bind, bind_first
from penstock.server.protocols.native.connection import NativeDoor
from penstock.server.push.pusher import Pusher
from penstock.server.supervisor import Supervisor

OPEN_TIMEOUT_S = 120.0
PUBLISH_S = 0.25
SWEEP_S = 2.0
AGE_S = 1.0
BIND_S = 0.25
SWITCH_S = 0.0005
CHECK_S = 0.25
EXPIRE_S = 60.0
CRON_S = 0.5


@dataclass(frozen=True, slots=True)
class Sockets:
    """What was bound before the workers started; None where no address was given."""

    tcp: socket.socket | None
    http: socket.socket | None
    cmq_tcp: socket.socket | None = None

    @classmethod
    def bind(cls, options: ServeOptions) -> "Sockets":
        shared = options.workers > 1
        return cls(
            bind_first(*parse_address(options.tcp), shared) if options.tcp else None,
            bind_first(*parse_address(options.http), shared) if options.http else None,
            bind_first(*parse_address(options.cmq_tcp), shared) if options.cmq_tcp else None,
        )

    def again(self) -> "Sockets":
        """The same addresses bound once more: a worker's own sockets."""
        return Sockets(*(one and self.beside(one) for one in self.all()))

    def all(self) -> tuple[socket.socket | None, ...]:
        return self.tcp, self.http, self.cmq_tcp

    @staticmethod
    def beside(one: socket.socket) -> socket.socket:
        """A further socket on the address of one that is shared."""
        host, port = one.getsockname()[:2]
        return bind(host, port, True)

    def close(self) -> None:
        for one in self.all():
            if one is not None:
                one.close()

    def ready_line(self) -> str:
        named = (("tcp", self.tcp), ("http", self.http), ("cmq-tcp", self.cmq_tcp))
        return " ".join(
            ["ready", *(f"{n}={format_address(*s.getsockname()[:2])}" for n, s in named if s)]
        )


def main(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT; 0 after a clean stop, 1 if it could not serve."""
    try:
        root = root_pair(os.environ)
        if root is not None:
            checked_pair(Pair(*root))
    except (BrokerError, ValueError) as error:
        print(f"penstock: {error}", file=sys.stderr)
        return 1
    try:
        sockets = Sockets.bind(options)
    except OSError as error:
        print(f"penstock: cannot listen: {error}", file=sys.stderr)
        return 1
    line = sockets.ready_line()
    if options.workers == 1:
        return run(options, sockets, lambda: print(line, flush=True))
    return supervise(options, sockets, line)


def run(
    options: ServeOptions,
    sockets: Sockets,
    ready: Callable[[], object],
    board: Board | None = None,
    index: int = 0,
) -> int:
    """One worker, in this process; index is its row on the board."""
    # How long a thread that keeps house may keep the interpreter from the loop.
    sys.setswitchinterval(SWITCH_S)
    board = board or Board()
    board.begin(index, COUNTERS)
    try:
        store = open_store(options)
    except (EngineError, OSError) as error:
        print(f"penstock: cannot open {options.data}: {error}", file=sys.stderr)
        return 1
    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(Worker(options, store, sockets, board, index).serve(ready))
        store.checkpoint()
    finally:
        store.close()
    return 0


def open_store(options: ServeOptions) -> Store:
    """The store; waits while another worker recovers it."""
    deadline = time.monotonic() + OPEN_TIMEOUT_S
    while True:
        try:
            return Store.open(
                options.data,
                durability=options.durability,
                segment_size=options.segment_size,
                ready=options.ready,
            )
        except StoreLockedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """uvloop's loop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class Worker:
    """One process's doors on the store."""

    def __init__(
        self, options: ServeOptions, store: Store, sockets: Sockets, board: Board, index: int = 0
    ) -> None:
        self.options = options
        self.store = store
        self.sockets = sockets
        self.board = board
        self.index = index
        self.limits = Limits(connections=options.connections)

    async def serve(self, ready: Callable[[], object]) -> None:
        """Open the doors, wait for a signal, drain."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        lane = Lane(self.store)
        bridge = Bridge(loop)
        broker = Broker(self.store, self.limits)
        broker.root = root_pair(os.environ)
        door = HttpDoor(broker, bridge, self.options.durability, self.board)
        hub = Hub(loop, lane, broker, bridge, door, self.options.durability, SHARED)
        hub.gates.tell_connections(CONNECTED, self.index, self.options.workers)
        door.hub = hub
        broker.gate = hub.gates.admit
        firsts = FirstTimes(FIRSTS)
        if self.index == 0:
            remembering.load(self.store, firsts)
        cmq_tcp = self.cmq_doors(hub, broker, bridge, door, firsts)
        doors = (
            (self.sockets.tcp, NativeDoor(hub, broker)),
            (self.sockets.http, door),
            (self.sockets.cmq_tcp, cmq_tcp),
        )
        listeners = [Listener(bound, factory) for bound, factory in doors if bound is not None]
        for listener in listeners:
            await listener.start()
        chores = [*self.chores(broker, hub), Chore(PUBLISH_S, door.observer.publish)]
        fanner = Fanner(broker)
        tasks = [asyncio.create_task(keep_house(bridge, chores))]
        if self.index == 0:
            # One worker pushes: concurrency is bounded for the server, not for each of its workers.
            allowed = [ipaddress.ip_network(one) for one in self.options.push_allow]
            tasks.append(asyncio.create_task(Pusher(hub, broker, bridge, allowed).run()))
            fanner.start()
        ready()
        await stopping.wait()
        for task in tasks:
            task.cancel()
        fanner.stop()
        door.ready = False
        for listener in listeners:
            listener.stop()
        await self.drain(hub)
        if self.index == 0:
            self.remember(firsts)
        door.observer.publish()
        bridge.close()
        hub.close()
        lane.close()

    def cmq_doors(
        self, hub: Hub, broker: Broker, bridge: Bridge, door: HttpDoor, firsts: FirstTimes
    ) -> CmqTcpDoor:
        """CMQ: over HTTP, on the same port, and over TCP, which is found through the other."""
        options, bound = self.options, self.sockets.cmq_tcp
        keys, rules = Keys(broker), STRICT if options.cmq_limits else Rules()
        names = MessageNames(NAMES)
        rates, calls = CallRates(CALLS, rules.calls), door.observer.cmq
        cmq = CmqHttpDoor(
            broker, bridge, keys, rules, names=names, rates=rates, calls=calls, firsts=firsts,
            repeats=Repeats(REPEATS), clock_s=options.cmq_clock,
            strict_signatures=options.cmq_strict)
        door.hot = cmq.serve(hub)
        door.beside.append((cmq.wants, cmq.answer))
        if bound is not None:
            host, port = bound.getsockname()[:2]
            everywhere = ipaddress.ip_address(host).is_unspecified
            broker.doors["cmq-tcp"] = options.cmq_address or format_address(
                "" if everywhere else host, port)
        return CmqTcpDoor(hub, CmqHandler(broker, keys, rules, names), firsts, rates, calls)

    def chores(self, broker: Broker, hub: Hub) -> list[Chore]:
        """What is done now and then."""
        temporary, members = Temporary(broker), Members(broker)
        transactions = Transactions(broker)
        quotas, aging = Quotas(broker), Aging(broker)
        broker.guards.append(quotas.guard)

        def bind() -> None:
            plan = quotas.plan()
            for room in plan.rooms:
                hub.gates.leave_room(*room)
            # The gates are the loop's.
            if plan.members or plan.keys or hub.gates.count:
                hub.loop.call_soon_threadsafe(
                    hub.gates.replace, plan.rules, plan.members, plan.keys)

        return [
            Chore(SWEEP_S, lambda: temporary.sweep(time.time_ns() // 1000)),
            Chore(SWEEP_S, lambda: members.sweep(time.time_ns() // 1000)),
            Chore(BIND_S, bind),
            *([Chore(AGE_S, lambda: aging.sweep(time.time_ns() // 1000))] * (self.index == 0)),
            Chore(CHECK_S, transactions.check),
            Chore(EXPIRE_S, transactions.expire),
            Chore(CRON_S, Crons(broker).turn),
        ]

    def remember(self, firsts: FirstTimes) -> None:
        """Note what the next server should know and no message depends on."""
        try:
            remembering.save(self.store, firsts)
        except EngineError as error:
            print(f"penstock: {error}", file=sys.stderr)

    async def drain(self, hub: Hub) -> None:
        """Answer what is in flight, then close every connection; those who do not read are cut."""
        hub.begin_stop()
        deadline = time.monotonic() + self.limits.drain_s
        while (hub.connections or hub.in_flight) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        hub.abort_all()
        while hub.connections and time.monotonic() < deadline + 1.0:
            await asyncio.sleep(0.01)


def root_pair(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """The access key that the operator has given. ValueError for half of one."""
    id = environment.get("PENSTOCK_ACCESS_KEY", "")
    secret = environment.get("PENSTOCK_SECRET_KEY", "")
    if bool(id) != bool(secret):
        raise ValueError("PENSTOCK_ACCESS_KEY and PENSTOCK_SECRET_KEY go together")
    return (id, secret) if id else None


def supervise(options: ServeOptions, sockets: Sockets, line: str) -> int:
    """Several workers, each in a process of its own; the exit code."""
    board = Board(options.workers)

    def work(index: int, ready: Callable[[], object]) -> int:
        # Own sockets: the kernel spreads connections over sockets, not over processes.
        own = sockets.again()
        sockets.close()
        return run(options, own, ready, board, index)

    def ended(index: int, again: bool) -> None:
        board.end(index, COUNTERS)
        if again:
            board.restarted()

    # The parent keeps its sockets, which do not listen: a worker started again binds beside them.
    supervisor = Supervisor(options.workers, work, ended)
    return supervisor.run(lambda: print(line, flush=True))
