"""Scenarios for the Python SDK of API 3.0, which runs them as a program of its own, unmodified.

    python cmq_api3.py ADDRESS ID SECRET SCENARIO [METHOD SIGNED]
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.tdmq.v20200217 import models, tdmq_client


class Api:
    """The SDK's client: api.Action(Field=value, …)."""

    def __init__(
        self, address: str, identity: str, secret: str, method: str = "POST",
        signed: str = "TC3-HMAC-SHA256",
    ) -> None:
        profile = HttpProfile(
            protocol="http", endpoint=address.removeprefix("http://"), reqMethod=method)
        self.client = tdmq_client.TdmqClient(
            credential.Credential(identity, secret), "ap-guangzhou",
            ClientProfile(httpProfile=profile, signMethod=signed))

    def __getattr__(self, action: str) -> Callable[..., Any]:
        def call(**fields: Any) -> Any:
            request = getattr(models, f"{action}Request")()
            request.from_json_string(json.dumps(fields))
            return getattr(self.client, action)(request)

        return call


@contextmanager
def refused(code: str) -> Iterator[None]:
    try:
        yield
    except TencentCloudSDKException as error:
        assert error.code == code, error
        assert error.requestId
    else:
        raise AssertionError(f"not refused with {code}")


def name() -> str:
    return "rq" + uuid.uuid4().hex[:12]


def queues(api: Any) -> None:
    queue = name()
    made = api.CreateCmqQueue(QueueName=queue, VisibilityTimeout=2, PollingWaitSeconds=3,
                              MaxMsgSize=2048, MsgRetentionSeconds=600, RewindSeconds=60)
    assert made.QueueId.startswith("queue-")
    with refused("ResourceInUse.Queue"):
        api.CreateCmqQueue(QueueName=queue)
    with refused("InvalidParameterValue"):
        api.CreateCmqQueue(QueueName=name(), VisibilityTimeout=43201)
    with refused("InvalidParameterValue"):
        api.CreateCmqQueue(QueueName="1st")
    with refused("MissingParameter"):
        api.CreateCmqQueue(VisibilityTimeout=1)
    told = api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe
    assert (told.VisibilityTimeout, told.PollingWaitSeconds, told.MaxMsgSize) == (2, 3, 2048)
    assert told.CreateTime > 1_000_000_000_000 and told.QueueId == made.QueueId
    assert told.Transaction is False
    api.ModifyCmqQueueAttribute(QueueName=queue, VisibilityTimeout=9)
    told = api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe
    assert (told.VisibilityTimeout, told.PollingWaitSeconds) == (9, 3)
    listed = api.DescribeCmqQueues(QueueName=queue, Limit=20, Offset=0)
    assert listed.TotalCount == 1 and listed.QueueList[0].QueueName == queue
    assert api.DescribeCmqQueues(QueueNameList=[queue, name()]).TotalCount == 1
    sent = api.SendCmqMsg(QueueName=queue, MsgContent="hello 世界", DelaySeconds=0)
    assert int(sent.MsgId)
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 1
    api.RewindCmqQueue(QueueName=queue, StartConsumeTime=int(time.time()) - 5)
    api.ClearCmqQueue(QueueName=queue)
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 0
    api.DeleteCmqQueue(QueueName=queue)
    with refused("ResourceNotFound"):
        api.DescribeCmqQueueDetail(QueueName=queue)


def dead_letters(api: Any) -> None:
    """By count and by age: really moved, and received by the v2 client of the same server."""
    from cmq.account import Account
    from cmq.cmq_exception import CMQServerException

    account = Account(*sys.argv[1:4])
    dead, by_count, by_age = name(), name(), name()
    api.CreateCmqQueue(QueueName=dead)
    api.CreateCmqQueue(QueueName=by_count, VisibilityTimeout=1, DeadLetterQueueName=dead,
                       Policy=0, MaxReceiveCount=2)
    api.CreateCmqQueue(QueueName=by_age, DeadLetterQueueName=dead, Policy=1, MaxTimeToLive=1)
    told = api.DescribeCmqQueueDetail(QueueName=by_count).QueueDescribe
    assert told.DeadLetterPolicy.DeadLetterQueue == dead
    assert told.DeadLetterPolicy.MaxReceiveCount == 2 and told.DeadLetterPolicy.Policy == 0
    sources = api.DescribeCmqQueueDetail(QueueName=dead).QueueDescribe.DeadLetterSource
    assert {one.QueueName for one in sources} == {by_count, by_age}
    with refused("InvalidParameterValue"):
        api.DeleteCmqQueue(QueueName=dead)
    api.SendCmqMsg(QueueName=by_age, MsgContent="too old")
    api.SendCmqMsg(QueueName=by_count, MsgContent="too often")
    source = account.get_queue(by_count)
    for count in (1, 2):
        assert source.receive_message(20).dequeueCount == count
    found = set()
    deadline = time.monotonic() + 60
    while len(found) < 2 and time.monotonic() < deadline:
        for queue in (source, account.get_queue(dead)):
            try:
                got = queue.receive_message(1)
                assert queue is not source, got.dequeueCount
                found.add(got.msgBody)
                queue.delete_message(got.receiptHandle)
            except CMQServerException as error:
                assert error.code == 7000, error
    assert found == {"too old", "too often"}
    api.UnbindCmqDeadLetter(SourceQueueName=by_count)
    api.UnbindCmqDeadLetter(SourceQueueName=by_age)
    api.DeleteCmqQueue(QueueName=dead)


def transactional(api: Any) -> None:
    queue = name()
    api.CreateCmqQueue(QueueName=queue, Transaction=1, FirstQueryInterval=7, MaxQueryCount=3)
    told = api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe
    assert told.Transaction is True
    assert told.TransactionPolicy.FirstQueryInterval == 7
    assert told.TransactionPolicy.MaxQueryCount == 3
    api.ModifyCmqQueueAttribute(QueueName=queue, Transaction=0)
    assert not api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.Transaction


def topics(api: Any) -> None:
    topic, queue, subscription = name(), name(), name()
    api.CreateCmqQueue(QueueName=queue)
    assert api.CreateCmqTopic(TopicName=topic, FilterType=1).TopicId.startswith("topic-")
    with refused("ResourceInUse.Topic"):
        api.CreateCmqTopic(TopicName=topic)
    api.ModifyCmqTopicAttribute(TopicName=topic, MaxMsgSize=2048, MsgRetentionSeconds=3600)
    made = api.CreateCmqSubscribe(
        TopicName=topic, SubscriptionName=subscription, Protocol="queue", Endpoint=queue,
        NotifyStrategy="BACKOFF_RETRY", NotifyContentFormat="SIMPLIFIED", FilterTag=["red"])
    assert made.SubscriptionId.startswith("subsc-")
    with refused("ResourceInUse.Subscription"):
        api.CreateCmqSubscribe(TopicName=topic, SubscriptionName=subscription, Protocol="queue",
                               Endpoint=queue)
    told = api.DescribeCmqTopicDetail(TopicName=topic).TopicDescribe
    assert (told.MaxMsgSize, told.MsgRetentionSeconds, told.SubscriptionCount) == (2048, 3600, 1)
    assert api.DescribeCmqTopics(TopicName=topic).TotalCount == 1
    rows = api.DescribeCmqSubscriptionDetail(TopicName=topic)
    row = rows.SubscriptionSet[0]
    assert rows.TotalCount == 1 and row.FilterTags == ["red"] and row.Endpoint == queue
    assert row.TopicOwner == 0 and row.Protocol == "queue"
    assert api.DescribeCmqSubscriptionDetail(QueueName=queue, QueryType="queue").TotalCount == 1
    for tag in ("red", "blue"):
        assert int(api.PublishCmqMsg(TopicName=topic, MsgContent=tag, MsgTag=[tag]).MsgId)
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 1
    api.ModifyCmqSubscriptionAttribute(
        TopicName=topic, SubscriptionName=subscription, FilterTags=["blue"])
    api.PublishCmqMsg(TopicName=topic, MsgContent="again", MsgTag=["blue"])
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 2
    api.ClearCmqSubscriptionFilterTags(TopicName=topic, SubscriptionName=subscription)
    api.PublishCmqMsg(TopicName=topic, MsgContent="any")
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 3
    with refused("InvalidParameterValue"):
        api.DeleteCmqTopic(TopicName=topic)
    api.DeleteCmqSubscribe(TopicName=topic, SubscriptionName=subscription)
    with refused("ResourceNotFound.Subscription"):
        api.DeleteCmqSubscribe(TopicName=topic, SubscriptionName=subscription)
    api.DeleteCmqTopic(TopicName=topic)
    with refused("ResourceNotFound.Topic"):
        api.DescribeCmqTopicDetail(TopicName=topic)


def routed(api: Any) -> None:
    topic, queue = name(), name()
    api.CreateCmqQueue(QueueName=queue)
    api.CreateCmqTopic(TopicName=topic, FilterType=2)
    api.CreateCmqSubscribe(TopicName=topic, SubscriptionName=name(), Protocol="queue",
                           Endpoint=queue, BindingKey=["a.#"])
    for key in ("a.b", "b.a"):
        api.PublishCmqMsg(TopicName=topic, MsgContent=key, MsgTag=[key])
    assert api.DescribeCmqQueueDetail(QueueName=queue).QueueDescribe.ActiveMsgNum == 1


def signatures(api: Any) -> None:
    address, identity, secret = sys.argv[1:4]
    way = sys.argv[5:]
    with refused("AuthFailure.SignatureFailure"):
        Api(address, identity, secret + "x", *way).DescribeCmqQueues()
    with refused("AuthFailure.SecretIdNotFound"):
        Api(address, "AKIDnobody", secret, *way).DescribeCmqQueues()


def leave(api: Any) -> None:
    """What find looks for, in a server that was killed meanwhile."""
    api.CreateCmqQueue(QueueName="left-api", VisibilityTimeout=7)
    api.CreateCmqTopic(TopicName="left-topic")
    api.CreateCmqSubscribe(TopicName="left-topic", SubscriptionName="one", Protocol="queue",
                           Endpoint="left-api")
    api.PublishCmqMsg(TopicName="left-topic", MsgContent="x")


def find(api: Any) -> None:
    api.PublishCmqMsg(TopicName="left-topic", MsgContent="y")
    told = api.DescribeCmqQueueDetail(QueueName="left-api").QueueDescribe
    assert (told.VisibilityTimeout, told.ActiveMsgNum) == (7, 2)
    assert api.DescribeCmqSubscriptionDetail(TopicName="left-topic").TotalCount == 1


SCENARIOS: dict[str, Callable[[Any], None]] = {
    one.__name__: one
    for one in (queues, dead_letters, transactional, topics, routed, signatures, leave, find)
}

if __name__ == "__main__":
    SCENARIOS[sys.argv[4]](Api(*sys.argv[1:4], *sys.argv[5:]))
