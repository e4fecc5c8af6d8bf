"""The v2 actions on topics and subscriptions."""

from typing import Any

from penstock.server.broker.cmq.queues import SECOND_US
from penstock.server.broker.cmq.subscribing import BY_TAG, Asked, Subscription
from penstock.server.broker.cmq.topics import CmqTopics, TopicFacts
from penstock.server.protocols.cmq_http.asked import Answer, Ask, page

DECAY = "EXPONENTIAL_DECAY_RETRY"


class TopicActions:
    """By name; each is called on a thread."""

    def __init__(self, topics: CmqTopics) -> None:
        self.topics = topics
        self.actions = {
            "createtopic": self.create, "settopicattributes": self.set,
            "gettopicattributes": self.show, "listtopic": self.list, "deletetopic": self.delete,
            "subscribe": self.subscribe, "listsubscriptionbytopic": self.subscriptions,
            "setsubscriptionattributes": self.resubscribe,
            "getsubscriptionattributes": self.subscription,
            "clearsubscriptionfiltertags": self.clear, "unsubscribe": self.unsubscribe,
            "querytopicroute": self.route,
        }

    def create(self, ask: Ask) -> Answer:
        facts = TopicFacts(
            ask.form.number("maxMsgSize", 65_536) or 0, ask.form.number("filterType") or BY_TAG,
            changed_us=ask.now_us)
        return {"topicId": self.topics.create(ask.form.text("topicName"), facts)}

    def set(self, ask: Ask) -> Answer:
        size = ask.form.number("maxMsgSize")
        self.topics.set(ask.form.text("topicName"), size, None, ask.now_us)
        return {}

    def show(self, ask: Ask) -> Answer:
        found = self.topics.describe(ask.form.text("topicName"))
        facts = found["facts"]
        return {
            "msgCount": found["messages"],
            "maxMsgSize": facts.max_size or self.topics.broker.limits.message_bytes,
            "msgRetentionSeconds": facts.retention_s,
            "createTime": found["created_us"] // SECOND_US,
            "lastModifyTime": found["changed_us"] // SECOND_US,
            "filterType": facts.filter_type,
            "LoggingEnabled": 0,
        }

    def list(self, ask: Ask) -> Answer:
        total, rows = self.topics.page(*page(ask))
        return {
            "totalCount": total,
            "topicList": [{"topicId": number, "topicName": name} for number, name in rows],
        }

    def delete(self, ask: Ask) -> Answer:
        self.topics.delete(ask.form.text("topicName"))
        return {}

    def route(self, ask: Ask) -> Answer:
        self.topics.facts(ask.form.text("topicName"))
        return {"addr": ask.addresses}

    def subscribe(self, ask: Ask) -> Answer:
        form = ask.form
        asked = Asked(
            form.text("protocol").lower(), form.text("endpoint"),
            form.values.get("notifyStrategy") or DECAY,
            form.values.get("notifyContentFormat") or "JSON",
            form.list("filterTag"), form.list("bindingKey", "bindindKey"),
        )  # fmt: skip
        topic, name = form.text("topicName"), form.text("subscriptionName")
        return {"subscriptionId": self.topics.subscribe(topic, name, asked, ask.now_us)}

    def subscriptions(self, ask: Ask) -> Answer:
        """A topic that is gone has none."""
        search, offset, limit = page(ask)
        found = self.topics.subscriptions(ask.form.text("topicName"))
        names = [name for name in found if search in name]
        return {
            "totalCount": len(names),
            "subscriptionList": [
                {"subscriptionId": found[name].id, "subscriptionName": name,
                 "protocol": found[name].protocol, "protocal": found[name].protocol,
                 "endpoint": found[name].endpoint}
                for name in names[offset:offset + limit]
            ],
        }

    def resubscribe(self, ask: Ask) -> Answer:
        form = ask.form
        changes: dict[str, Any] = {}
        if form.values.get("notifyStrategy"):
            changes["strategy"] = form.values["notifyStrategy"]
        if form.values.get("notifyContentFormat"):
            changes["format"] = form.values["notifyContentFormat"]
        if tags := form.list("filterTag"):
            changes["tags"] = tags
        if keys := form.list("bindingKey", "bindindKey"):
            changes["keys"] = keys
        self.topics.resubscribe(*names_of(ask), changes, ask.now_us)
        return {}

    def subscription(self, ask: Ask) -> Answer:
        found = self.topics.subscription(*names_of(ask))
        return described(found, self.topics.waiting(found))

    def clear(self, ask: Ask) -> Answer:
        self.topics.resubscribe(*names_of(ask), {"tags": []}, ask.now_us)
        return {}

    def unsubscribe(self, ask: Ask) -> Answer:
        self.topics.unsubscribe(*names_of(ask))
        return {}


def names_of(ask: Ask) -> tuple[str, str]:
    return ask.form.text("topicName"), ask.form.text("subscriptionName")


def described(found: Subscription, waiting: int) -> Answer:
    """Both spellings where clients disagree."""
    return {
        "topicOwner": "0", "msgCount": waiting, "protocol": found.protocol,
        "protocal": found.protocol, "endpoint": found.endpoint, "notifyStrategy": found.strategy,
        "notifyContentFormat": found.format, "createTime": found.created_us // SECOND_US,
        "lastModifyTime": found.changed_us // SECOND_US, "bindingKey": found.keys,
        "filterTag": found.tags, "filterTags": found.tags,
    }  # fmt: skip
