"""What /metrics tells of CMQ: calls by action and outcome, receivers that wait, connections."""

from __future__ import annotations

import http.client
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_http_ask import Client
from cmq_wire import BATCH_PUBLISH, CONFIRM, DELETE, HEARTBEAT, PULL, SEND, Cmq
from server_process import Server

from penstock.server.broker.cmq.attributes import Rules
from penstock.server.metrics import cmq
from penstock.server.metrics.board import ROW
from penstock.server.protocols.cmq_tcp.connection import texts
from penstock.server.protocols.http.observe import COUNTERS


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    for name in ("PENSTOCK_ACCESS_KEY", "PENSTOCK_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Server(tmp_path / "store", cmq_tcp="127.0.0.1:0")


def metrics(server: Server) -> dict[str, float]:
    link = http.client.HTTPConnection("127.0.0.1", server.http, timeout=20)
    link.request("GET", "/metrics")
    lines = link.getresponse().read().decode().splitlines()
    link.close()
    return {name: float(value) for name, value in (
        line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def calls(server: Server) -> dict[tuple[str, str, str], int]:
    found = {}
    for name, value in metrics(server).items():
        if name.startswith("penstock_cmq_calls_total"):
            door, action, outcome = (part.split('"')[1] for part in name.split(","))
            found[door, action, outcome] = int(value)
    return found


def until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not look():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def test_the_tables_fit_one_another() -> None:
    assert len(COUNTERS) <= ROW // 8
    assert len(set(cmq.PLACES)) == len(cmq.ROWS)
    assert {outcome for _, _, outcome in texts()} <= set(range(len(cmq.OUTCOMES)))
    assert {module: outcome for module, _, outcome in reversed(texts())}[10200] == cmq.EMPTY
    assert Rules().calls == 0


def test_calls_are_counted_by_door_action_and_outcome(server: Server) -> None:
    with server, Cmq(server.cmq) as wire:
        client = Client(server.http)
        client.good("CreateQueue", queueName="counted")
        client.good("CreateTopic", topicName="news")
        # By the hot path and, for what is odd about them, by the door.
        for more in ({}, {"delaySeconds": "0"}, {"msgBody.1": "x"}):
            client.good("SendMessage", queueName="counted", msgBody="x", **more)
        client.ask("SendMessage", queueName="counted", msgBody="")
        got = [client.good("ReceiveMessage", queueName="counted") for _ in range(3)]
        client.ask("ReceiveMessage", queueName="counted")
        client.good("DeleteMessage", queueName="counted", receiptHandle=got[0]["receiptHandle"])
        client.ask("DeleteMessage", queueName="counted", receiptHandle=got[0]["receiptHandle"])
        client.ask("NoSuchAction")
        client.post(b"%ff")
        queue = (1, b"counted")
        for command, fields in ((SEND, [queue, (2, b"x")]), (SEND, [queue]), (PULL, [queue]),
                                (PULL, [queue]), (DELETE, [queue, (2, 17)]), (HEARTBEAT, None),
                                (BATCH_PUBLISH, [(1, b"news"), (2, b"x")]), (1099, None),
                                (CONFIRM, [queue])):
            wire.call(command, fields)  # type: ignore[arg-type]
        link = client.connection
        for action in ("DescribeCmqQueues", "DescribeCmqQueueDetail", "NoSuchCmqAction"):
            link.request("POST", "/", b"{}", {"X-TC-Action": action})
            link.getresponse().read()
        assert calls(server) == {
            ("v2", "CreateQueue", "ok"): 1, ("v2", "CreateTopic", "ok"): 1,
            ("v2", "SendMessage", "ok"): 3, ("v2", "SendMessage", "refused"): 1,
            ("v2", "ReceiveMessage", "ok"): 3, ("v2", "ReceiveMessage", "empty"): 1,
            ("v2", "DeleteMessage", "ok"): 1, ("v2", "DeleteMessage", "refused"): 1,
            ("v2", "other", "refused"): 2,
            ("tcp", "AUTH", "ok"): 1, ("tcp", "SEND", "ok"): 1, ("tcp", "SEND", "refused"): 1,
            ("tcp", "PULL", "ok"): 1, ("tcp", "PULL", "empty"): 1,
            ("tcp", "DELETE", "refused"): 1, ("tcp", "HEARTBEAT", "ok"): 1,
            ("tcp", "BATCH_PUBLISH", "ok"): 1, ("tcp", "other", "refused"): 1,
            ("tcp", "TRANSACTION_CONFIRM", "refused"): 1,
            ("api3", "DescribeCmqQueues", "ok"): 1,
            ("api3", "DescribeCmqQueueDetail", "refused"): 1, ("api3", "other", "refused"): 1,
        }  # fmt: skip


def test_receivers_that_wait_and_connections_are_seen(server: Server) -> None:
    with server, ExitStack() as stack:
        client = Client(server.http)
        others = [stack.enter_context(Cmq(server.cmq)) for _ in range(3)]
        client.good("CreateQueue", queueName="waited")
        form = client.form("ReceiveMessage", queueName="waited", pollingWaitSeconds="500")
        client.connection.request("POST", "/v2/index.php", form)
        for wire in others[:2]:
            wire.send(PULL, [(1, b"waited"), (2, 500)])
            wire.send(PULL, [(1, b"waited"), (2, 500)])

        def told() -> tuple[float, float, float]:
            found = metrics(server)
            return (found['penstock_cmq_parked{door="http"}'],
                    found['penstock_cmq_parked{door="tcp"}'], found["penstock_cmq_connections"])

        until(lambda: told() == (1, 4, 3))
        others[0].socket.close()
        client.connection.close()
        until(lambda: told() == (0, 2, 2))
