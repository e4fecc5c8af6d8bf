"""The CMQ door on the HTTP port: v2 and API 3.0 told apart, requests judged, replies written."""

import random
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec

from penstock.engine._core import Consumer
from penstock.engine.errors import EngineError
from penstock.server._wire import (
    CallRates,
    CmqHot,
    FirstTimes,
    HttpRequest,
    Hub,
    MessageNames,
    Repeats,
)
from penstock.server.bridge import Bridge
from penstock.server.broker.access import Keys, key_number
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import VERDICTS, CmqError, Fault, fault_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.errors import BrokerError, refusal
from penstock.server.metrics.cmq import OTHER, V2, CmqCalls, outcome_of
from penstock.server.protocols.cmq_http.admission import Admission
from penstock.server.protocols.cmq_http.api3 import Api3
from penstock.server.protocols.cmq_http.api3_fields import asks_api3
from penstock.server.protocols.cmq_http.asked import Answer, Ask
from penstock.server.protocols.cmq_http.form import Form, pairs_of
from penstock.server.protocols.cmq_http.repeated import Repeated
from penstock.server.protocols.cmq_http.v2_messages import MessageActions
from penstock.server.protocols.cmq_http.v2_queues import QueueActions
from penstock.server.protocols.cmq_http.v2_topics import TopicActions

PATHS = ("/v2/index.php", "/", "//v2/index.php", "/v2/index.php/v2/index.php", "//")
JSON = b"Content-Type: application/json\r\n"
WAITING = {"receivemessage", "batchreceivemessage"}
Route = tuple[int, int, int, int, int, Consumer]
Response = tuple[int, bytes, bytes]


class CmqDoor:
    """Answers what stands at its paths; the HTTP door hands it on.

    Invariant: whatever is asked is answered with status 200: clients lose the code with any other.
    """

    def __init__(
        self, broker: Broker, bridge: Bridge, keys: Keys, rules: Rules, *,
        names: MessageNames, rates: CallRates, calls: CmqCalls, firsts: FirstTimes,
        repeats: Repeats, clock_s: int = 0, strict_signatures: bool = False,
    ) -> None:
        self.hub: Hub | None = None
        self.broker = broker
        self.queues = CmqQueues(broker, rules)
        self.topics = CmqTopics(broker, rules, names)
        self.admission = Admission(keys, clock_s, strict_signatures)
        self.messages = MessageActions(
            self, self.queues, self.topics, bridge, rules, firsts, rates)
        self.actions: dict[str, Callable[[Ask], Answer]] = {
            **QueueActions(self.queues).actions, **TopicActions(self.topics).actions,
            **self.messages.actions,
        }
        self.rates = rates
        self.calls = calls
        calls.gauges[0] = lambda: self.messages.parked
        self.repeated = Repeated(self.admission, bridge, repeats)
        self.api3 = Api3(self.queues, self.topics, self.messages, self.admission, self.repeated,
                         rates, calls)
        self.firsts = firsts
        self.hot: CmqHot | None = None

    def serve(self, hub: Hub) -> CmqHot:
        """The hot path of this door on the hub's connections."""
        self.hub = hub
        self.hot = CmqHot(
            hub, self, self.firsts, self.repeated.repeats, random.getrandbits(48),
            self.admission.clock_s, limited=self.rates.limit > 0)
        self.calls.add(V2, self.hot.counted)
        return self.hot

    # What the hot path asks.

    def route(self, name: bytes) -> Route | None:
        """What it has to know of a queue; None if there is none of that name."""
        try:
            found = self.queues.find(name.decode())
        except (CmqError, UnicodeDecodeError):
            return None
        most = found.defaults.message_bytes or self.broker.limits.message_bytes
        return (found.queue.id, found.defaults.lease_ms, found.defaults.wait_ms,
                min(most, self.broker.limits.message_bytes), found.defaults.messages, found.group)

    def pairs(self) -> dict[str, tuple[str, int]]:
        """Every secret by its id, and the number that quotas know the id by."""
        secrets = self.admission.keys.secrets()
        return {id: (secret, key_number(id)) for id, secret in secrets.items()}

    def failed(self, shape: int, verdict: int) -> bytes:
        """The beginning of the reply to an operation that the store refused after it was staged."""
        fault = VERDICTS.get(verdict, Fault.INTERNAL)
        return msgspec.json.encode({"code": fault.code, "message": fault.text})[:-1]

    def wants(self, path: str) -> bool:
        """Whether the request is for CMQ."""
        return path in PATHS

    async def answer(self, request: HttpRequest) -> Response:
        """Status, head and body for one request. Never raises."""
        if asks_api3(request):
            body = await self.api3.answer(request, self.request_id())
        else:
            body = await self.answer_v2(request)
        return 200, JSON, msgspec.json.encode(body)

    def request_id(self) -> str:
        assert self.hot is not None
        return str(self.hot.next())

    async def answer_v2(self, request: HttpRequest) -> Answer:
        reply = Reply({"code": 0, "message": "", "requestId": self.request_id()})
        try:
            reply.said |= await self.act(request, reply)
        except CmqError as error:
            reply.said |= said(error)
        except BrokerError as error:
            reply.said |= said(fault_of(error))
        except EngineError as error:
            reply.said |= said(fault_of(refusal(error)))
        except Exception:
            # A bug of ours must cost one request, not the connection of a stranger.
            traceback.print_exc(file=sys.stderr)
            reply.said |= said(CmqError(Fault.INTERNAL))
        self.calls.count(V2, reply.action, outcome_of(reply.said["code"]))
        return reply.said

    async def act(self, request: HttpRequest, reply: "Reply") -> Answer:
        path, _, query = request.url.partition(b"?")
        if request.method not in (b"GET", b"POST"):
            raise CmqError(Fault.METHOD)
        pairs = pairs_of(request.body if request.method == b"POST" and request.body else query)
        form = Form(pairs)
        if form.values.get("clientRequestId", "").isdecimal():
            reply.said["clientRequestId"] = int(form.values["clientRequestId"])
        now_us = time.time_ns() // 1000
        key = self.admission.admit(request, path, pairs, form)
        if key:
            self.admission.check_clock(form.needed("Timestamp"), now_us)
        action = reply.action = form.text("Action").lower()
        ask = Ask(action, form, now_us, self.addresses(request), request, key)
        self.messages.limit(ask)
        if action in WAITING:
            return await self.messages.waiting[action](ask)
        handler = self.actions.get(action)
        if handler is None:
            raise CmqError(Fault.ACTION, form.text("Action"))
        return await self.repeated.once(
            form, partial(handler, ask), messages=action in self.messages.actions)

    def addresses(self, request: HttpRequest) -> list[str]:
        """Where the TCP door is: as it was named, or on the address that this client reached."""
        told = self.broker.doors.get("cmq-tcp", "")
        host, _, port = told.rpartition(":")
        if not told or host:
            return [told] if told else []
        here = request.here
        return [f"[{here}]:{port}" if ":" in here else f"{here}:{port}"]


@dataclass(slots=True)
class Reply:
    """What is answered, and to which action."""

    said: Answer
    action: str = OTHER


def said(error: CmqError) -> dict[str, Any]:
    return {"code": error.fault.code, "message": error.text}
