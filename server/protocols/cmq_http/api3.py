"""API 3.0: the control plane. Requests are signed in their head (TC3), or as v2's in their form."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from penstock.engine.errors import EngineError
from penstock.server._wire import CallRates, HttpRequest
from penstock.server.broker.access import key_number
from penstock.server.broker.cmq.faults import CmqError, Fault, fault_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.errors import BrokerError, refusal
from penstock.server.metrics.cmq import API3, OK, OTHER, CmqCalls, outcome_of
from penstock.server.protocols.cmq_http.admission import Admission
from penstock.server.protocols.cmq_http.api3_fields import Fields, fields_of, form_fields
from penstock.server.protocols.cmq_http.api3_queues import QueueActions
from penstock.server.protocols.cmq_http.api3_topics import TopicActions
from penstock.server.protocols.cmq_http.form import Form, pairs_of
from penstock.server.protocols.cmq_http.repeated import Repeated
from penstock.server.protocols.cmq_http.tc3 import claim_of, genuine
from penstock.server.protocols.cmq_http.v2_messages import MessageActions

VERSION = "2020-02-17"
EXPIRE_S = 300
# Numbered behind v2's, with the field that names the queue or the topic.
LIMITED = {"SendCmqMsg": (8, "QueueName"), "PublishCmqMsg": (9, "TopicName")}
Action = Callable[[Fields, int], Fields]
Sending = Callable[[Fields, int, int], Fields]

CODES: dict[Fault, str] = {
    Fault.AUTHENTICATION: "AuthFailure.SignatureFailure",
    Fault.SECRET_ID: "AuthFailure.SecretIdNotFound",
    Fault.ACTION: "InvalidAction",
    Fault.MISSING: "MissingParameter",
    Fault.MISSING_ONE: "MissingParameter",
    Fault.UNREADABLE: "InvalidParameter",
    Fault.WRONG_TYPE: "InvalidParameter",
    Fault.QUEUE_EXISTS: "ResourceInUse.Queue",
    Fault.TOPIC_EXISTS: "ResourceInUse.Topic",
    Fault.SUBSCRIPTION_EXISTS: "ResourceInUse.Subscription",
    Fault.NO_QUEUE: "ResourceNotFound",
    Fault.NO_TOPIC: "ResourceNotFound.Topic",
    Fault.NO_SUBSCRIPTION_OF_NAME: "ResourceNotFound.Subscription",
    Fault.INTERNAL: "InternalError",
}


class Api3:
    """Answers requests that have an X-TC-Action in their head, or a Version in their form."""

    def __init__(
        self, queues: CmqQueues, topics: CmqTopics, messages: MessageActions, admission: Admission,
        repeated: Repeated, rates: CallRates, calls: CmqCalls,
    ) -> None:
        self.call = messages.call
        self.admission = admission
        self.repeated = repeated
        self.rates = rates
        self.calls = calls
        of_queues, of_topics = QueueActions(queues, messages), TopicActions(topics)
        self.actions: dict[str, Action] = {**of_queues.actions, **of_topics.actions}
        self.sending: dict[str, Sending] = {**of_queues.sending, **of_topics.sending}

    async def answer(self, request: HttpRequest, request_id: str) -> Fields:
        """The whole reply. Never raises."""
        called, outcome = Called(), OK
        try:
            said = await self.act(request, called)
        except CmqError as error:
            said, outcome = refused(error)
        except BrokerError as error:
            said, outcome = refused(fault_of(error))
        except EngineError as error:
            said, outcome = refused(fault_of(refusal(error)))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            said, outcome = refused(CmqError(Fault.INTERNAL, "the request failed"))
        self.calls.count(API3, called.action, outcome)
        return {"Response": {**said, "RequestId": request_id}}

    async def act(self, request: HttpRequest, called: "Called") -> Fields:
        if request.method not in (b"GET", b"POST"):
            raise CmqError(Fault.METHOD)
        if b"x-tc-action" in request.given:
            return await self.signed_in_head(request, called)
        return await self.signed_in_form(request, called)

    async def signed_in_head(self, request: HttpRequest, called: "Called") -> Fields:
        head = {name.decode(): value.decode("utf-8", "replace")
                for name, value in request.given.items()}
        head["host"] = (request.host or b"").decode("ascii", "replace")
        head["content-type"] = (request.content_type or b"").decode("ascii", "replace")
        now_us = time.time_ns() // 1000
        key = self.admit(request, head, now_us)
        called.action = head["x-tc-action"]
        action = self.action(called.action, head.get("x-tc-version", VERSION), key)
        fields = fields_of(request, head["content-type"])
        self.limit(called.action, fields)
        # No number tells a repetition from the same request of the same second.
        return await self.call(action, fields, now_us)

    async def signed_in_form(self, request: HttpRequest, called: "Called") -> Fields:
        path, _, query = request.url.partition(b"?")
        pairs = pairs_of(request.body or query)
        form = Form(pairs)
        now_us = time.time_ns() // 1000
        key = self.admission.admit(request, path, pairs, form)
        if key:
            self.timely(form.needed("Timestamp"), now_us)
        called.action = form.text("Action")
        action = self.action(called.action, form.text("Version"), key)
        fields = form_fields(form)
        self.limit(called.action, fields)
        return await self.repeated.once(form, partial(action, fields, now_us))

    def limit(self, action: str, fields: Fields) -> None:
        """Raises THROTTLED if there were as many such calls of this second as are allowed."""
        named = LIMITED.get(action)
        if named and not self.rates.admit(named[0], str(fields.get(named[1])).encode()):
            raise CmqError(Fault.THROTTLED)

    def action(self, name: str, version: str, key: int) -> Action:
        """What an action does; key: the number of the key that the request is signed with."""
        found = self.actions.get(name)
        send = self.sending.get(name)
        if send is not None:
            found = partial(signed, send, key)
        if found is None:
            raise CmqError(Fault.ACTION, name)
        if version != VERSION:
            raise CmqError(Fault.UNREADABLE, f"the version is {VERSION}")
        return found

    def timely(self, moment_s: int, now_us: int) -> None:
        """Raises that a good signature is of another time."""
        if abs(moment_s - now_us // 1_000_000) > (self.admission.clock_s or EXPIRE_S):
            raise ExpiredError()

    def admit(self, request: HttpRequest, head: Mapping[str, str], now_us: int) -> int:
        """The number of the key it is signed with, 0 if there is none. Raises why not."""
        secrets = self.admission.keys.secrets()
        if not secrets:
            self.admission.admit_open(request)
            return 0
        claim = claim_of(head.get("authorization", ""))
        moment = head.get("x-tc-timestamp", "")
        if claim is None or not moment.isascii() or not moment.isdecimal() or len(moment) > 12:
            raise CmqError(Fault.AUTHENTICATION)
        path, _, query = request.url.decode("ascii", "replace").partition("?")
        secret = secrets.get(claim.id)
        good = genuine(secret or claim.id, claim, request.method.decode(), path, query, head,
                       request.body, int(moment))
        if secret is None:
            raise CmqError(Fault.SECRET_ID)
        if not good:
            raise CmqError(Fault.AUTHENTICATION)
        self.timely(int(moment), now_us)
        return key_number(claim.id)


def signed(send: Sending, key: int, fields: Fields, now_us: int) -> Fields:
    """What sends, with the key that it is charged to."""
    return send(fields, now_us, key)


class ExpiredError(CmqError):
    """A good signature that is too old, or of a clock that is wrong."""

    def __init__(self) -> None:
        super().__init__(Fault.AUTHENTICATION, "the signature is older than five minutes")


@dataclass(slots=True)
class Called:
    """The action of a request, as far as it was read."""

    action: str = OTHER


def refused(error: CmqError) -> tuple[Fields, int]:
    """What is told of it, and the outcome."""
    told = {"Error": {"Code": code_of(error), "Message": error.text}}
    return told, outcome_of(error.fault.code)


def code_of(error: CmqError) -> str:
    """The error's name in API 3.0."""
    if isinstance(error, ExpiredError):
        return "AuthFailure.SignatureExpire"
    found = CODES.get(error.fault)
    if found is None:
        found = "InvalidParameterValue" if error.fault.code == 4000 else (
            "FailedOperation.CmqBackendError")
    return found
