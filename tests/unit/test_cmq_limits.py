"""The original's limits of CMQ, which can be had: calls a second, delays, sizes, batches, names."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_http_ask import Client
from cmq_inside import Inside, play
from cmq_wire import (
    BATCH_PUBLISH,
    BATCH_PULL,
    BATCH_SEND,
    PUBLISH,
    PULL,
    SEND,
    Cmq,
    Fields,
    request,
)
from server_process import Server

from penstock.server._wire import CallRates
from penstock.server.broker.cmq.attributes import STRICT

SEND_CALL, RECEIVE_CALL = 0, 1


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PENSTOCK_ACCESS_KEY", "PENSTOCK_SECRET_KEY"):
            patch.delenv(name, raising=False)
        with Server(tmp_path_factory.mktemp("strict"), cmq_limits=True) as server:
            client = Client(server.http)
            client.good("CreateQueue", queueName="limited", maxMsgSize=str(1 << 20))
            client.good("CreateTopic", topicName="news")
            client.good(
                "Subscribe", topicName="news", subscriptionName="one", protocol="queue",
                endpoint="limited", notifyContentFormat="SIMPLIFIED", **{"filterTag.0": "other"})
            yield server


def test_calls_are_counted_by_action_and_name_in_each_second() -> None:
    shared = bytearray(1 << 12)
    one, other = CallRates(shared, 3), CallRates(shared, 3)
    one.second = other.second = 5
    # Two workers count together.
    assert [each.admit(SEND_CALL, b"q") for each in (one, other, one, other, one)] == [
        True, True, True, False, False]
    assert one.admit(RECEIVE_CALL, b"q") and one.admit(SEND_CALL, b"r")
    other.second = 6
    assert [other.admit(SEND_CALL, b"q") for _ in range(4)] == [True, True, True, False]


def test_a_table_that_is_full_is_free_again_in_the_next_second() -> None:
    rates = CallRates(bytearray(16 * 16), 1)
    rates.second = 1
    for second in range(1, 50):
        rates.second = second
        names = [b"%d.%d" % (second, at) for at in range(16)]
        assert all(rates.admit(SEND_CALL, name) for name in names)
        assert not any(rates.admit(SEND_CALL, name) for name in names)
        # Whoever finds no place is not limited.
        assert rates.admit(SEND_CALL, b"late") and rates.admit(SEND_CALL, b"late")


def test_without_a_limit_nobody_is_counted() -> None:
    rates = CallRates(bytearray(256), 0)
    assert all(rates.admit(SEND_CALL, b"q") for _ in range(1000)) and rates.limit == 0


def test_the_original_allows_5000_calls_a_second() -> None:
    assert STRICT.calls == 5000
    assert STRICT.delay_s == 3600 and STRICT.batch == 16 and STRICT.max_size[1] == 1 << 20


def test_both_doors_refuse_what_is_over_the_limit_and_count_together(tmp_path: Path) -> None:
    def scene(doors: Inside) -> None:
        client = Client(doors.http)
        with Cmq(doors.tcp) as cmq:
            client.good("CreateQueue", queueName="often")
            client.good("CreateTopic", topicName="news")
            client.good("Subscribe", topicName="news", subscriptionName="s", protocol="queue",
                        endpoint="often", notifyContentFormat="SIMPLIFIED")
            send: Fields = [(1, b"often"), (2, b"x")]
            assert client.ask("SendMessage", queueName="often", msgBody="x")["code"] == 0
            assert cmq.call(SEND, send).result == 0
            refused = client.ask("SendMessage", queueName="often", msgBody="x")
            assert (refused["code"], refused["message"]) == (4420, "(10250)qps throttling")
            late = cmq.call(SEND, send)
            assert (late.result, late.text) == (10250, "(10250)qps throttling")
            # Each action, each queue and each topic for itself.
            publish: Fields = [(1, b"news"), (2, b"x")]
            assert [cmq.call(PUBLISH, publish).result for _ in range(3)] == [0, 0, 10250]
            assert [cmq.call(BATCH_PUBLISH, publish).result for _ in range(3)] == [0, 0, 10250]
            assert [cmq.call(BATCH_SEND, send).result for _ in range(3)] == [0, 0, 10250]
            again = client.ask("BatchPublishMessage", topicName="news", **{"msgBody.0": "x"})
            assert again["code"] == 4420
            pull: Fields = [(1, b"often"), (2, 20)]
            assert [cmq.call(PULL, pull).result for _ in range(3)] == [0, 0, 10250]
            assert [client.ask("BatchReceiveMessage", queueName="often", numOfMsg="1",
                               pollingWaitSeconds="20")["code"] for _ in range(3)] == [0, 0, 4420]
            assert cmq.call(BATCH_PULL, [(1, b"often"), (2, 1)]).result == 10250
            doors.rates.second += 1
            assert client.ask("SendMessage", queueName="often", msgBody="x")["code"] == 0
            assert cmq.call(SEND, send).result == 0
            assert cmq.call(SEND, send).result == 10250

    play(tmp_path / "store", replace(STRICT, calls=2), scene)


def test_a_frame_that_is_looked_at_twice_is_one_call(tmp_path: Path) -> None:
    """The first one for a queue waits until Python has told what there is to know."""

    def scene(doors: Inside) -> None:
        client = Client(doors.http)
        with Cmq(doors.tcp) as cmq:
            for at in range(20):
                client.good("CreateQueue", queueName=f"q{at}")
            frames = b"".join(
                request(100 + at, SEND, [(1, b"q%d" % at), (2, b"x")]) for at in range(20))
            cmq.socket.sendall(frames)
            assert [cmq.read().result for _ in range(20)] == [0] * 20

    play(tmp_path / "store", replace(STRICT, calls=1), scene)


@pytest.mark.parametrize(("action", "fields", "code"), [
    ("SendMessage", {"msgBody": "x", "delaySeconds": "3600"}, 0),
    ("SendMessage", {"msgBody": "x", "delaySeconds": "3601"}, 4000),
    ("SendMessage", {"msgBody": "x" * ((1 << 20) + 1)}, 4400),
    ("BatchSendMessage", {f"msgBody.{at}": "x" * 65536 for at in range(16)}, 0),
    ("BatchSendMessage", {"msgBody.0": "x" * ((1 << 20) - 1), "msgBody.1": "xx"}, 4470),
    ("BatchSendMessage", {f"msgBody.{at}": "x" for at in range(17)}, 4000),
    ("BatchReceiveMessage", {"numOfMsg": "17"}, 4000),
    ("SetQueueAttributes", {"pollingWaitSeconds": "31"}, 4000),
    ("SetQueueAttributes", {"msgRetentionSeconds": "1296001"}, 4000),
    ("SetQueueAttributes", {"maxMsgHeapNum": "999999"}, 4000),
    ("SetQueueAttributes", {"maxMsgSize": "1048577"}, 4000),
    ("SetQueueAttributes", {"rewindSeconds": "1296001"}, 4000),
    ("PublishMessage", {"topicName": "news", "msgBody": "x", "msgTag.0": "t" * 17}, 4000),
    ("PublishMessage", {"topicName": "news", "msgBody": "x", "msgTag.0": "t" * 16}, 6030),
])  # fmt: skip
def test_the_limits_of_the_original(
    strict: Server, action: str, fields: dict[str, str], code: int
) -> None:
    fields = {"queueName": "limited", **fields}
    assert Client(strict.http).ask(action, **fields)["code"] == code
