"""The CMQ door on the HTTP port: v2 and API 3.0 told apart, requests judged, replies written."""

import itertools
import random
import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engine.errors import EngineError
from penstock.server._wire import FirstTimes, HttpRequest, Hub
from penstock.server.bridge import Bridge
from penstock.server.broker.access import Keys
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import CmqError, Fault, fault_of
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
REPEATED = {"receivemessage", "batchreceivemessage"}
Response = tuple[int, bytes, bytes]


class CmqDoor:
    """Answers what stands at its paths; the HTTP door hands it on.

    Invariants:
      1. Whatever is asked is answered with status 200: clients lose the code with any other.
      2. answers holds the replies to signed requests that changed something, the newest REPEATS.
    """

    def __init__(
        self, broker: Broker, bridge: Bridge, keys: Keys, rules: Rules, *,
        firsts: FirstTimes, clock_s: int = 0, strict_signatures: bool = False,
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
        self.numbers = itertools.count(random.getrandbits(48))
        self.answers: OrderedDict[str, Answer] = OrderedDict()

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
        return str(next(self.numbers))

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
        if action in REPEATED:
            return await self.messages.waiting[action](ask)
        handler = self.actions.get(action)
        if handler is None:
            raise CmqError(Fault.ACTION, form.text("Action"))
        return await self.once(form, handler, ask)

    async def once(self, form: Form, handler: Callable[[Ask], Answer], ask: Ask) -> Answer:
        """The answer; to a signed request that was answered before, the same one."""
        signature = form.values.get("Signature", "")
        remembered = self.admission.tells_repeats(form)
        if remembered and signature in self.answers:
            return self.answers[signature]
        answer = await self.call(handler, ask)
        if remembered:
            self.answers[signature] = answer
            if len(self.answers) > REPEATS:
                self.answers.popitem(last=False)
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
