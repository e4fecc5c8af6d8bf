"""The CMQ door on the HTTP port: v2 and API 3.0 told apart, requests judged, replies written."""

import base64
import random
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engine._core import Consumer
from penstock.engine.errors import EngineError
from penstock.server._wire import CmqHot, FirstTimes, HttpRequest, Hub, Repeats
from penstock.server.bridge import Bridge
from penstock.server.broker.access import Keys
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import VERDICTS, CmqError, Fault, fault_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.errors import BrokerError, refusal
from penstock.server.protocols.cmq_http.admission import Admission
from penstock.server.protocols.cmq_http.api3 import Api3
from penstock.server.protocols.cmq_http.asked import Answer, Ask
from penstock.server.protocols.cmq_http.form import Form, pairs_of
from penstock.server.protocols.cmq_http.v2_messages import MessageActions
from penstock.server.protocols.cmq_http.v2_queues import QueueActions
from penstock.server.protocols.cmq_http.v2_topics import TopicActions

PATHS = ("/v2/index.php", "/", "//v2/index.php", "/v2/index.php/v2/index.php", "//")
JSON = b"Content-Type: application/json\r\n"
REPEATS = 4096
WAITING = {"receivemessage", "batchreceivemessage"}
# What the hot path does as well: its repetitions are known to all workers.
HOT = {"sendmessage", "deletemessage"}
PATIENCE_S = 3.0
Route = tuple[int, int, int, int, int, Consumer]
Response = tuple[int, bytes, bytes]


class CmqDoor:
    """Answers what stands at its paths; the HTTP door hands it on.

    Invariants:
      1. Whatever is asked is answered with status 200: clients lose the code with any other.
      2. answers holds the replies to signed requests that changed something, the newest REPEATS.
    """

    def __init__(
        self, broker: Broker, bridge: Bridge, keys: Keys, rules: Rules, *,
        firsts: FirstTimes, repeats: Repeats, clock_s: int = 0, strict_signatures: bool = False,
    ) -> None:
        self.hub: Hub | None = None
        self.broker = broker
        self.call = bridge.call
        self.queues = CmqQueues(broker, rules)
        self.topics = CmqTopics(broker, rules)
        self.admission = Admission(keys, clock_s, strict_signatures)
        self.messages = MessageActions(self, self.queues, self.topics, bridge, rules, firsts)
        self.actions: dict[str, Callable[[Ask], Answer]] = {
            **QueueActions(self.queues).actions, **TopicActions(self.topics).actions,
            **self.messages.actions,
        }
        self.api3 = Api3(self.queues, self.topics, self.messages, self.admission)
        self.firsts = firsts
        self.repeats = repeats
        self.hot: CmqHot | None = None
        self.answers: OrderedDict[str, Answer] = OrderedDict()

    def serve(self, hub: Hub) -> CmqHot:
        """The hot path of this door on the hub's connections."""
        self.hub = hub
        self.hot = CmqHot(
            hub, self, self.firsts, self.repeats, random.getrandbits(48), self.admission.clock_s)
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

    def pairs(self) -> dict[str, str]:
        """Every secret by its id."""
        return self.admission.keys.secrets()

    def failed(self, shape: int, verdict: int) -> bytes:
        """The beginning of the reply to an operation that the store refused after it was staged."""
        fault = VERDICTS.get(verdict, Fault.INTERNAL)
        return msgspec.json.encode({"code": fault.code, "message": fault.text})[:-1]

    def wants(self, path: str) -> bool:
        """Whether the request is for CMQ."""
        return path in PATHS

    async def answer(self, request: HttpRequest) -> Response:
        """Status, head and body for one request. Never raises."""
        if b"x-tc-action" in request.given:
            body = await self.api3.answer(request, self.request_id())
        else:
            body = await self.answer_v2(request)
        return 200, JSON, msgspec.json.encode(body)

    def request_id(self) -> str:
        assert self.hot is not None
        return str(self.hot.next())

    async def answer_v2(self, request: HttpRequest) -> Answer:
        envelope: Answer = {"code": 0, "message": "", "requestId": self.request_id()}
        try:
            return envelope | await self.act(request, envelope)
        except CmqError as error:
            return envelope | said(error)
        except BrokerError as error:
            return envelope | said(fault_of(error))
        except EngineError as error:
            return envelope | said(fault_of(refusal(error)))
        except Exception:
            # A bug of ours must cost one request, not the connection of a stranger.
            traceback.print_exc(file=sys.stderr)
            return envelope | said(CmqError(Fault.INTERNAL))

    async def act(self, request: HttpRequest, envelope: Answer) -> Answer:
        path, _, query = request.url.partition(b"?")
        method = request.method.decode()
        if method not in ("GET", "POST"):
            raise CmqError(Fault.METHOD)
        pairs = pairs_of(request.body if method == "POST" and request.body else query)
        form = Form(pairs)
        if form.values.get("clientRequestId", "").isdecimal():
            envelope["clientRequestId"] = int(form.values["clientRequestId"])
        now_us = time.time_ns() // 1000
        host = (request.host or b"").decode("ascii", "replace")
        self.admission.admit(
            method, host, path.decode("ascii", "replace"), pairs, form, request.local, now_us)
        action = form.text("Action").lower()
        ask = Ask(action, form, now_us, self.addresses(request), request)
        if action in WAITING:
            return await self.messages.waiting[action](ask)
        handler = self.actions.get(action)
        if handler is None:
            raise CmqError(Fault.ACTION, form.text("Action"))
        return await self.once(form, handler, ask)

    async def once(self, form: Form, handler: Callable[[Ask], Answer], ask: Ask) -> Answer:
        """The answer; to a signed request that was answered before, the same one."""
        if not self.admission.tells_repeats(form):
            return await self.call(handler, ask)
        signature = form.values["Signature"]
        if signature in self.answers:
            return self.answers[signature]
        if ask.action in HOT:
            return await self.call(self.done_once, signature, handler, ask)
        answer = await self.call(handler, ask)
        self.answers[signature] = answer
        if len(self.answers) > REPEATS:
            self.answers.popitem(last=False)
        return answer

    def done_once(self, signature: str, handler: Callable[[Ask], Answer], ask: Ask) -> Answer:
        """The same for what the hot path may have done, or is doing, in any worker."""
        name = int.from_bytes(base64.b64decode(signature)[:8], "little") | 1
        deadline = time.monotonic() + PATIENCE_S
        while (result := self.repeats.told(name)) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        if result:
            return {"msgId": str(result)} if ask.action == "sendmessage" else {}
        self.repeats.note(name, ask.now_us // 1_000_000, 0)
        try:
            answer = handler(ask)
        except Exception:
            self.repeats.forget(name)
            raise
        self.repeats.note(name, ask.now_us // 1_000_000, int(answer.get("msgId", 1)))
        return answer

    def addresses(self, request: HttpRequest) -> list[str]:
        """Where the TCP door is: as it was named, or on the address that this client reached."""
        told = self.broker.doors.get("cmq-tcp", "")
        host, _, port = told.rpartition(":")
        if not told or host:
            return [told] if told else []
        here = request.here
        return [f"[{here}]:{port}" if ":" in here else f"{here}:{port}"]


def said(error: CmqError) -> dict[str, Any]:
    return {"code": error.fault.code, "message": error.text}
