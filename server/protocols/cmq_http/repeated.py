"""What signed requests came to, for when one comes again because its answer was lost."""

import base64
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from penstock.server._wire import Repeats, names_after
from penstock.server.bridge import Bridge
from penstock.server.broker.cmq.faults import Fault
from penstock.server.broker.cmq.ids import GIVEN
from penstock.server.protocols.cmq_http.admission import Admission
from penstock.server.protocols.cmq_http.form import Form

Answer = dict[str, Any]
ANSWERS = 4096
PATIENCE_S = 3.0
DONE = 1 << 32


class Repeated:
    """The answers to signed requests.

    Invariants:
      1. answers holds those to what changed queues, topics and subscriptions, the newest ANSWERS.
      2. What became of messages is known to all workers, as one number each: their repetitions may
         come to any of them.
    """

    def __init__(self, admission: Admission, bridge: Bridge, repeats: Repeats) -> None:
        self.admission = admission
        self.call = bridge.call
        self.repeats = repeats
        self.answers: OrderedDict[str, Answer] = OrderedDict()

    async def once(
        self, form: Form, handler: Callable[[], Answer], *, messages: bool = False
    ) -> Answer:
        """The answer; to a signed request that was answered before, the same one. messages: whether
        the handler sends, publishes or deletes some."""
        if not self.admission.tells_repeats(form):
            return await self.call(handler)
        signature = form.values["Signature"]
        if messages:
            return await self.call(self.done_once, signature, form, handler)
        if signature not in self.answers:
            self.answers[signature] = await self.call(handler)
            if len(self.answers) > ANSWERS:
                self.answers.popitem(last=False)
        return self.answers[signature]

    def done_once(self, signature: str, form: Form, handler: Callable[[], Answer]) -> Answer:
        """The same for what another worker, or the hot path, may have done, or is doing."""
        name = int.from_bytes(base64.b64decode(signature)[:8], "little") | 1
        deadline = time.monotonic() + PATIENCE_S
        while (result := self.repeats.told(name)) == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        if result:
            return answer_of(result, form)
        now_s = time.time_ns() // 1_000_000_000
        self.repeats.note(name, now_s, 0)
        try:
            answer = handler()
        except BaseException:
            self.repeats.forget(name)
            raise
        self.repeats.note(name, now_s, number_of(answer, form))
        return answer


def number_of(answer: Answer, form: Form) -> int:
    """An answer as a number: the id of the (first) message, or which deletions failed."""
    if "msgId" in answer:
        return int(answer["msgId"])
    if "msgList" in answer:
        return int(answer["msgList"][0]["msgId"])
    failed = {row["receiptHandle"] for row in answer.get("errorList", ())}
    handles = form.list("receiptHandle")
    return DONE | sum(1 << at for at, handle in enumerate(handles) if handle in failed)


def answer_of(number: int, form: Form) -> Answer:
    """The answer that was told as that number."""
    if "receiptHandle" in form.values:
        return {}
    handles = form.list("receiptHandle")
    if handles:
        return deleted(handles, [at for at in range(len(handles)) if number >> at & 1])
    if "msgBody" in form.values:
        return {"msgId": str(number)}
    return sent(ids_after(number, len(form.list("msgBody"))))


def ids_after(first: int, count: int) -> Sequence[int]:
    """The ids of the messages of one batch."""
    return names_after(first, count) if first >= GIVEN else range(first, first + count)


def sent(ids: Sequence[int]) -> Answer:
    """What is told of a batch of messages."""
    return {"msgList": [{"msgId": str(one)} for one in ids]}


def deleted(handles: list[str], failed: list[int]) -> Answer:
    """What is told of a batch of deletions; failed: the places of those that named nothing."""
    if not failed:
        return {}
    fault = Fault.NONE_DELETED if len(failed) == len(handles) else Fault.SOME_DELETED
    rows = [{"code": Fault.HANDLE.code, "message": Fault.HANDLE.text, "receiptHandle": handles[at]}
            for at in failed]
    return {"code": fault.code, "message": fault.text, "errorList": rows}
