"""The quota of an access key, at each door that asks who is there."""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import penstock

sys.path.insert(0, str(Path(__file__).parent))
from cmq_http_ask import Client
from cmq_wire import BATCH_SEND, PUBLISH, PULL, Cmq, signed
from server_process import Server

THROTTLED = 4420, 10250
SLOW = {"messages_per_s": 0.001, "receives_per_s": 0.001, "burst_s": 1000}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ACCESS_KEY", "AKIDroot")
        patch.setenv("PENSTOCK_SECRET_KEY", "a-secret-of-the-tests")
        with Server(tmp_path_factory.mktemp("store"), cmq_tcp="127.0.0.1:0") as running:
            yield running


@pytest.fixture(scope="module")
def admin(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        yield client


def bound(admin: penstock.Client) -> tuple[str, str]:
    """A new key that may do one thing in a thousand seconds, and one on credit."""
    pair = admin.admin("key.create", label="slow")
    admin.admin("quota.set", scope="key", name=pair["id"], quota=SLOW)
    return pair["id"], pair["secret"]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_cmq_over_http(server: Server, admin: penstock.Client) -> None:
    slow = Client(server.http, *bound(admin))
    other = Client(server.http, "AKIDroot", "a-secret-of-the-tests")
    other.good("CreateQueue", queueName="http")
    other.good("CreateTopic", topicName="http-topic")
    until(lambda: slow.ask("SendMessage", queueName="http", msgBody="x")["code"] == THROTTLED[0])
    for action, fields in (
        ("SendMessage", {"queueName": "http", "msgBody": "x"}),
        ("SendMessage", {"queueName": "http", "msgBody": "x", "delaySeconds": "1"}),
        ("BatchSendMessage", {"queueName": "http", "msgBody.0": "x"}),
        ("PublishMessage", {"topicName": "http-topic", "msgBody": "x"}),
    ):
        assert slow.ask(action, **fields)["code"] == THROTTLED[0]
        other.good(action, **fields)
    received = [slow.ask("ReceiveMessage", queueName="http")["code"] for _ in range(3)]
    assert received == [0, 0, 7000]
    other.good("ReceiveMessage", queueName="http")


def test_cmq_over_tcp(server: Server, admin: penstock.Client) -> None:
    other_pair = ("AKIDroot", "a-secret-of-the-tests", "127.0.0.1@t")
    root = Client(server.http, *other_pair[:2])
    root.good("CreateQueue", queueName="tcp")
    root.good("CreateTopic", topicName="tcp-topic")
    pair = bound(admin)
    slow = Cmq(server.cmq, auth=signed(*pair, "127.0.0.1@t"))
    other = Cmq(server.cmq, auth=signed(*other_pair))
    queue, topic = (1, b"tcp"), (1, b"tcp-topic")
    until(lambda: slow.put("tcp", b"x").result == THROTTLED[1])
    assert slow.put("tcp", b"x", delay_s=1).result == THROTTLED[1]
    assert slow.call(BATCH_SEND, [queue, (2, b"x")]).result == THROTTLED[1]
    for _ in range(2):      # first through Python, then by the way that is known
        assert other.call(PUBLISH, [topic, (2, b"x")]).result == 0
        assert slow.call(PUBLISH, [topic, (2, b"x")]).result == THROTTLED[1]
    assert other.put("tcp", b"x").result == 0
    assert [slow.call(PULL, [queue, (2, 0)]).result for _ in range(3)] == [0, 0, THROTTLED[1]]
    assert other.call(PULL, [queue, (2, 0)]).result == 0
    # A connection that is somebody else's has nothing of it, and the same key on another all of it.
    again = Cmq(server.cmq, auth=signed(*pair, "127.0.0.1@t"))
    assert again.put("tcp", b"x").result == THROTTLED[1]
    admin.admin("quota.remove", scope="key", name=pair[0])
    until(lambda: again.put("tcp", b"x").result == 0)
    for one in (slow, other, again):
        one.socket.close()
