"""The HTTP door: which function answers which target, and what becomes of what it raises."""

import sys
import traceback
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qsl, unquote

import msgspec

from penstock.engine.errors import EngineError
from penstock.server._wire import CmqHot, HttpConnection, HttpRequest, Hub
from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.protocols.http.carried import Fields, from_fields
from penstock.server.broker.seeing import Seeing
from penstock.server.metrics.board import Board
from penstock.server.protocols.http.looking import Looking
from penstock.server.protocols.http.observe import Observer
from penstock.server.protocols.http.problem import (
    REASONS,
    Response,
    not_allowed,
    problem,
    render,
)
from penstock.server.protocols.http.quotas import PushTargets, QuotaTargets
from penstock.server.protocols.http.queues import Call, Queues
from penstock.server.protocols.http.topics import TopicTargets
from penstock.server.protocols.http.waiting import WaitingTargets

# The wire's verdicts of a drained operation, see docs/wire.md.
VERDICTS = {
    3: Kind.NOT_FOUND,
    5: Kind.TOO_LARGE,
    6: Kind.STORE_FULL,
    7: Kind.POISONED,
    8: Kind.BUSY,
    12: Kind.CORRUPT,
}

Answering = Callable[[HttpRequest], Awaitable[Response]]


class HttpDoor:
    """Called by the loop once a connection; answers what the lane does not."""

    def __init__(
        self, broker: Broker, bridge: Bridge, durability: str, board: Board | None = None
    ) -> None:
        self.hub: Hub | None = None
        self.ready = True
        self.reasons = REASONS
        self.queues = Queues(self, broker, bridge, durability)
        self.topics = TopicTargets(self, broker, bridge, durability)
        seeing = Seeing(broker)
        self.looking = Looking(seeing, bridge)
        for depth, handlers in self.looking.verbs.items():
            self.queues.verbs.setdefault(depth, {}).update(handlers)
        self.observer = Observer(self, seeing, board)
        self.quotas = QuotaTargets(broker, bridge)
        self.pushes = PushTargets(broker, bridge)
        self.waiting = WaitingTargets(self, broker, bridge, durability)
        # Other protocols on the same port: whether a path is theirs, and who answers then.
        self.beside: list[tuple[Callable[[str], bool], Answering]] = []
        # What another protocol's plain requests go through before they get here.
        self.hot: CmqHot | None = None

    def __call__(self) -> HttpConnection:
        assert self.hub is not None
        return HttpConnection(self.hub, self)

    async def answer(self, request: HttpRequest) -> Response:
        """Status, head and body for one request. Never raises."""
        try:
            return await self.route(request)
        except BrokerError as error:
            return problem(error)
        except EngineError as error:
            return problem(refusal(error))
        except RecursionError:
            return render(400, Kind.INVALID, "the JSON has too many levels")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return render(400, Kind.INVALID, str(error))
        except Exception:
            # A bug of ours must cost one request, not the connection of a stranger.
            traceback.print_exc(file=sys.stderr)
            return render(500, Kind.INTERNAL, "the request failed inside the server")

    async def route(self, request: HttpRequest) -> Response:
        for wants, answering in self.beside:
            # A target may be as long as a message: only its path is read as text.
            if wants(request.url.partition(b"?")[0].decode("ascii", "replace")):
                return await answering(request)
        path, _, query = request.url.decode("ascii").partition("?")
        method = request.method.decode()
        seen = self.observer.paths.get(path)
        if seen is not None:
            if method not in ("GET", "HEAD"):
                return not_allowed(["GET"])
            # The others must answer also when every thread is busy.
            return await self.looking.call(seen) if path == "/metrics" else seen()
        if path == "/v1/lag":
            if method not in ("GET", "HEAD"):
                return not_allowed(["GET"])
            return await self.looking.lag_all(Call("", dict(parse_qsl(query)), request))
        parts = path.split("/")
        if parts[:3] == ["", "v1", "push"] and len(parts) in (3, 4):
            pushed = unquote(parts[3]) if len(parts) == 4 else ""
            return await self.pushes.answer(method, pushed, request.body)
        if parts[:3] == ["", "v1", "quotas"] and len(parts) in (3, 5):
            scope, name = (parts[3], unquote(parts[4])) if len(parts) == 5 else ("", "")
            return await self.quotas.answer(method, scope, name, request.body)
        waiting = self.waiting.handlers(parts)
        if waiting:
            found = waiting.get("GET" if method == "HEAD" else method)
            if found is None:
                return not_allowed(waiting)
            id = unquote(parts[3]) if len(parts) > 3 else ""
            return await found(Call("", dict(parse_qsl(query)), request), id)
        topics = parts[:3] == ["", "v1", "topics"]
        most = 6 if parts[4:5] in (["groups"], ["offsets"], ["members"]) else 5
        if not topics and (parts[:3] != ["", "v1", "queues"] or len(parts) > most):
            return render(404, Kind.NOT_FOUND, "there is nothing at this target")
        name = unquote(parts[3]) if len(parts) > 3 else ""
        verb = parts[4] if len(parts) > 4 else ""
        depth = "list" if len(parts) == 3 else "queue" if len(parts) == 4 else verb
        verbs = self.queues.verbs
        handlers: dict[str, Callable[[Call], Awaitable[Response]]] = (
            self.topics.handlers(parts) if topics else verbs.get(depth, {})
        )
        if not handlers:
            return render(404, Kind.NOT_FOUND, "there is nothing at this target")
        handler = handlers.get("GET" if method == "HEAD" else method)
        if handler is None:
            return not_allowed(handlers)
        more = unquote(parts[5]) if len(parts) > 5 else ""
        return await handler(Call(name, dict(parse_qsl(query)), request, more))

    def packed(self, fields: Fields) -> bytes | None:
        """What the header fields of a send carry, as it is stored; None if they will be refused."""
        try:
            return from_fields(fields).pack()
        except (BrokerError, EngineError):
            return None

    def verdict(self, verdict: int) -> Response:
        """The reply to a send that the store refused after it was staged."""
        kind = VERDICTS.get(verdict, Kind.INTERNAL)
        return problem(BrokerError(kind, kind.value.replace("-", " ")))

    def refused(self, status: int, kind: str, text: str) -> Response:
        """The reply to bytes that are no request we take."""
        return render(status, Kind(kind), text)
