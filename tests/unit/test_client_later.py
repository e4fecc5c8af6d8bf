"""Both clients on what waits, against a server: times, transactions, check-back, atomic sends."""

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from server_process import Server

from penstock import AsyncClient, Client, ExistsError, InvalidError, QueueNotFoundError
from penstock.later import Check

HOUR = 3600.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("client-later") / "s") as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        yield client


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return str(request.node.name).replace("[", ".").replace("]", "")[:100]


def test_a_message_with_a_delay_comes_then(client: Client, name: str) -> None:
    queue = client.queue(name)
    before = time.time()
    receipt = queue.send(b"x", delay=0.2, tag="t")
    assert receipt.pending and queue.receive() == []
    shown = client.pending_message(receipt)
    assert (shown["body"], shown["tag"], shown["queue"]) == ("x", "t", name)
    [message] = queue.receive(wait=10)
    assert (message.body, message.tag) == (b"x", "t") and time.time() >= before + 0.2
    with pytest.raises(QueueNotFoundError):
        client.pending_message(receipt)
    assert queue.send(b"y", delay=0).pending is None


def test_a_time_can_be_a_datetime(client: Client, name: str) -> None:
    queue = client.queue(name)
    at = datetime.now(timezone.utc) + timedelta(hours=1)
    ids = [queue.send(b"a", at=at), queue.send(b"b", at=at.timestamp()),
           queue.send_many([b"c", b"d"], at=at, attributes=[{"key": "k"}, None])]
    due = round(at.timestamp() * 1e6)
    listed = client.pending(name)["messages"]
    assert len(listed) == 4 and all(abs(one["due_us"] - due) <= 1 for one in listed)
    assert queue.send(b"now", at=time.time() - 5).pending is None
    for receipt in ids:
        client.move(receipt, at=at + timedelta(hours=1))
    assert client.pending(name, until_us=due + 10)["messages"][0]["id"] == listed[-1]["id"]
    assert client.cancel(ids[0])["cancelled"] and not client.cancel(ids[0])["cancelled"]
    assert client.cancel(listed[1]["id"])["cancelled"]
    client.move(ids[2].pending, delay=0.01)
    assert [message.body for message in queue.receive(10, wait=10)] == [b"now"]
    assert [message.body for message in queue.receive(10, wait=10)] == [b"c"]


def test_a_list_goes_on(client: Client, name: str) -> None:
    queue = client.queue(name)
    for at in range(25):
        queue.send(b"%d" % at, delay=HOUR)
    found: list[Any] = []
    cursor = None
    while page := client.pending(name, limit=10, cursor=cursor):
        found += page["messages"]
        if (cursor := page["next"]) is None:
            break
    assert len({one["id"] for one in found}) == 25


def test_a_transaction_commits_on_return_and_rolls_back_on_raise(
    client: Client, name: str
) -> None:
    queue = client.queue(name)
    with queue.transaction(b"yes", key="k") as half:
        assert queue.receive() == [] and half.id
    assert half.receipt and half.receipt.offset == 0
    with pytest.raises(ZeroDivisionError), queue.transaction(b"no") as lost:
        raise ZeroDivisionError
    with pytest.raises(ExistsError):
        lost.commit()
    assert not lost.rollback()
    with queue.transaction(b"early") as early:
        first = early.commit()
    assert first.offset == 1 and early.commit()._replace(duplicate=False) == first
    with queue.transaction(b"later", delay=HOUR) as later:
        pass
    assert later.receipt and later.receipt.pending == later.id
    known = queue.transaction(b"known by its id").prepare().id
    assert client.half(known).commit().offset == 2
    with pytest.raises(ExistsError):
        client.half(f"00000000-p{known:015x}").rollback()
    for wrong in ("soon", "00000001-00000001"):
        with pytest.raises(InvalidError):
            client.half(wrong)
    [message, other, _] = queue.receive(10, wait=10)
    assert (message.body, message.key, other.body) == (b"yes", "k", b"early")
    assert client.pending(name, state="half")["messages"] == []


def test_a_producer_that_lost_its_memory_is_asked(client: Client, name: str) -> None:
    queue = client.queue(name)
    asked: list[Check] = []
    verdicts = {b"yes": True, b"no": False}

    def answer(check: Check) -> bool | None:
        asked.append(check)
        if check.checks == 0:
            raise RuntimeError("not yet")
        return None if check.checks == 1 else verdicts[check.body]

    client.on_check("bank", answer)
    for body in verdicts:
        queue.transaction(
            body, producer_group="bank", first_check=0.0, check_every=0.1, tag="t").prepare()
    assert [message.body for message in queue.receive(10, wait=20)] == [b"yes"]
    assert {(check.queue, check.group, check.attributes.tag) for check in asked} == {
        (name, "bank", "t")}
    assert sorted({check.checks for check in asked}) == [0, 1, 2]


def test_checks_are_heard_after_a_reconnect(tmp_path: Path, name: str) -> None:
    heard = threading.Event()
    with Server(tmp_path / "s") as server:
        with Client(f"127.0.0.1:{server.tcp}") as client:
            queue = client.queue(name)
            client.on_check("bank", lambda check: heard.set() or True)
            with client._lock:
                client._link.close()
            queue.transaction(b"x", producer_group="bank", first_check=0.0).prepare()
            assert heard.wait(30)
            assert [message.body for message in queue.receive(wait=20)] == [b"x"]
            assert client.checks is not None
            client.checks.leave("bank")


def test_an_atomic_send_is_in_all_or_in_none(client: Client, name: str) -> None:
    red, blue = client.queue(name + ".red"), client.queue(name + ".blue")
    with client.atomic() as batch:
        batch.send(red, b"r", tag="t")
        batch.send(blue, b"b")
        batch.send(blue, b"later", delay=HOUR)
    assert [receipt.pending is None for receipt in batch.receipts] == [True, True, False]
    assert [receipt.queue for receipt in batch.receipts] == [red.name, blue.name, blue.name]
    assert client.cancel(batch.receipts[2])["cancelled"]
    [message] = red.receive(wait=10)
    assert (message.body, message.tag) == (b"r", "t")
    with pytest.raises(ZeroDivisionError), client.atomic() as none:
        none.send(red, b"never")
        raise ZeroDivisionError
    client.delete(blue.name)
    with pytest.raises(QueueNotFoundError), client.atomic() as none:
        none.send(red, b"never")
        none.send(blue, b"never")
    assert red.receive() == []
    with client.atomic():
        pass


WRONG: list[dict[str, Any]] = [
    {"delay": -1}, {"delay": float("nan")}, {"delay": float("inf")}, {"delay": 1e300},
    {"delay": 1, "at": 5}, {"at": -1}, {"delay": 4000 * 86400.0},
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_times_that_cannot_be_are_named(client: Client, wrong: dict[str, Any]) -> None:
    queue = client.queue("wrong")
    for call in (queue.send, lambda b, **w: queue.send_many([b], **w),
                 lambda b, **w: queue.transaction(b, **w).prepare()):
        with pytest.raises(InvalidError):
            call(b"x", **wrong)
    with pytest.raises(InvalidError):
        queue.transaction(b"x", first_check=13 * HOUR).prepare()
    assert client.pending("wrong")["messages"] == [] and queue.receive() == []


def test_the_async_client_does_the_same(server: Server, name: str) -> None:
    async def all_of_it() -> None:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as client:
            queue = await client.queue(name)
            receipt = await queue.send(b"delayed", delay=HOUR, tag="t")
            many = await queue.send_many([b"a", b"b"], delay=HOUR)
            assert (await client.pending_message(receipt))["body"] == "delayed"
            assert (await client.cancel(many))["cancelled"]
            await client.move(receipt, delay=0.01)
            assert [m.body for m in await queue.receive(wait=10)] == [b"delayed"]
            async with queue.transaction(b"yes") as half:
                pass
            assert half.receipt and half.receipt.offset == 1
            with pytest.raises(ZeroDivisionError):
                async with queue.transaction(b"no") as lost:
                    raise ZeroDivisionError
            with pytest.raises(ExistsError):
                await lost.commit()
            asked: list[Check] = []

            async def answer(check: Check) -> bool | None:
                asked.append(check)
                return True if check.checks else None

            await client.on_check("async bank", answer)
            await queue.transaction(
                b"asked", producer_group="async bank", first_check=0.0, check_every=0.1).prepare()
            bodies: list[bytes] = []
            while len(bodies) < 2:
                bodies += [message.body for message in await queue.receive(10, wait=20)]
            assert bodies == [b"yes", b"asked"] and [check.checks for check in asked] == [0, 1]
            async with client.atomic() as batch:
                batch.send(queue, b"one")
                batch.send(queue, b"two", delay=HOUR)
            assert batch.receipts[1].pending
            await client.checks.leave("async bank")

    asyncio.run(all_of_it())
