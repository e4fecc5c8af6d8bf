"""How many connections use the queues of a namespace: one number over all workers and doors."""

from __future__ import annotations

import http.client
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.throttle import Quota

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire, receive_payload, send_payload
from test_server_workers import kill_and_wait, workers
from test_throttle import until

THROTTLED = 13
SEND, SEND_BATCH, RECEIVE, READ, SEND_ALL = 3, 4, 5, 10, 18


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "store", workers=2) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as client:
        yield client


class Web:
    """One HTTP connection."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.http)

    def ask(self, method: str, path: str, body: object = None) -> int:
        self.connection.request(method, path, None if body is None else json.dumps(body),
                                {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        told = reply.read()
        if reply.status == 429:
            assert reply.getheader("Retry-After") == "1" and b"connections" in told
        return reply.status

    def close(self) -> None:
        self.connection.close()


def bound(server: Server, client: penstock.Client, most: int) -> int:
    """A queue a/q of a namespace with room for so many connections, and a topic a/t; its number."""
    client.topic("a/t").create()
    with Wire(server.tcp) as wire:
        number = wire.open("a/q")
    client.admin("quota.set", scope="namespace", name="a", quota={"connections": most})
    return number


def passes(wire: Wire, name: str = "a/q") -> bool:
    status, _ = wire.call(2, bytes(4) + name.encode())
    assert status in (0, THROTTLED)
    return status == 0


def full(server: Server) -> bool:
    """Whether another connection is refused, over each worker."""
    for _ in range(8):
        wire = reached(server)
        if passes(wire):
            wire.close()
            return False
        wire.close()
    return True


def test_one_connection_more_is_refused_by_name_at_every_door(
    server: Server, client: penstock.Client
) -> None:
    number = bound(server, client, 2)
    wires = [Wire(server.tcp) for _ in range(2)]
    until(lambda: all(passes(wire) for wire in wires) and full(server))
    other, web = Wire(server.tcp), Web(server)
    payload = send_payload(number, b"x")
    one = bytes([1, 0, 0, 0])
    batch = payload[:16] + one + bytes(4) + one + b"x"
    all_ = one + one + number.to_bytes(4, "little") + bytes(4) + one + b"x"
    read = number.to_bytes(4, "little") + bytes(28)
    admin = json.dumps({"do": "topic.send", "name": "a/t", "body": ""}).encode()
    for verb, body in ((SEND, payload), (SEND_BATCH, batch), (SEND_ALL, all_), (READ, read),
                       (RECEIVE, receive_payload(number)), (12, admin)):
        status, text = other.call(verb, body)
        assert status == THROTTLED and text[:4] == (1000).to_bytes(4, "little"), verb
        assert b"as many connections" in text
    for method, path, asked in (
        ("POST", "/v1/queues/a%2Fq/messages", {"body": "x"}),
        ("POST", "/v1/queues/a%2Fq/receive", {}), ("GET", "/v1/queues/a%2Fq/peek", None),
        ("POST", "/v1/topics/a%2Ft/messages", {"body": "x"}),
        ("POST", "/v1/topics/a%2Ft/receive", {}),
        ("POST", "/v1/atomic", {"messages": [{"queue": "a/q", "body": "x"}]}),
    ):
        assert web.ask(method, path, asked) == 429, path
    # Nothing was stored; those who are in go on, and what is in no namespace is free.
    assert client.show("a/q")["next"] == 0
    assert all(wire.call(SEND, payload)[0] == 0 for wire in wires)
    assert passes(other, "a/q") is False and other.open("free") > 0
    assert web.ask("PUT", "/v1/queues/free2") == 201
    assert web.ask("POST", "/v1/queues/free2/messages", {"body": "x"}) == 201
    # A client is told by an error of its own, with the time.
    with penstock.connect(f"127.0.0.1:{server.tcp}") as late:
        with pytest.raises(penstock.ThrottledError) as refused:
            late.queue("a/q")
        assert refused.value.retry_after_ms == 1000
    # Who goes makes room, for a connection of any door; it counts once whatever it asks.
    wires.pop().close()
    until(lambda: web.ask("POST", "/v1/queues/a%2Fq/messages", {"body": "x"}) == 201)
    assert web.ask("POST", "/v1/topics/a%2Ft/messages", {"body": "x"}) == 201
    assert full(server)
    # What was received over one connection can be confirmed over any.
    receipt = wires[0].call(RECEIVE, receive_payload(number))[1][8:32]
    assert other.call(6, (1).to_bytes(4, "little") + receipt) == (
        0, (1).to_bytes(4, "little") + bytes(1))
    web.close()
    until(lambda: passes(other))
    client.admin("quota.remove", scope="namespace", name="a")
    until(lambda: not full(server))
    for wire in (*wires, other):
        wire.close()


def test_what_a_worker_that_died_had_counted_is_forgotten(
    server: Server, client: penstock.Client
) -> None:
    bound(server, client, 3)
    wires = [Wire(server.tcp) for _ in range(3)]
    until(lambda: all(passes(wire) for wire in wires) and full(server))
    for worker in sorted(workers(server)):
        kill_and_wait(server, worker)
    for wire in wires:
        wire.close()

    def three_more() -> bool:
        again: list[Wire] = []
        try:
            again += [reached(server) for _ in range(3)]
            return all(passes(wire) for wire in again) and full(server)
        finally:
            for wire in again:
                wire.close()

    until(three_more)


def reached(server: Server) -> Wire:
    """A connection to whichever worker listens by now."""
    while True:
        try:
            wire = Wire(server.tcp, hello=False)
        except ConnectionRefusedError:
            time.sleep(0.02)
            continue
        try:
            assert wire.call(1, b"PNST" + bytes([1]) + bytes(11))[0] == 0
            return wire
        except (AssertionError, OSError):
            wire.close()
            time.sleep(0.02)


@pytest.mark.parametrize(("scope", "given"), [
    ("queue", {"connections": 1}), ("namespace", {"connections": -1}),
    ("namespace", {"connections": 1 << 32}), ("key", {"connections": 1}),
])
def test_what_cannot_be_is_refused(scope: str, given: dict[str, Any]) -> None:
    with pytest.raises(BrokerError) as refused:
        Quota(**given).check(scope)
    assert refused.value.kind is Kind.INVALID
