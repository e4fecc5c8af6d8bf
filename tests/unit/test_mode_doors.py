"""Consuming by offset, as members, and once per id: through HTTP, both clients and commands."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock import AsyncClient, Client, ExistsError, InvalidError, QueueNotFoundError
from penstock.engine import Store
from penstock.membership import Membership
from penstock.server import cli
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError
from penstock.server.broker.limits import Limits
from penstock.server.broker.modes import Members

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server, Wire, frame
from test_http_door import ask

RED = "/v1/queues/red"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"127.0.0.1:{server.tcp}") as client:
        client.queue("red").send_many([b"%d" % at for at in range(10)])
        yield client
        client.delete("red")


def told(server: Server, capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    at = ("--server", f"127.0.0.1:{server.tcp}", "-o", "json")
    assert cli.main([*words, *at]) == cli.EXIT_OK
    out = capsys.readouterr().out
    return json.loads(out) if out else None


def bodies(messages: list[Any]) -> list[bytes]:
    return [message.body for message in messages]


def test_a_reader_goes_on_at_its_stored_offset(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(QueueNotFoundError):
        client.offset("red", "reader")
    assert ask(server, "GET", f"{RED}/offsets/reader")[0] == 404
    made = client.commit_offset("red", "reader", offset=4)
    assert made == {"queue": "red", "group": "reader", "offset": 4, "first": 0, "end": 10}
    found = client.queue("red").peek(offset=made["offset"], max_messages=3)
    assert bodies(found) == [b"4", b"5", b"6"]
    assert ask(server, "PUT", f"{RED}/offsets/reader", {"offset": 7})[1]["offset"] == 7
    assert ask(server, "PUT", f"{RED}/offsets/reader", {"offset": 5})[1]["offset"] == 7
    assert ask(server, "GET", f"{RED}/offsets/reader")[1]["offset"] == 7
    back = {"offset": 5, "reset": True}
    assert ask(server, "PUT", f"{RED}/offsets/reader", back)[1]["offset"] == 5
    assert told(server, capsys, "offset", "red", "reader", "--commit", "8")[0]["offset"] == 8
    assert told(server, capsys, "offset", "red", "reader")[0]["offset"] == 8
    assert client.lag("red", "reader")["groups"][0]["lag"] == 2
    assert client.explain("red", 3, group="reader")["reason"] == "confirmed"
    events = client.trace("red", 3)["events"]
    assert [one["to"] for one in events if one.get("group") == "reader"] == [4, 7, 5, 8]
    # The same offset is where the group's leases begin.
    assert bodies(client.queue("red", group="reader").receive(9)) == [b"8", b"9"]


def test_a_reader_waits_over_http_for_what_comes(server: Server, client: Client) -> None:
    status, answer, _ = ask(server, "GET", f"{RED}/peek?offset=10&wait_ms=1")
    assert (status, answer["messages"]) == (200, [])
    timer = threading.Timer(0.05, lambda: client.queue("red").send(b"new"))
    timer.start()
    status, answer, _ = ask(server, "GET", f"{RED}/peek?offset=10&wait_ms=9000")
    timer.join()
    assert [one["body"] for one in answer["messages"]] == ["new"]
    assert ask(server, "GET", f"{RED}/peek?wait_ms=600001")[0] == 400


def test_each_member_gets_everything(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = client.queue("red")
    client.set_filter("red", "cache", "a || b")
    one = queue.member("one", "cache", start="earliest")
    two = queue.member("two", "cache")
    queue.send(b"x", tag="a")
    queue.send(b"y", tag="c")
    for member in (one, two):
        [message] = member.receive(10, wait=5)
        assert message.body == b"x"
        message.confirm()
    # What is set for the group later is set for all of its members.
    client.set_filter("red", "cache", "")
    queue.send(b"z", tag="c")
    assert bodies(one.receive(10, wait=5)) == bodies(two.receive(10, wait=5)) == [b"z"]
    assert [row["member"] for row in client.members("red", "cache")["members"]] == ["one", "two"]
    # A lasting member goes on where it was.
    again = queue.member("one", "cache", start="earliest")
    assert bodies(again.receive(10)) == []
    status, joined, _ = ask(server, "PUT", f"{RED}/members/cache", {"member": "three"})
    assert (status, joined["group"], joined["new"]) == (200, "cache@three", True)
    assert len(ask(server, "GET", f"{RED}/members/cache")[1]["members"]) == 3
    assert ask(server, "DELETE", f"{RED}/members/cache", {"member": "three"})[0] == 200
    assert ask(server, "DELETE", f"{RED}/members/cache", {"member": "three"})[0] == 404
    told(server, capsys, "member", "join", "red", "cache", "four", "--idle", "60")
    assert len(told(server, capsys, "member", "list", "red", "cache")) == 3
    told(server, capsys, "member", "leave", "red", "cache", "four")
    with pytest.raises(QueueNotFoundError):
        client.queue("red", group="cache@four")

    async def other() -> list[bytes]:
        async with AsyncClient(f"127.0.0.1:{server.tcp}") as beside:
            member = await (await beside.queue("red")).member("five", start="earliest", idle=30)
            return bodies(await member.receive(3, wait=5))

    assert asyncio.run(other()) == [b"0", b"1", b"2"]


def test_a_member_that_is_idle_goes_and_a_lasting_one_stays(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        broker = Broker(store, Limits())
        members = Members(broker)
        store.queue("red").append(b"")
        store.queue("red").group("g").configure(order="key")

        def join(name: str, idle_ms: int, now_us: int) -> bool:
            ask = asks.MemberJoin(member=name, queue="red", group="g", idle_ms=idle_ms)
            return bool(members.join(ask, now_us)["new"])

        assert join("idle", 10_000, 0) and join("lasting", 0, 0)
        assert not join("idle", 10_000, 5_000_000)
        assert members.sweep(14_999_999) == 0
        assert members.sweep(15_000_000) == 1
        assert sorted(store.queue("red").groups()) == ["", "g", "g@lasting"]
        assert store.queue("red").group("g@lasting").settings()["order"] == "key"
        assert join("idle", 10_000, 20_000_000)
        with pytest.raises(BrokerError, match="lasting"):
            join("lasting", 10_000, 0)
        assert not join("idle", 0, 20_000_000) and members.sweep(1 << 60) == 0
        # Of a queue that was deleted meanwhile nothing is left but the note, and then not that.
        join("idle2", 1, 0)
        store.delete("red")
        assert members.sweep(1 << 60) == 1 and store.notes("member/") == {}


def test_a_sweep_that_was_cut_off_is_finished(tmp_path: Path) -> None:
    with Store.open(tmp_path / "store") as store:
        members = Members(Broker(store, Limits()))
        store.queue("red")
        members.join(asks.MemberJoin(member="m", queue="red", group="g", idle_ms=1), 0)
        [(name, raw)] = store.notes("member/").items()
        store.note(name, raw.replace(b'"gone": false', b'"gone": true'))
        with pytest.raises(BrokerError, match="being removed"):
            members.join(asks.MemberJoin(member="m", queue="red", group="g", idle_ms=1), 0)
        assert members.sweep(0) == 1
        assert members.join(asks.MemberJoin(member="m", queue="red", group="g"), 0)["new"]


def test_a_membership_is_renewed_in_time() -> None:
    kept = Membership("red", "g", "m", 30)
    assert kept.due(100) and not kept.due(109) and kept.due(110)
    assert kept.longest(60) == 10 and kept.longest(5) == 5
    assert not Membership("red", "g", "m", 0).due(1e9)
    with pytest.raises(InvalidError):
        Membership("red", "g", "m", 0.5)


def test_a_message_with_a_known_id_is_stored_once(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    assert client.configure("red", dedup_ms=60_000)["dedup_ms"] == 60_000
    queue = client.queue("red")
    first = queue.send(b"a", message_id="1")
    again = queue.send(b"a", message_id="1")
    assert (first.duplicate, again.duplicate, again.offset) == (False, True, first.offset)
    status, sent, _ = ask(server, "POST", f"{RED}/messages", {"body": "a", "message_id": "1"})
    assert (status, sent["duplicate"], sent["offset"]) == (201, True, first.offset)
    for duplicate in (False, True):
        status, sent, _ = ask(server, "POST", f"{RED}/messages", b"b", Penstock_Message_Id="2",
                              Content_Type="application/octet-stream")
        assert (status, sent.get("duplicate", False)) == (201, duplicate)
    batch = queue.send_many([b"c", b"a"], attributes=[{"message_id": "3"}, {"message_id": "1"}])
    assert batch.duplicate and client.show("red")["next"] == 13
    [row] = told(server, capsys, "queue", "set", "red", "--dedup-count", "100", "--keep", "all")
    assert (row["dedup_count"], row["dedup_ms"], row["keep"]) == (100, 60_000, "all")
    assert ask(server, "PUT", f"{RED}/settings", {"dedup_ms": 0})[1]["dedup_ms"] == 0
    assert ask(server, "GET", f"{RED}/settings")[1]["dedup_count"] == 100
    assert not queue.send(b"a", message_id="1").duplicate


def test_a_confirmation_that_is_asked_again_is_done_again(server: Server, client: Client) -> None:
    receipts = [one["receipt"] for one in
                ask(server, "POST", f"{RED}/receive", {"max_messages": 3})[1]["messages"]]

    def confirm(**more: Any) -> list[str]:
        answer = ask(server, "POST", f"{RED}/confirm", {"receipts": receipts, **more})[1]
        return list(answer["verdicts"])

    assert confirm() == ["done"] * 3
    assert confirm() == ["stale"] * 3
    assert confirm(again=True) == ["done"] * 3
    raw = client.queue("red").receive(1)[0].receipt
    with Wire(server.tcp) as wire:
        payload = (1).to_bytes(4, "little") + raw
        assert wire.call(6, payload) == (0, b"\1\0\0\0\0")
        assert wire.call(6, payload) == (0, b"\1\0\0\0\1")
        again = bytearray(frame(6, 77, payload))
        again[5] = 1
        wire.socket.sendall(again)
        assert wire.reply() == (0x86, 0, 77, b"\1\0\0\0\0")
        # No other verb has a flag.
        flagged = bytearray(frame(13, 1, b""))
        flagged[5] = 1
        wire.socket.sendall(flagged)
        assert wire.reply()[1] == 1


WRONG: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("offset.commit", "offsets/g", {}, "offset"),
    ("offset.commit", "offsets/g", {"offset": -1}, "offset"),
    ("offset.commit", "offsets/g", {"offset": 11}, "beyond the end"),
    ("offset.commit", "offsets/g", {"offset": "1"}, "offset"),
    ("offset.commit", "offsets/g", {"offset": 1, "colour": 1}, "colour"),
    ("offset.commit", "offsets/g@x", {"offset": 1}, "a name is"),
    ("member.join", "members/g", {}, "member"),
    ("member.join", "members/g", {"member": ""}, "member"),
    ("member.join", "members/g", {"member": "a@b"}, "a name is"),
    ("member.join", "members/g", {"member": "a/b"}, "no /"),
    ("member.join", "members/g", {"member": "x" * 65}, "member"),
    ("member.join", "members/" + "g" * 120, {"member": "x" * 20}, "128"),
    ("member.join", "members/", {"member": "m"}, "a name is"),
    ("member.join", "members/g", {"member": "m", "start": "middle"}, "start"),
    ("member.join", "members/g", {"member": "m", "idle_ms": 86_400_001}, "idle"),
    ("queue.set", "settings", {"dedup_ms": -1}, "dedup_ms"),
    ("queue.set", "settings", {"dedup_count": 262_145}, "dedup_count"),
    ("queue.set", "settings", {"keep": "some"}, "keep"),
    ("queue.set", "settings", {"retain_ms": 1 << 53}, "retain_ms"),
)


@pytest.mark.parametrize(("do", "target", "fields", "text"), WRONG)
def test_what_cannot_be_is_refused_through_every_door(
    do: str, target: str, fields: dict[str, Any], text: str, server: Server, client: Client
) -> None:
    group = target.partition("/")[2]
    named = {"queue": "red"} | ({} if do == "queue.set" else {"group": group})
    with pytest.raises(InvalidError, match=text):
        client.admin(do, **named, **fields)
    status, problem, _ = ask(server, "PUT", f"{RED}/{target}", fields)
    assert (status, problem["type"]) == (400, "urn:penstock:problem:invalid")
    assert text in problem["detail"]


def test_what_is_not_there_is_told(
    server: Server, client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    for target in ("groups/none", "members/g", "offsets/none"):
        body = {"member": "m"} if "members" in target else None
        method = "DELETE" if "offsets" not in target else "GET"
        assert ask(server, method, f"{RED}/{target}", body)[0] == 404
    assert ask(server, "PUT", "/v1/queues/none/offsets/g", {"offset": 0})[0] == 404
    assert ask(server, "DELETE", f"{RED}/groups/")[0] == 400
    client.commit_offset("red", "g", offset=1)
    told(server, capsys, "group", "red", "g", "--delete")
    with pytest.raises(QueueNotFoundError):
        client.delete_group("red", "g")
    client.join_member("red", "g", "m")
    with pytest.raises(ExistsError, match="lasting"):
        client.join_member("red", "g", "m", idle=5)
