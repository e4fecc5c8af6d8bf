"""A post to a subscriber's HTTP endpoint as CMQ's look."""

import os
from typing import Any

import msgspec

from penstock.engine.attributes import Attributes
from penstock.server.broker.cmq.ids import id_of
from penstock.server.broker.push import Subscription

MANY_TAGS = "cmq.tags"
Post = tuple[dict[str, str], bytes]


def post_of(
    subscription: Subscription, queue: int, offset: int, stored_us: int, body: bytes,
    attributes: Attributes,
) -> Post:
    """Head and body of the post that tells of a message."""
    identity = str(id_of(queue, offset, attributes.id))
    tags = attributes.properties.get(MANY_TAGS, attributes.tag).strip(",")
    head = {
        "Content-Type": "text/plain",
        "User-Agent": "Qcloud Notification Service Agent",
        "x-cmq-request-id": os.urandom(8).hex(),
        "x-cmq-message-id": identity,
        "x-cmq-message-tag": printable(tags),
    }
    if subscription.format == "cmq-simplified":
        return head, body
    labels = subscription.labels
    told: dict[str, Any] = {
        "TopicOwner": int(labels.get("TopicOwner", "0")),
        "topicName": labels.get("topicName", ""),
        "subscriptionName": labels.get("subscriptionName", ""),
        "msgId": identity,
        "msgBody": body.decode("utf-8", "replace"),
        "publishTime": stored_us // 1_000_000,
    }
    return head, msgspec.json.encode(told)


def printable(text: str) -> str:
    """What may stand in a field of a head."""
    return "".join(one if one.isascii() and one.isprintable() else "?" for one in text)
