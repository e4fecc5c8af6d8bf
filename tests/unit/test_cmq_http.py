"""CMQ over HTTP from outside: who may ask, what comes again, what is odd, a byte at a time."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_http_ask import Client, encoded, signed
from server_process import Server, Wire

KEY, SECRET = "AKIDunit", "a-secret-of-the-tests"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ACCESS_KEY", KEY)
        patch.setenv("PENSTOCK_SECRET_KEY", SECRET)
        with Server(tmp_path_factory.mktemp("store")) as running:
            yield running


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.http, KEY, SECRET)


def count(client: Client, queue: str) -> int:
    return int(client.good("GetQueueAttributes", queueName=queue)["activeMsgNum"])


def test_the_types_that_clients_depend_on(client: Client) -> None:
    client.good("CreateQueue", queueName="types")
    sent = client.good("SendMessage", queueName="types", msgBody="x", clientRequestId="77")
    assert isinstance(sent["msgId"], str) and sent["clientRequestId"] == 77
    got = client.good("ReceiveMessage", queueName="types", clientRequestId="78")
    strings, numbers = ("msgId", "receiptHandle", "msgBody"), (
        "enqueueTime", "firstDequeueTime", "nextVisibleTime", "dequeueCount", "clientRequestId")
    assert all(isinstance(got[one], str) for one in strings)
    assert all(isinstance(got[one], int) for one in numbers)
    assert got["msgId"] == sent["msgId"] and 0 <= int(got["receiptHandle"]) < 1 << 63
    assert client.ask("ReceiveMessage", queueName="types", clientRequestId="5") | {
        "requestId": ""} == {"code": 7000, "message": "(10200)no message", "requestId": "",
                             "clientRequestId": 5}
    assert client.good("DeleteMessage", queueName="types", receiptHandle=got["receiptHandle"],
                       clientRequestId="9")["clientRequestId"] == 9


def test_a_request_that_comes_again_is_answered_as_before(client: Client, server: Server) -> None:
    client.good("CreateQueue", queueName="again")
    form = client.form("SendMessage", queueName="again", msgBody="once")
    first = client.post(form)
    # On the same connection, on another one, and in a way that only the door in Python takes.
    for other, body in ((client, form), (Client(server.http), form), (client, form + b"&")):
        assert other.post(body)["msgId"] == first["msgId"]
    assert count(client, "again") == 1
    got = client.good("ReceiveMessage", queueName="again")
    form = client.form("DeleteMessage", queueName="again", receiptHandle=got["receiptHandle"])
    assert [client.post(form)["code"] for _ in range(3)] == [0, 0, 0]
    assert client.ask(
        "DeleteMessage", queueName="again", receiptHandle=got["receiptHandle"])["code"] == 4430
    form = client.form("CreateQueue", queueName="again2")
    assert client.post(form)["queueId"] == client.post(form)["queueId"]
    assert client.ask("CreateQueue", queueName="again2")["code"] == 4460
    # A refused one is tried again.
    form = client.form("SendMessage", queueName="again3", msgBody="x")
    assert client.post(form)["code"] == 4440
    client.good("CreateQueue", queueName="again3")
    assert client.post(form)["code"] == 0


def test_a_batch_that_comes_again_is_done_once_whichever_worker_it_comes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", SECRET)
    with Server(tmp_path / "store", workers=2) as server:
        client = Client(server.http, KEY, SECRET)
        client.good("CreateQueue", queueName="batch")
        client.good("CreateTopic", topicName="news")
        client.good("Subscribe", topicName="news", subscriptionName="s", protocol="queue",
                    endpoint="batch", notifyContentFormat="SIMPLIFIED")
        bodies = {f"msgBody.{at}": f"{at}" for at in range(5)}

        def everywhere(form: bytes) -> dict[str, Any]:
            """The answer, which all connections get: the kernel spreads them over the workers."""
            found = [Client(server.http, KEY, SECRET).post(form) for _ in range(12)]
            for one in found:
                del one["requestId"]
            assert all(one == found[0] for one in found), found
            return found[0]

        sent = everywhere(client.form("BatchSendMessage", queueName="batch", **bodies))
        late = everywhere(client.form(
            "BatchSendMessage", queueName="batch", delaySeconds="1000", **bodies))
        told = everywhere(client.form("BatchPublishMessage", topicName="news", **bodies))
        one = everywhere(client.form("PublishMessage", topicName="news", msgBody="x"))
        assert len({row["msgId"] for reply in (sent, late, told) for row in reply["msgList"]}
                   | {one["msgId"]}) == 16
        facts = client.good("GetQueueAttributes", queueName="batch")
        assert (facts["activeMsgNum"], facts["delayMsgNum"]) == (11, 5)
        got = client.good("BatchReceiveMessage", queueName="batch", numOfMsg="16")["msgInfoList"]
        assert [row["msgId"] for row in got] == [
            row["msgId"] for row in [*sent["msgList"], *told["msgList"], one]]
        handles = {f"receiptHandle.{at}": row["receiptHandle"] for at, row in enumerate(got)}
        assert everywhere(client.form(
            "BatchDeleteMessage", queueName="batch", **handles)) == {"code": 0, "message": ""}
        some = everywhere(client.form("BatchDeleteMessage", queueName="batch", **{
            "receiptHandle.0": "17", "receiptHandle.1": "18"}))
        assert some["code"] == 6020 and len(some["errorList"]) == 2


def test_clients_that_draw_from_few_numbers_lose_nothing(client: Client) -> None:
    client.good("CreateQueue", queueName="few")
    form = client.form("SendMessage", queueName="few", msgBody="x", Nonce="9999")
    assert client.post(form)["msgId"] != client.post(form)["msgId"]
    assert count(client, "few") == 2


@pytest.mark.parametrize(("change", "code"), [
    ((b"msgBody=m", b"msgBody=n"), "(10030)"), ((b"Nonce=", b"Nonce=1"), "(10030)"),
    ((b"SecretId=AKIDunit", b"SecretId=AKIDelse"), "(10270)"),
    ((b"Signature=", b"Signature=A"), "(10030)"), ((b"Signature=", b"Ignatures="), "(10030)"),
    ((b"Action=", b"Actions="), "(10030)"), ((b"SecretId=AKIDunit", b""), "(10390)"),
])  # fmt: skip
def test_what_was_changed_is_refused(
    client: Client, change: tuple[bytes, bytes], code: str
) -> None:
    form = client.form("SendMessage", queueName="types", msgBody="m")
    answer = client.post(form.replace(*change, 1))
    assert answer["code"] in (4000, 4100) and answer["message"].startswith(code)


@pytest.mark.parametrize(("form", "code"), [
    (b"", 4000), (b"Action", 4000), (b"&&&", 4000), (b"a=1&a=2", 4000), (b"%ff=1", 4000),
    (b"=" * 2000, 4000), (b"a=1&" * 600, 4000),
])  # fmt: skip
def test_what_is_no_request(client: Client, form: bytes, code: int) -> None:
    assert client.post(form)["code"] in (code, 4100)


def test_every_path_and_both_methods(server: Server) -> None:
    for path in ("/", "/v2/index.php", "//v2/index.php"):
        client = Client(server.http, KEY, SECRET, path)
        assert client.good("ListQueue")["totalCount"] >= 0
        pairs = signed(SECRET, {"Action": "ListQueue", "SecretId": KEY, "Nonce": "5",
                                "Timestamp": str(int(time.time()))}, client.host, path, "GET")
        client.connection.request("GET", f"{path}?{encoded(pairs).decode()}")
        assert json.loads(client.connection.getresponse().read())["code"] == 0
    client.connection.request("PUT", "/v2/index.php")
    assert json.loads(client.connection.getresponse().read())["message"].startswith("(10410)")


def raw(form: bytes, path: bytes = b"/v2/index.php", host: str = "h") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Length: %d\r\n\r\n%b" % (
        path, host.encode(), len(form), form)


def test_a_byte_at_a_time_and_many_at_once(server: Server, client: Client) -> None:
    client.good("CreateQueue", queueName="bytes")
    forms = [client.form("SendMessage", queueName="bytes", msgBody=f"m{at}" * (at + 1))
             for at in range(12)]
    with socket.create_connection(("127.0.0.1", server.http), 20) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for letter in raw(forms[0], host=client.host):
            link.sendall(bytes([letter]))
        answers = replies(link, 1)
        # The head is known now: whole, many, cut in the head and cut in the body.
        link.sendall(raw(forms[1], host=client.host))
        answers += replies(link, 1)
        joined = b"".join(raw(form, host=client.host) for form in forms[2:])
        for cut in (1, 300, len(joined) // 2, len(joined) - 3):
            link.sendall(joined[:cut])
            joined = joined[cut:]
            if not joined:
                break
        link.sendall(joined)
        answers += replies(link, 10)
    assert [one["code"] for one in answers] == [0] * 12
    assert len({one["msgId"] for one in answers}) == 12
    bodies = set()
    while len(bodies) < 12:
        got = client.good("BatchReceiveMessage", queueName="bytes", numOfMsg="16",
                          pollingWaitSeconds="3")
        bodies |= {one["msgBody"] for one in got["msgInfoList"]}
    assert bodies == {f"m{at}" * (at + 1) for at in range(12)}


def replies(link: socket.socket, count: int) -> list[dict[str, Any]]:
    """The bodies of so many replies."""
    data, found = b"", []
    while len(found) < count:
        head, blank, rest = data.partition(b"\r\n\r\n")
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) if blank else 0
        if not blank or len(rest) < size:
            more = link.recv(65536)
            assert more
            data += more
            continue
        found.append(json.loads(rest[:size]))
        data = rest[size:]
    return found


def test_bodies_of_every_kind_come_back_as_they_were(client: Client) -> None:
    client.good("CreateQueue", queueName="kinds")
    for body in ("\x00\x01\x1f\x7f\"\\/", "\u2028é世\U0001f600", "+ %2B&=", "x" * 65536):
        client.good("SendMessage", queueName="kinds", msgBody=body)
        assert client.good("ReceiveMessage", queueName="kinds")["msgBody"] == body


def test_a_heap_that_is_full(client: Client) -> None:
    client.good("CreateQueue", queueName="heap", maxMsgHeapNum="3")
    codes = [client.ask("SendMessage", queueName="heap", msgBody="x")["code"] for _ in range(5)]
    assert codes == [0, 0, 0, 4410, 4410]


def test_a_queue_that_was_deleted_or_made_again(client: Client, server: Server) -> None:
    client.good("CreateQueue", queueName="gone")
    client.good("SendMessage", queueName="gone", msgBody="x")
    with Wire(server.tcp) as wire:
        ask = json.dumps({"do": "queue.delete", "name": "gone"}).encode()
        assert wire.call(12, ask)[0] == 0
    for action, more in (("SendMessage", {"msgBody": "x"}), ("ReceiveMessage", {}),
                         ("DeleteMessage", {"receiptHandle": "1"})):
        assert client.ask(action, queueName="gone", **more)["code"] == 4440
    client.good("CreateQueue", queueName="gone", visibilityTimeout="7")
    client.good("SendMessage", queueName="gone", msgBody="y")
    got = client.good("ReceiveMessage", queueName="gone")
    assert got["msgBody"] == "y" and got["nextVisibleTime"] - got["firstDequeueTime"] == 7


def test_when_a_message_was_first_received_is_known_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_ACCESS_KEY", "PENSTOCK_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Server(tmp_path / "store") as server:
        client = Client(server.http)
        client.good("CreateQueue", queueName="firsts", visibilityTimeout="1")
        client.good("SendMessage", queueName="firsts", msgBody="x")
        first = client.good("ReceiveMessage", queueName="firsts")
        assert server.stop() == 0
    with Server(tmp_path / "store") as server:
        client = Client(server.http)
        # Whoever forgot it would say now, which is at least a second later.
        while int(time.time()) <= first["firstDequeueTime"]:
            time.sleep(0.05)
        again = client.good("ReceiveMessage", queueName="firsts", pollingWaitSeconds="20")
        assert again["dequeueCount"] == 2
        assert again["firstDequeueTime"] == first["firstDequeueTime"]
        client.good("DeleteMessage", queueName="firsts", receiptHandle=again["receiptHandle"])


def test_a_clock_that_is_wrong_and_signatures_that_are_odd_are_refused_if_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", SECRET)
    with Server(tmp_path / "store", cmq_clock=600, cmq_strict=True) as strict:
        for port, refuses in ((strict.http, True), (server.http, False)):
            client = Client(port, KEY, SECRET)
            client.good("CreateQueue", queueName="clock")
            for late in (-2000, 2000):
                moment = str(int(time.time()) + late)
                # By the hot path, and by the door.
                for action, more in (("SendMessage", {"msgBody": "x"}), ("ListQueue", {})):
                    told = client.ask(action, queueName="clock", Timestamp=moment, **more)
                    assert told["code"] == (4100 if refuses else 0), told
            moment = str(int(time.time()) - 300)
            client.good("SendMessage", queueName="clock", msgBody="x", Timestamp=moment)
            # Python's client does not sign what begins so.
            form = client.form("SendMessage", queueName="clock") + b"&msgBody=%40x"
            assert client.post(form)["code"] == (4100 if refuses else 0)


def test_without_a_key_this_machine_may_ask_and_keys_close_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PENSTOCK_ACCESS_KEY", "PENSTOCK_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    with Server(tmp_path / "store") as server:
        anyone = Client(server.http)
        anyone.good("CreateQueue", queueName="open")
        anyone.good("SendMessage", queueName="open", msgBody="x")
        with Wire(server.tcp) as wire:
            status, told = wire.call(12, b'{"do": "key.create", "label": "tests"}')
            pair = json.loads(told)
            assert status == 0
            assert anyone.ask("SendMessage", queueName="open", msgBody="x")["code"] == 4000
            assert anyone.ask("ListQueue")["code"] == 4000
            assert Client(server.http, pair["id"], pair["secret"]).good(
                "ReceiveMessage", queueName="open")["msgBody"] == "x"
            assert pair["secret"].encode() not in wire.call(12, b'{"do": "key.list"}')[1]
            ask = json.dumps({"do": "key.delete", "id": pair["id"]}).encode()
            assert wire.call(12, ask)[0] == 0
        anyone.good("ListQueue")
