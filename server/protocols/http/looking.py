"""Looking into a store over HTTP: explain, find, trace, lag, rewind."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from penstock.server.bridge import Bridge
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.seeing import Seeing
from penstock.server.protocols.http.problem import Response, reply
from penstock.server.protocols.http.queues import Call

PROPERTY = "property."


class Looking:
    """The handlers by target and method; lag_all answers for every group there is."""

    def __init__(self, seeing: Seeing, bridge: Bridge) -> None:
        self.seeing = seeing
        self.call = bridge.call
        self.verbs: dict[str, dict[str, Callable[[Call], Awaitable[Response]]]] = {
            "explain": {"GET": lambda call: self.ask("explain", call)},
            "trace": {"GET": lambda call: self.ask("trace", call)},
            "lag": {"GET": lambda call: self.ask("lag", call)},
            "messages": {"GET": lambda call: self.ask("find", call)},
            "rewind": {"POST": self.rewind},
        }

    async def ask(self, do: str, call: Call) -> Response:
        fields: dict[str, Any] = {
            name: value for name, value in call.query.items() if not name.startswith(PROPERTY)
        }
        properties = {
            name.removeprefix(PROPERTY): value
            for name, value in call.query.items() if name.startswith(PROPERTY)
        }
        if properties:
            fields["properties"] = properties
        if "queue" in fields:
            raise BrokerError(Kind.INVALID, "the queue is named in the target, not in the query")
        return reply(await self.call(self.seeing, do, {**fields, "queue": call.name}))

    async def rewind(self, call: Call) -> Response:
        fields = msgspec.json.decode(call.request.body or b"{}")
        if not isinstance(fields, dict) or "queue" in fields:
            raise BrokerError(Kind.INVALID, "a rewind is a JSON object, its queue in the target")
        return reply(await self.call(self.seeing, "rewind", {**fields, "queue": call.name}))

    async def lag_all(self, call: Call) -> Response:
        """GET /v1/lag: every group of every queue, in steps."""
        return reply(await self.call(self.seeing, "lag", dict(call.query)))
