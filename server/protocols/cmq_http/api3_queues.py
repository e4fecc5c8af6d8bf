"""The actions of API 3.0 on queues. Times are milliseconds here, unlike v2's."""

from typing import TYPE_CHECKING

import msgspec

from penstock.server.broker.cmq.attributes import BY_AGE, BY_COUNT, Given
from penstock.server.broker.cmq.faults import CmqError
from penstock.server.broker.cmq.queues import CmqQueues, queue_id
from penstock.server.protocols.cmq_http.api3_fields import Fields, Listing, read
from penstock.server.protocols.cmq_http.asked import Ask
from penstock.server.protocols.cmq_http.form import Form

if TYPE_CHECKING:
    from penstock.server.protocols.cmq_http.v2_messages import MessageActions


class Attributes(msgspec.Struct):
    """CreateCmqQueue and ModifyCmqQueueAttribute. What is not here means nothing to us."""

    QueueName: str
    MaxMsgHeapNum: int | None = None
    PollingWaitSeconds: int | None = None
    VisibilityTimeout: int | None = None
    MaxMsgSize: int | None = None
    MsgRetentionSeconds: int | None = None
    RewindSeconds: int | None = None
    Transaction: int | None = None
    FirstQueryInterval: int | None = None
    MaxQueryCount: int | None = None
    DeadLetterQueueName: str | None = None
    Policy: int | None = None
    MaxReceiveCount: int | None = None
    MaxTimeToLive: int | None = None

    def given(self, created: bool) -> Given:
        """In the broker's words; created: with the defaults of a queue that is made."""
        transaction = None if self.Transaction is None else self.Transaction == 1
        return Given(
            or_else(self.MaxMsgHeapNum, 100_000_000 if created else None),
            or_else(self.PollingWaitSeconds, 0 if created else None),
            or_else(self.VisibilityTimeout, 30 if created else None),
            or_else(self.MaxMsgSize, 1 << 20 if created else None),
            or_else(self.MsgRetentionSeconds, 3_600 if created else None),
            or_else(self.RewindSeconds, 0 if created else None),
            transaction, self.FirstQueryInterval, self.MaxQueryCount,
            self.DeadLetterQueueName or None, self.Policy or BY_COUNT, self.MaxReceiveCount,
            self.MaxTimeToLive,
        )  # fmt: skip


class Named(msgspec.Struct):
    QueueName: str


class Bound(msgspec.Struct):
    SourceQueueName: str


class Rewinding(msgspec.Struct):
    QueueName: str
    StartConsumeTime: int


class Sending(msgspec.Struct):
    QueueName: str
    MsgContent: str
    DelaySeconds: int = 0


class Queues(Listing):
    QueueName: str | None = None
    QueueNameList: list[str] | None = None


class QueueActions:
    """By name; each is called on a thread with the fields of the request and the time.

    Those of sending get the number of the access key as well.
    """

    def __init__(self, queues: CmqQueues, messages: "MessageActions") -> None:
        self.queues = queues
        self.messages = messages
        self.actions = {
            "CreateCmqQueue": self.create, "ModifyCmqQueueAttribute": self.modify,
            "DeleteCmqQueue": self.delete, "ClearCmqQueue": self.clear,
            "RewindCmqQueue": self.rewind, "UnbindCmqDeadLetter": self.unbind,
            "DescribeCmqQueueDetail": self.detail, "DescribeCmqQueues": self.page,
        }
        self.sending = {"SendCmqMsg": self.send}

    def create(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Attributes)
        return {"QueueId": self.queues.create(asked.QueueName, asked.given(True), now_us)}

    def modify(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Attributes)
        self.queues.set(asked.QueueName, asked.given(False), now_us)
        return {}

    def delete(self, fields: Fields, now_us: int) -> Fields:
        self.queues.delete(read(fields, Named).QueueName)
        return {}

    def clear(self, fields: Fields, now_us: int) -> Fields:
        self.queues.clear(read(fields, Named).QueueName)
        return {}

    def rewind(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Rewinding)
        self.queues.rewind(asked.QueueName, asked.StartConsumeTime, now_us)
        return {}

    def unbind(self, fields: Fields, now_us: int) -> Fields:
        self.queues.unbind(read(fields, Bound).SourceQueueName, now_us)
        return {}

    def detail(self, fields: Fields, now_us: int) -> Fields:
        return {"QueueDescribe": self.described(read(fields, Named).QueueName)}

    def page(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Queues)
        names = [name for name in self.queues.names() if (asked.QueueName or "") in name]
        if asked.QueueNameList:
            names = [name for name in names if name in asked.QueueNameList]
        return asked.page(names, self.described, "QueueList")

    def send(self, fields: Fields, now_us: int, key: int) -> Fields:
        asked = read(fields, Sending)
        form = Form([("queueName", asked.QueueName), ("msgBody", asked.MsgContent),
                     ("delaySeconds", str(asked.DelaySeconds))])
        sent = self.messages.send(Ask("SendMessage", form, now_us, [], None, key))
        return {"Result": "true", "MsgId": sent["msgId"]}

    def described(self, name: str) -> Fields:
        found = self.queues.describe(name)
        defaults = found["defaults"]
        told: Fields = {
            "QueueId": found["id"], "QueueName": name, "Qps": 5000, "Bps": 50_000_000,
            "MaxDelaySeconds": self.queues.rules.delay_s, "MaxMsgHeapNum": defaults.messages,
            "PollingWaitSeconds": defaults.wait_ms // 1000,
            "MsgRetentionSeconds": found["retention_s"],
            "VisibilityTimeout": defaults.lease_ms // 1000,
            "MaxMsgSize": defaults.message_bytes or self.queues.broker.limits.message_bytes,
            "RewindSeconds": found["rewind_s"], "CreateTime": found["created_us"] // 1000,
            "LastModifyTime": found["changed_us"] // 1000, "ActiveMsgNum": found["active"],
            "InactiveMsgNum": found["inactive"], "DelayMsgNum": found["delayed"],
            "RewindMsgNum": found["rewindable"], "MinMsgTime": found["oldest_us"] // 1000,
            "Transaction": defaults.transactions, "DeadLetterSource": self.sources(name),
            "CreateUin": 0, "Tags": [], "Trace": False, "TenantId": "", "NamespaceName": "",
            "Status": 0, "MaxUnackedMsgNum": defaults.messages, "MaxMsgBacklogSize": 0,
            "RetentionSizeInMB": 0,
        }  # fmt: skip
        if defaults.dead_letter:
            told["DeadLetterPolicy"] = {
                "DeadLetterQueue": defaults.dead_letter,
                "Policy": BY_AGE if defaults.dead_after_ms else BY_COUNT,
                "MaxTimeToLive": defaults.dead_after_ms // 1000,
                "MaxReceiveCount": found["max_receive"],
            }
        if defaults.transactions:
            told["TransactionPolicy"] = {
                "FirstQueryInterval": defaults.check_after_ms // 1000,
                "MaxQueryCount": defaults.checks}
        return told

    def sources(self, name: str) -> list[Fields]:
        found = []
        for one in self.queues.sources(name):
            try:
                found.append({"QueueId": queue_id(self.queues.find(one).queue), "QueueName": one})
            except CmqError:
                # Deleted this moment, or named before it was made.
                continue
        return found


def or_else(value: int | None, default: int | None) -> int | None:
    return default if value is None else value
