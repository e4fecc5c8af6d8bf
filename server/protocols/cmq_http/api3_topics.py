"""The actions of API 3.0 on topics and subscriptions."""

import msgspec

from penstock.server.broker.cmq.attributes import DAY_S
from penstock.server.broker.cmq.subscribing import BY_KEY, Asked, Subscription
from penstock.server.broker.cmq.topics import CmqTopics, TopicFacts
from penstock.server.protocols.cmq_http.api3_fields import Fields, Listing, read
from penstock.server.protocols.cmq_http.v2_topics import DECAY


class Topic(msgspec.Struct):
    TopicName: str
    MaxMsgSize: int | None = None
    FilterType: int = 1
    MsgRetentionSeconds: int | None = None


class Topics(Listing):
    TopicName: str | None = None
    TopicNameList: list[str] | None = None


class Publishing(msgspec.Struct):
    TopicName: str
    MsgContent: str
    MsgTag: list[str] = []


class Subscribing(msgspec.Struct):
    TopicName: str
    SubscriptionName: str
    Protocol: str = ""
    Endpoint: str = ""
    NotifyStrategy: str | None = None
    NotifyContentFormat: str | None = None
    FilterTag: list[str] | None = None
    FilterTags: list[str] | None = None
    BindingKey: list[str] | None = None


class Subscriptions(Listing):
    TopicName: str = ""
    SubscriptionName: str = ""
    QueueName: str = ""
    QueryType: str = "topic"


class TopicActions:
    """By name; each is called on a thread with the fields of the request and the time.

    Those of sending get the number of the access key as well.
    """

    def __init__(self, topics: CmqTopics) -> None:
        self.topics = topics
        self.actions = {
            "CreateCmqTopic": self.create, "ModifyCmqTopicAttribute": self.modify,
            "DeleteCmqTopic": self.delete, "DescribeCmqTopicDetail": self.detail,
            "DescribeCmqTopics": self.page,
            "CreateCmqSubscribe": self.subscribe,
            "ModifyCmqSubscriptionAttribute": self.resubscribe,
            "ClearCmqSubscriptionFilterTags": self.clear,
            "DeleteCmqSubscribe": self.unsubscribe,
            "DescribeCmqSubscriptionDetail": self.subscriptions,
        }
        self.sending = {"PublishCmqMsg": self.publish}

    def create(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Topic)
        facts = TopicFacts(asked.MaxMsgSize or 1 << 20, asked.FilterType,
                           asked.MsgRetentionSeconds or DAY_S, now_us)
        return {"TopicId": self.topics.create(asked.TopicName, facts)}

    def modify(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Topic)
        self.topics.set(asked.TopicName, asked.MaxMsgSize, asked.MsgRetentionSeconds, now_us)
        return {}

    def delete(self, fields: Fields, now_us: int) -> Fields:
        self.topics.delete(read(fields, Topic).TopicName)
        return {}

    def detail(self, fields: Fields, now_us: int) -> Fields:
        return {"TopicDescribe": self.described(read(fields, Topic).TopicName)}

    def page(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Topics)
        names = [name for name in self.topics.names() if (asked.TopicName or "") in name]
        if asked.TopicNameList:
            names = [name for name in names if name in asked.TopicNameList]
        return asked.page(names, self.described, "TopicList")

    def publish(self, fields: Fields, now_us: int, signed: int) -> Fields:
        """MsgTag is a list of tags, or one routing key where the topic filters by it."""
        asked = read(fields, Publishing)
        by_key = self.topics.facts(asked.TopicName).filter_type == BY_KEY
        tags, key = ([], (asked.MsgTag or [""])[0]) if by_key else (asked.MsgTag, "")
        body = asked.MsgContent.encode()
        self.topics.admit(asked.TopicName, [body], signed)
        [found] = self.topics.publish(asked.TopicName, [body], tags, key, now_us)
        return {"Result": "true", "MsgId": str(found)}

    def subscribe(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Subscribing)
        made = Asked(
            asked.Protocol.lower(), asked.Endpoint, asked.NotifyStrategy or DECAY,
            asked.NotifyContentFormat or "JSON", asked.FilterTag or asked.FilterTags or [],
            asked.BindingKey or [],
        )  # fmt: skip
        number = self.topics.subscribe(asked.TopicName, asked.SubscriptionName, made, now_us)
        return {"SubscriptionId": number}

    def resubscribe(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Subscribing)
        tags = asked.FilterTags if asked.FilterTags is not None else asked.FilterTag
        given = {"strategy": asked.NotifyStrategy, "format": asked.NotifyContentFormat,
                 "tags": tags, "keys": asked.BindingKey}
        changes = {name: value for name, value in given.items() if value is not None}
        self.topics.resubscribe(asked.TopicName, asked.SubscriptionName, changes, now_us)
        return {}

    def clear(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Subscribing)
        self.topics.resubscribe(asked.TopicName, asked.SubscriptionName, {"tags": []}, now_us)
        return {}

    def unsubscribe(self, fields: Fields, now_us: int) -> Fields:
        asked = read(fields, Subscribing)
        self.topics.unsubscribe(asked.TopicName, asked.SubscriptionName)
        return {}

    def subscriptions(self, fields: Fields, now_us: int) -> Fields:
        """Those of a topic, or those that lead to a queue."""
        asked = read(fields, Subscriptions)
        if asked.TopicName:
            self.topics.facts(asked.TopicName)
        topics = [asked.TopicName] if asked.TopicName else self.topics.names()
        found = [
            (topic, name, one) for topic in topics
            for name, one in self.topics.subscriptions(topic).items()
            if asked.SubscriptionName in name and asked.QueueName in ("", one.endpoint)
        ]
        return asked.page(
            found, lambda row: described(*row, self.topics.waiting(row[2])), "SubscriptionSet")

    def described(self, name: str) -> Fields:
        found = self.topics.describe(name)
        facts = found["facts"]
        return {
            "TopicId": found["id"], "TopicName": name, "MsgRetentionSeconds": facts.retention_s,
            "MaxMsgSize": facts.max_size or self.topics.broker.limits.message_bytes, "Qps": 5000,
            "FilterType": facts.filter_type, "CreateTime": found["created_us"] // 1000,
            "LastModifyTime": found["changed_us"] // 1000, "MsgCount": found["messages"],
            "CreateUin": 0, "Tags": [], "Trace": False, "TenantId": "", "NamespaceName": "",
            "Status": 0, "BrokerType": 0, "SubscriptionCount": found["subscriptions"],
        }  # fmt: skip


def described(topic: str, name: str, one: Subscription, waiting: int) -> Fields:
    return {
        "SubscriptionName": name, "SubscriptionId": one.id, "TopicOwner": 0, "MsgCount": waiting,
        "LastModifyTime": one.changed_us // 1000, "CreateTime": one.created_us // 1000,
        "BindingKey": one.keys, "Endpoint": one.endpoint, "FilterTags": one.tags,
        "Protocol": one.protocol, "NotifyStrategy": one.strategy,
        "NotifyContentFormat": one.format, "TopicName": topic,
    }  # fmt: skip
