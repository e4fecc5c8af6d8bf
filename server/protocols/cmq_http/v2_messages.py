"""The v2 actions on messages. Those of one message that need not wait are answered before they get
here, by the hot path in C, as long as nothing about them is odd."""

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from penstock.engine._core import Batch, short_receipts, whole_receipts
from penstock.engine.attributes import Attributes
from penstock.server._wire import CallRates, FirstTimes
from penstock.server.bridge import Bridge
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.cmq.ids import id_of, placed_id
from penstock.server.broker.cmq.queues import CmqQueues, Found
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.metrics.cmq import ACTIONS, V2
from penstock.server.protocols.cmq_http.asked import Answer, Ask
from penstock.server.protocols.cmq_http.repeated import deleted, sent

if TYPE_CHECKING:
    from penstock.server.protocols.cmq_http.door import CmqDoor

SECOND_US = 1_000_000
DONE = 0
TAKE_BYTES = 4 << 20
# The actions on messages, as they are numbered for all doors.
CALLS = {action.lower(): at for at, action in enumerate(ACTIONS[V2][:8])}


class MessageActions:
    """By name. The receiving ones wait on the loop, the others are called on a thread."""

    def __init__(
        self, door: "CmqDoor", queues: CmqQueues, topics: CmqTopics, bridge: Bridge, rules: Rules,
        firsts: FirstTimes, rates: CallRates,
    ) -> None:
        self.door = door
        self.firsts = firsts
        self.queues = queues
        self.topics = topics
        self.call = bridge.call
        self.rules = rules
        self.rates = rates
        self.parked = 0
        self.actions: dict[str, Callable[[Ask], Answer]] = {
            "sendmessage": self.send, "batchsendmessage": self.send_many,
            "deletemessage": self.delete, "batchdeletemessage": self.delete_many,
            "publishmessage": self.publish, "batchpublishmessage": self.publish_many,
        }
        self.waiting = {
            "receivemessage": partial(self.receive, False),
            "batchreceivemessage": partial(self.receive, True),
        }

    def limit(self, ask: Ask) -> None:
        """Raises THROTTLED if there were as many such calls of this second as are allowed."""
        place = CALLS.get(ask.action)
        if place is not None and self.rates.limit:
            values = ask.form.values
            name = values.get("queueName") or values.get("topicName", "")
            if not self.rates.admit(place, name.encode()):
                raise CmqError(Fault.THROTTLED)

    # Sending.

    def send(self, ask: Ask) -> Answer:
        body = ask.form.text("msgBody")
        return {"msgId": str(self.sent(ask, [body])[0])}

    def send_many(self, ask: Ask) -> Answer:
        return sent(self.sent(ask, self.batch(ask, "msgBody")))

    def sent(self, ask: Ask, texts: list[str]) -> list[int]:
        """Store the messages, all or none; their ids."""
        found = self.queues.find(ask.form.text("queueName"))
        delay_s = ask.form.number("delaySeconds", 0) or 0
        bodies = [text.encode() for text in texts]
        self.fit(found, bodies)
        if not 0 <= delay_s <= self.rules.delay_s:
            raise CmqError(Fault.DELAY)
        self.admit(found, bodies, delay_s > 0, ask.key)
        if not delay_s:
            stored = found.queue.append_many(bodies)
            return [placed_id(found.queue.id, stored.offset + at) for at in range(len(bodies))]
        # Whole seconds, so that what was sent together arrives together.
        due_us = -(-(ask.now_us + delay_s * SECOND_US) // SECOND_US) * SECOND_US
        ids = self.topics.ids.give(ask.now_us, len(bodies))
        attributes = [Attributes(id=str(one)) for one in ids]
        found.queue.append_many(bodies, attributes=attributes, due_us=due_us)
        return ids

    def fit(self, found: Found, bodies: list[bytes]) -> None:
        """Raises what is wrong with the sizes of the messages, or with how many there are."""
        most = found.defaults.message_bytes or self.queues.broker.limits.message_bytes
        if not all(bodies):
            raise CmqError(Fault.EMPTY_BODY)
        if any(len(body) > most for body in bodies):
            raise CmqError(Fault.MESSAGE_SIZE)
        if len(bodies) > 1 and sum(map(len, bodies)) > self.rules.batch_bytes:
            raise CmqError(Fault.BATCH_BYTES)
        heap = found.defaults.messages
        if heap:
            stat = found.queue.stat()
            if stat["ready"] + stat["in_flight"] + len(bodies) > heap:
                raise CmqError(Fault.HEAP)

    def admit(self, found: Found, bodies: list[bytes], waits: bool, key: int) -> None:
        """Raises THROTTLED if a quota lets no send pass now."""
        size = sum(map(len, bodies))
        self.queues.broker.admit(found.queue.id, len(bodies), size, waits=waits, key=key)

    def batch(self, ask: Ask, name: str) -> list[str]:
        found = ask.form.list(name)
        if not found:
            raise CmqError(Fault.MISSING_ONE, f"{name}.n")
        if len(found) > self.rules.batch:
            raise CmqError(Fault.BATCH_SIZE)
        return found

    # Receiving.

    async def receive(self, many: bool, ask: Ask) -> Answer:
        found = await self.call(self.queues.find, ask.form.text("queueName"))
        count = ask.form.needed("numOfMsg") if many else 1
        if not 1 <= count <= self.rules.batch:
            raise CmqError(Fault.BATCH_SIZE)
        wait_s = ask.form.number("pollingWaitSeconds")
        wait_ms = found.defaults.wait_ms if wait_s is None else max(0, wait_s) * 1000
        deadline = time.monotonic() + min(wait_ms, self.rules.polling_s[1] * 1000) / 1000
        while True:
            messages = await self.taken(found, count, ask)
            left_ms = int((deadline - time.monotonic()) * 1000)
            hub = self.door.hub
            if messages:
                return {"msgInfoList": messages} if many else messages[0]
            if left_ms <= 0 or hub is None or hub.stopping or not ask.connected():
                raise CmqError(Fault.NO_MESSAGE)
            self.parked += 1
            try:
                await hub.wait(found.queue.id, found.group.id, left_ms, request=ask.request)
            finally:
                self.parked -= 1
            if not ask.connected():
                raise CmqError(Fault.NO_MESSAGE)

    async def taken(self, found: Found, count: int, ask: Ask) -> list[dict[str, Any]]:
        """The messages there are now, leased."""
        hub = self.door.hub
        if hub is not None and hub.gates.count:
            count, _ = hub.gates.may_receive(
                self.queues.store, found.queue.id, found.group.id, count, key=ask.key)
            if not count:
                return []
        lease_ms = found.defaults.lease_ms
        batch = await self.call(
            found.group.receive, count, max_bytes=TAKE_BYTES, lease_ms=lease_ms)
        if hub is not None and len(batch):
            if not ask.connected():
                await self.call(found.group.release, batch.receipts, delay_ms=0)
            hub.gates.received(found.queue.id, len(batch), key=ask.key)
            hub.took(found.queue.id, found.group.id)
        return self.described(batch, found.queue.id, lease_ms, time.time_ns() // SECOND_US // 1000)

    def described(
        self, batch: Batch, queue: int, lease_ms: int, now_s: int
    ) -> list[dict[str, Any]]:
        """What is told of each message."""
        if not len(batch):
            return []
        handles, found = short_receipts(batch.receipts), []
        for at, body in enumerate(batch.tolist()):
            offset, attempts = int(batch.offsets[at]), int(batch.attempts[at])
            found.append({
                "msgBody": body.decode("utf-8", "replace"),
                "msgId": str(id_of(queue, offset, batch.attributes(at).id)),
                "receiptHandle": str(handles[at]),
                "enqueueTime": int(batch.timestamps[at]) // SECOND_US,
                "firstDequeueTime": self.firsts.told(queue, offset, attempts, now_s),
                "nextVisibleTime": now_s + lease_ms // 1000,
                "dequeueCount": attempts,
            })
        return found

    # Deleting.

    def delete(self, ask: Ask) -> Answer:
        found = self.queues.find(ask.form.text("queueName"))
        if self.failed(found, [handle_of(ask.form.text("receiptHandle"))]):
            raise CmqError(Fault.HANDLE)
        return {}

    def delete_many(self, ask: Ask) -> Answer:
        found = self.queues.find(ask.form.text("queueName"))
        texts = self.batch(ask, "receiptHandle")
        return deleted(texts, self.failed(found, [handle_of(text) for text in texts]))

    def failed(self, found: Found, handles: list[int]) -> list[int]:
        """Delete what the handles name; the places of those that name nothing."""
        receipts = whole_receipts(found.group, handles)
        known = [at for at, receipt in enumerate(receipts) if receipt is not None]
        verdicts: dict[int, int] = {}
        if known:
            joined = b"".join(receipts[at] or b"" for at in known)
            verdicts = dict(zip(known, found.group.confirm(joined), strict=True))
        return [at for at in range(len(handles)) if verdicts.get(at, 1) != DONE]

    # Publishing.

    def publish(self, ask: Ask) -> Answer:
        return {"msgId": str(self.published(ask, [ask.form.text("msgBody")])[0])}

    def publish_many(self, ask: Ask) -> Answer:
        return sent(self.published(ask, self.batch(ask, "msgBody")))

    def published(self, ask: Ask, texts: list[str]) -> list[int]:
        form, bodies = ask.form, [text.encode() for text in texts]
        self.topics.admit(form.text("topicName"), bodies, ask.key)
        return self.topics.publish(
            form.text("topicName"), bodies, form.list("msgTag"),
            form.values.get("routingKey", ""), ask.now_us)


def handle_of(text: str) -> int:
    """The number; HANDLE_FORMAT for what is none."""
    if not text.isascii() or not text.isdecimal() or len(text) > 19:
        raise CmqError(Fault.HANDLE_FORMAT)
    return int(text)
