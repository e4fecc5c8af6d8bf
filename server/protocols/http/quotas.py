"""What HTTP asks about quotas (/v1/quotas, /v1/quotas/SCOPE/NAME) and push subscriptions."""

import msgspec

from penstock.server.bridge import Bridge
from penstock.server.broker.broker import Broker
from penstock.server.broker.push import Pushes, Subscription
from penstock.server.broker.throttle import Quota, Quotas
from penstock.server.protocols.http.models import QuotaRow, QuotasReply
from penstock.server.protocols.http.problem import Response, not_allowed, reply


class PushTargets:
    """The answers about push subscriptions: /v1/push and /v1/push/NAME."""

    def __init__(self, broker: Broker, bridge: Bridge) -> None:
        self.pushes = Pushes(broker)
        self.call = bridge.call

    async def answer(self, method: str, name: str, body: bytes) -> Response:
        allowed = ["PUT", "DELETE"] if name else ["GET"]
        if not name and method in ("GET", "HEAD"):
            return reply({"pushes": await self.call(self.pushes.shown)})
        if name and method == "PUT":
            subscription = msgspec.json.decode(body, type=Subscription)
            await self.call(self.pushes.set, name, subscription)
            return 204, b"", b""
        if name and method == "DELETE":
            await self.call(self.pushes.remove, name)
            return 204, b"", b""
        return not_allowed(allowed)


class QuotaTargets:
    """The answers by method."""

    def __init__(self, broker: Broker, bridge: Bridge) -> None:
        self.quotas = Quotas(broker)
        self.call = bridge.call

    async def answer(self, method: str, scope: str, name: str, body: bytes) -> Response:
        allowed = ["GET", "PUT", "DELETE"] if scope else ["GET"]
        if not scope and method in ("GET", "HEAD"):
            known = await self.call(self.quotas.all)
            rows = [QuotaRow(scope, name, quota) for (scope, name), quota in known.items()]
            return reply(QuotasReply(rows))
        if scope and method in ("GET", "HEAD"):
            return reply(await self.call(self.quotas.get, scope, name))
        if scope and method == "PUT":
            quota = msgspec.json.decode(body, type=Quota)
            await self.call(self.quotas.set, scope, name, quota)
            return reply(quota)
        if scope and method == "DELETE":
            await self.call(self.quotas.remove, scope, name)
            return 204, b"", b""
        return not_allowed(allowed)
