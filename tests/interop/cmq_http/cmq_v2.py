"""Scenarios for the Python SDK of CMQ, which runs them as a program of its own, unmodified.

    python cmq_python.py ADDRESS ID SECRET SCENARIO

A scenario that ends without an exception has gone well.
"""

import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cmq.account import Account
from cmq.cmq_exception import CMQServerException
from cmq.queue import Message, QueueMeta
from cmq.subscription import SubscriptionMeta
from cmq.topic import Message as Published
from cmq.topic import TopicMeta

TEXT = 'hello 世界 +%&=_@ "quoted" \\ \u2028 \U0001f600 end'


@contextmanager
def refused(code: int, text: str = "") -> Iterator[None]:
    try:
        yield
    except CMQServerException as error:
        assert error.code == code, error
        assert text in error.message, error
    else:
        raise AssertionError(f"not refused with {code}")


def name() -> str:
    return "py" + uuid.uuid4().hex[:12]


def made(account: Any, **attributes: int) -> Any:
    queue = account.get_queue(name())
    meta = QueueMeta()
    for attribute, value in attributes.items():
        setattr(meta, attribute, value)
    queue.create(meta)
    return queue


def queues(account: Any) -> None:
    queue = made(account, visibilityTimeout=7, pollingWaitSeconds=3, maxMsgSize=2048,
                 msgRetentionSeconds=3600, rewindSeconds=60, maxMsgHeapNum=2_000_000)
    told = queue.get_attributes()
    assert (told.visibilityTimeout, told.pollingWaitSeconds, told.maxMsgSize) == (7, 3, 2048)
    assert (told.msgRetentionSeconds, told.rewindSeconds) == (3600, 60)
    assert told.maxMsgHeapNum == 2_000_000 and abs(told.createTime - time.time()) < 600
    told.visibilityTimeout, told.rewindSeconds = 9, 0
    queue.set_attributes(told)
    assert queue.get_attributes().visibilityTimeout == 9
    with refused(6050, "(10670)"):
        queue.rewindQueue(int(time.time()))
    with refused(4460, "(10210)queue is already existed"):
        queue.create(QueueMeta())
    wrong = QueueMeta()
    wrong.visibilityTimeout = 43201
    with refused(4000, "(10350)"):
        account.get_queue(name()).create(wrong)
    with refused(4000, "(10020)"):
        account.get_queue("1st").create(QueueMeta())
    total, listed, _ = account.list_queue(searchWord=queue.queue_name)
    assert total == 1 and listed[0]["queueName"] == queue.queue_name and listed[0]["queueId"]
    assert account.list_queue(limit=1)[1]
    queue.delete()
    with refused(4440, "(10100)queue is not existed, or deleted"):
        queue.get_attributes()


def messages(account: Any) -> None:
    queue = made(account, visibilityTimeout=30)
    with refused(7000, "(10200)no message"):
        queue.receive_message(0)
    sent = queue.send_message(Message(TEXT))
    found = queue.receive_message(3)
    assert found.msgBody == TEXT and found.msgId == sent.msgId, (found.msgBody, found.msgId)
    assert found.dequeueCount == 1 and found.firstDequeueTime >= found.enqueueTime
    assert found.nextVisibleTime - found.firstDequeueTime == 30
    told = queue.get_attributes()
    assert (told.activeMsgNum, told.inactiveMsgNum) == (0, 1)
    queue.delete_message(found.receiptHandle)
    with refused(4430, "(10260)receipt handle is invalid"):
        queue.delete_message(found.receiptHandle)
    with refused(4000, "(10470)"):
        queue.delete_message("no-number")
    with refused(4000, "(10120)"):
        queue.send_message(Message(""))
    with refused(4400, "(10230)"):
        queue.send_message(Message("x" * 65537))
    queue.send_message(Message("@begins with an at"))
    assert queue.receive_message(3).msgBody == "@begins with an at"
    with refused(4440, "(10100)"):
        account.get_queue(name()).send_message(Message("x"))
    queue.delete()


def batches(account: Any) -> None:
    queue = made(account, visibilityTimeout=30)
    bodies = [f"{at}: {TEXT}" for at in range(16)]
    sent = queue.batch_send_message([Message(body) for body in bodies])
    assert len({one.msgId for one in sent}) == 16
    found: list[Any] = []
    while len(found) < 16:
        found += queue.batch_receive_message(16, 3)
    assert sorted(one.msgBody for one in found) == sorted(bodies)
    assert {one.msgId for one in found} == {one.msgId for one in sent}
    queue.delete_message(found[0].receiptHandle)
    with refused(6010, "(10150)"):
        queue.batch_delete_message([one.receiptHandle for one in found[:3]])
    queue.batch_delete_message([one.receiptHandle for one in found[3:]])
    with refused(6020, "(10290)"):
        queue.batch_delete_message([one.receiptHandle for one in found[3:]])
    for count in (0, 17):
        with refused(4000):
            queue.batch_receive_message(count, 0)
    with refused(4000, "(10370)"):
        queue.batch_send_message([Message("x")] * 17)
    with refused(7000, "(10200)no message"):
        queue.batch_receive_message(16, 0)
    queue.delete()


def polling(account: Any) -> None:
    queue = made(account, pollingWaitSeconds=0)
    began = time.monotonic()
    with refused(7000):
        queue.receive_message(1)
    assert time.monotonic() - began >= 0.9
    other = Account(*sys.argv[1:4]).get_queue(queue.queue_name)
    sender = threading.Timer(0.3, lambda: other.send_message(Message("late")))
    sender.start()
    assert queue.receive_message(30).msgBody == "late"
    sender.join()
    queue.delete()


def redelivery(account: Any) -> None:
    queue = made(account, visibilityTimeout=1)
    sent = queue.send_message(Message("again"))
    first = queue.receive_message(3)
    second = queue.receive_message(20)
    assert second.msgId == first.msgId == sent.msgId and second.dequeueCount == 2
    assert second.firstDequeueTime == first.firstDequeueTime
    assert second.receiptHandle != first.receiptHandle
    with refused(4430):
        queue.delete_message(first.receiptHandle)
    queue.delete()


def delay(account: Any) -> None:
    queue = made(account)
    sent = queue.batch_send_message([Message(f"{at}") for at in range(3)], 2)
    single = queue.send_message(Message("single"), 1000)
    with refused(7000):
        queue.receive_message(0)
    assert queue.get_attributes().delayMsgNum == 4
    found = queue.batch_receive_message(16, 20)
    assert {one.msgId for one in found} == {one.msgId for one in sent}, found
    assert single.msgId not in {one.msgId for one in found}
    with refused(4000, "(10692)"):
        queue.send_message(Message("x"), -1)
    queue.delete()


def rewind(account: Any) -> None:
    queue = made(account, rewindSeconds=3600, msgRetentionSeconds=7200, visibilityTimeout=30)
    began = int(time.time())
    bodies = {f"{at}" for at in range(5)}
    queue.batch_send_message([Message(body) for body in sorted(bodies)])
    found: list[Any] = []
    while len(found) < 5:
        found += queue.batch_receive_message(16, 3)
    queue.batch_delete_message([one.receiptHandle for one in found])
    assert queue.get_attributes().rewindmsgNum == 5
    queue.rewindQueue(began - 1)
    again: set[str] = set()
    while len(again) < 5:
        again |= {one.msgBody for one in queue.batch_receive_message(16, 3)}
    assert again == bodies
    with refused(4000, "(10680)"):
        queue.rewindQueue(began + 100_000)
    queue.delete()


def by_get(account: Any) -> None:
    account.get_client().set_method("GET")
    messages(account)
    queue = made(account)
    body = "0123456789abcdef+ " * 3600
    queue.send_message(Message(body))
    assert queue.receive_message(3).msgBody == body
    queue.delete()


def by_sha256(account: Any) -> None:
    account.set_sign("sha256")
    messages(account)


def signatures(account: Any) -> None:
    address, identity, secret = sys.argv[1:4]
    with refused(4100, "(10030)"):
        Account(address, identity, secret + "x").list_queue()
    with refused(4100, "(10270)"):
        Account(address, "AKIDnobody", secret).list_queue()


def topics(account: Any) -> None:
    topic = account.get_topic(name())
    meta = TopicMeta()
    meta.filterType = 1
    topic.create(meta)
    with refused(4460, "(10550)"):
        topic.create(meta)
    meta = topic.get_attributes()
    meta.maxMsgSize = 1024
    topic.set_attributes(meta)
    told = topic.get_attributes()
    assert told.maxMsgSize == 1024 and told.filterType == 1
    assert account.list_topic(searchWord=topic.topicName)[0] == 1
    queue, everything = made(account), made(account)
    subscription = subscribed(account, topic, queue.queue_name, ["red", "blue"])
    subscribed(account, topic, everything.queue_name, [])
    told = subscription.get_attributes()
    # The SDK keeps the endpoint in maxMsgHeapNum.
    assert sorted(told.FilterTag) == ["blue", "red"] and told.maxMsgHeapNum == queue.queue_name
    assert told.Protocal == "queue" and told.TopicOwner == "0", vars(told)
    message = Published("m-red")
    message.msgTag = ["red"]
    identity = topic.publish_message(message)
    found = queue.receive_message(3)
    assert found.msgBody == "m-red" and found.msgId == getattr(identity, "msgId", identity)
    message = Published("m-green")
    message.msgTag = ["green"]
    topic.publish_message(message)
    with refused(7000):
        queue.receive_message(0)
    topic.batch_publish_message([Published("b1"), Published("b2")], ["x", "blue"])
    assert {queue.receive_message(3).msgBody for _ in range(2)} == {"b1", "b2"}
    assert len(everything.batch_receive_message(16, 3)) == 4
    subscription.clearFilterTags()
    topic.publish_message(Published("any"))
    assert queue.receive_message(3).msgBody == "any"
    assert topic.list_subscription()[0] == 2
    with refused(4000, "(10540)"):
        topic.delete()
    with refused(4000, "(10720)"):
        message.msgTag = list("abcdef")
        topic.publish_message(message)
    with refused(4400):
        topic.publish_message(Published("x" * 1025))
    for row in topic.list_subscription()[1]:
        account.get_subscription(topic.topicName, row["subscriptionName"]).delete()
    assert topic.list_subscription()[0] == 0
    topic.delete()
    with refused(4440, "(10600)"):
        topic.get_attributes()


def subscribed(account: Any, topic: Any, endpoint: str, tags: list[str], **more: Any) -> Any:
    subscription = account.get_subscription(topic.topicName, name())
    meta = SubscriptionMeta()
    meta.Endpoint, meta.Protocal = endpoint, "queue"
    meta.FilterTag = tags
    meta.notifyContentFormat = "SIMPLIFIED"
    for attribute, value in more.items():
        setattr(meta, attribute, value)
    subscription.create(meta)
    with refused(4490, "(10470)"):
        subscription.create(meta)
    return subscription


def routing(account: Any) -> None:
    topic = account.get_topic(name())
    meta = TopicMeta()
    meta.filterType = 2
    topic.create(meta)
    queue = made(account)
    subscription = subscribed(account, topic, queue.queue_name, [], bindingKey=["1.#.0", "*.b"])
    for key in ("1.0", "1.2.3.0", "a.b", "b", "1.0.1"):
        topic.publish_message(Published(key), key)
    found: set[str] = set()
    while len(found) < 3:
        found |= {one.msgBody for one in queue.batch_receive_message(16, 3)}
    assert found == {"1.0", "1.2.3.0", "a.b"}
    with refused(4000, "(10700)"):
        topic.publish_message(Published("no key"))
    told = subscription.get_attributes()
    told.bindingKey = ["c.d"]
    subscription.set_attributes(told)
    assert subscription.get_attributes().bindingKey == ["c.d"]
    topic.publish_message(Published("changed"), "c.d")
    assert queue.receive_message(3).msgBody == "changed"
    subscription.delete()
    topic.delete()


def leave(account: Any) -> None:
    """What find looks for, in a server that was killed meanwhile."""
    queue = account.get_queue("left-py")
    queue.create(QueueMeta())
    queue.batch_send_message([Message("a"), Message("b")])
    queue.delete_message(queue.receive_message(3).receiptHandle)


def find(account: Any) -> None:
    queue = account.get_queue("left-py")
    assert queue.get_attributes().visibilityTimeout == 30
    assert queue.receive_message(3).msgBody == "b"
    with refused(7000):
        queue.receive_message(0)


SCENARIOS: dict[str, Callable[[Any], None]] = {
    one.__name__: one
    for one in (queues, messages, batches, polling, redelivery, delay, rewind, by_get, by_sha256,
                signatures, topics, routing, leave, find)
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[4]](Account(*sys.argv[1:4]))
