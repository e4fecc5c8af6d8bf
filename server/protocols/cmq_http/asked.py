"""One v2 request, taken apart, as its action gets it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.server._wire import HttpRequest
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.protocols.cmq_http.form import Form

Answer = dict[str, Any]
Action = Callable[["Ask"], Answer]
LISTED, LIST_LIMIT = 20, 50


@dataclass(frozen=True, slots=True)
class Ask:
    """addresses: where the TCP door is, as the client of this connection can reach it; connected:
    whether there is still somebody to answer to request; key: the number of its access key."""

    action: str
    form: Form
    now_us: int
    addresses: list[str]
    request: HttpRequest | None
    key: int = 0

    def connected(self) -> bool:
        return self.request is None or self.request.connected

    def policy(self) -> dict[str, Any]:
        """What the parameter deadLetterPolicy, a JSON object, says."""
        raw = self.form.values.get("deadLetterPolicy")
        if not raw:
            return {}
        try:
            said = msgspec.json.decode(raw, type=Policy)
        except (msgspec.DecodeError, RecursionError) as error:
            raise CmqError(Fault.WRONG_TYPE, f"deadLetterPolicy: {error}") from error
        return {"dead_letter": said.deadLetterQueue, "policy": said.policy,
                "max_receive": said.maxReceiveCount, "dead_after_s": said.maxTimeToLive}


class Policy(msgspec.Struct):
    """deadLetterPolicy."""

    deadLetterQueue: str
    policy: int = 0
    maxReceiveCount: int | None = None
    maxTimeToLive: int | None = None


def page(ask: Ask) -> tuple[str, int, int]:
    """What a list asks for: the text in the names, from which on, how many."""
    offset = ask.form.number("offset", 0) or 0
    limit = ask.form.number("limit", LISTED)
    if offset < 0 or limit is None or not 1 <= limit <= LIST_LIMIT:
        raise CmqError(Fault.OUT_OF_RANGE, f"offset is 0 and more, limit 1 to {LIST_LIMIT}")
    return ask.form.values.get("searchWord", ""), offset, limit
