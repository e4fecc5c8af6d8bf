"""API 3.0: the control plane in JSON, requests signed in their head."""

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from penstock.engine.errors import EngineError
from penstock.server._wire import HttpRequest
from penstock.server.broker.cmq.faults import CmqError, Fault, fault_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.errors import BrokerError, refusal
from penstock.server.protocols.cmq_http.admission import Admission
from penstock.server.protocols.cmq_http.api3_queues import QueueActions
from penstock.server.protocols.cmq_http.api3_topics import TopicActions
from penstock.server.protocols.cmq_http.tc3 import claim_of, genuine
from penstock.server.protocols.cmq_http.v2_messages import MessageActions

VERSION = "2020-02-17"
EXPIRE_S = 300
Fields = dict[str, Any]
Action = Callable[[Fields, int], Fields]

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
    """Answers requests that have an X-TC-Action."""

    def __init__(
        self, queues: CmqQueues, topics: CmqTopics, messages: MessageActions, admission: Admission
    ) -> None:
        self.call = messages.call
        self.admission = admission
        self.actions: dict[str, Action] = {
            **QueueActions(queues, messages).actions, **TopicActions(topics).actions,
        }

    async def answer(self, request: HttpRequest, request_id: str) -> Fields:
        """The whole reply. Never raises."""
        try:
            said = await self.act(request)
        except CmqError as error:
            said = {"Error": {"Code": code_of(error), "Message": error.text}}
        except BrokerError as error:
            said = refused(fault_of(error))
        except EngineError as error:
            said = refused(fault_of(refusal(error)))
        except Exception:
            traceback.print_exc(file=sys.stderr)
            said = {"Error": {"Code": "InternalError", "Message": "the request failed"}}
        return {"Response": {**said, "RequestId": request_id}}

    async def act(self, request: HttpRequest) -> Fields:
        head = {name.decode(): value.decode("utf-8", "replace")
                for name, value in request.given.items()}
        head["host"] = (request.host or b"").decode("ascii", "replace")
        head["content-type"] = (request.content_type or b"").decode("ascii", "replace")
        now_us = time.time_ns() // 1000
        self.admit(request, head, now_us)
        action = self.actions.get(head["x-tc-action"])
        if action is None:
            raise CmqError(Fault.ACTION, head["x-tc-action"])
        if head.get("x-tc-version", VERSION) != VERSION:
            raise CmqError(Fault.UNREADABLE, f"the version is {VERSION}")
        try:
            fields = msgspec.json.decode(request.body or b"{}")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise CmqError(Fault.UNREADABLE, str(error)) from error
        if not isinstance(fields, dict):
            raise CmqError(Fault.UNREADABLE, "the body is a JSON object")
        return await self.call(action, fields, now_us)

    def admit(self, request: HttpRequest, head: Mapping[str, str], now_us: int) -> None:
        secrets = self.admission.keys.secrets()
        if not secrets:
            if not request.local:
                raise CmqError(Fault.SECRET_ID, "there is no access key yet")
            return
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
        if abs(int(moment) - now_us // 1_000_000) > (self.admission.clock_s or EXPIRE_S):
            raise ExpiredError()


class ExpiredError(CmqError):
    """A good signature that is too old, or of a clock that is wrong."""

    def __init__(self) -> None:
        super().__init__(Fault.AUTHENTICATION, "the signature is older than five minutes")


def refused(error: CmqError) -> Fields:
    return {"Error": {"Code": code_of(error), "Message": error.text}}


def code_of(error: CmqError) -> str:
    """The error's name in API 3.0."""
    if isinstance(error, ExpiredError):
        return "AuthFailure.SignatureExpire"
    found = CODES.get(error.fault)
    if found is None:
        found = "InvalidParameterValue" if error.fault.code == 4000 else (
            "FailedOperation.CmqBackendError")
    return found
