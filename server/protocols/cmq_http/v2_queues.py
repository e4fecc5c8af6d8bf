"""The v2 actions on queues."""

from typing import Any

from penstock.server.broker.cmq.attributes import Given
from penstock.server.broker.cmq.queues import SECOND_US, CmqQueues
from penstock.server.protocols.cmq_http.asked import Ask, page

Answer = dict[str, Any]
V2 = Given(
    heap=100_000_000, polling_s=0, visibility_s=30, max_size=65_536, retention_s=345_600, rewind_s=0
)

class QueueActions:
    """By name; each is called on a thread."""

    def __init__(self, queues: CmqQueues) -> None:
        self.queues = queues
        self.actions = {
            "createqueue": self.create, "listqueue": self.list, "deletequeue": self.delete,
            "getqueueattributes": self.show, "setqueueattributes": self.set,
            "rewindqueue": self.rewind, "queryqueueroute": self.route,
        }

    def create(self, ask: Ask) -> Answer:
        name, given = ask.form.text("queueName"), given_of(ask)
        made = {one: getattr(V2, one) if getattr(given, one) is None else getattr(given, one)
                for one in ("heap", "polling_s", "visibility_s", "max_size", "retention_s",
                            "rewind_s")}
        full = Given(**made, dead_letter=given.dead_letter, policy=given.policy,
                     max_receive=given.max_receive, dead_after_s=given.dead_after_s)
        return {"queueId": self.queues.create(name, full, ask.now_us)}

    def set(self, ask: Ask) -> Answer:
        self.queues.set(ask.form.text("queueName"), given_of(ask), ask.now_us)
        return {}

    def list(self, ask: Ask) -> Answer:
        total, rows = self.queues.page(*page(ask))
        return {
            "totalCount": total,
            "queueList": [{"queueId": number, "queueName": name} for number, name in rows],
        }

    def show(self, ask: Ask) -> Answer:
        found = self.queues.describe(ask.form.text("queueName"))
        defaults = found["defaults"]
        return {
            "maxMsgHeapNum": defaults.messages,
            "pollingWaitSeconds": defaults.wait_ms // 1000,
            "visibilityTimeout": defaults.lease_ms // 1000,
            "maxMsgSize": defaults.message_bytes or self.queues.broker.limits.message_bytes,
            "msgRetentionSeconds": found["retention_s"],
            "rewindSeconds": found["rewind_s"],
            "createTime": found["created_us"] // SECOND_US,
            "lastModifyTime": found["changed_us"] // SECOND_US,
            "activeMsgNum": found["active"],
            "inactiveMsgNum": found["inactive"],
            "delayMsgNum": found["delayed"],
            "rewindMsgNum": found["rewindable"],
            "rewindmsgNum": found["rewindable"],
            "minMsgTime": found["oldest_us"] // SECOND_US,
        }

    def delete(self, ask: Ask) -> Answer:
        self.queues.delete(ask.form.text("queueName"))
        return {}

    def rewind(self, ask: Ask) -> Answer:
        name, time_s = ask.form.text("queueName"), ask.form.needed("startConsumeTime")
        self.queues.rewind(name, time_s, ask.now_us)
        return {}

    def route(self, ask: Ask) -> Answer:
        self.queues.find(ask.form.text("queueName"))
        return {"addr": ask.addresses}


def given_of(ask: Ask) -> Given:
    """The attributes among the parameters."""
    form = ask.form
    policy = ask.policy()
    return Given(
        heap=form.number("maxMsgHeapNum"), polling_s=form.number("pollingWaitSeconds"),
        visibility_s=form.number("visibilityTimeout"), max_size=form.number("maxMsgSize"),
        retention_s=form.number("msgRetentionSeconds"), rewind_s=form.number("rewindSeconds"),
        dead_letter=policy.get("dead_letter"), policy=policy.get("policy", 0),
        max_receive=policy.get("max_receive"), dead_after_s=policy.get("dead_after_s"),
    )  # fmt: skip
