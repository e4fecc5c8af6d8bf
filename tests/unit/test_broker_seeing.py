"""Looking into a store through the broker: explain, find, trace, lag, rewind; hostile asks."""

import re
from pathlib import Path
from typing import Any

import pytest
from engine_language import LONG, opened, quiet, split
from penstock.engine import Attributes, Store
from penstock.engine._core import Inspector
from penstock.engine.retries import Retry
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.explain import REASONS, explain
from penstock.server.broker.lag import Rates, Sample, rates
from penstock.server.broker.limits import Limits
from penstock.server.broker.seeing import Seeing


@pytest.fixture
def store(tmp_path: Path) -> Store:
    with quiet(opened(tmp_path)) as store:
        yield store


@pytest.fixture
def ask(store: Store) -> Any:
    seeing = Seeing(Broker(store, Limits()))
    return lambda do, **fields: seeing(do, fields)


def refused(ask: Any, kind: Kind, do: str, **fields: Any) -> str:
    with pytest.raises(BrokerError) as raised:
        ask(do, **fields)
    assert raised.value.kind is kind
    return raised.value.text


def test_one_answer_says_why(store: Store, ask: Any) -> None:
    queue = store.queue("red")
    queue.append_many([b"%d" % at for at in range(6)])
    own = queue.group()
    _, delayed, ready, done = split(own.receive(4, lease_ms=LONG).receipts)
    own.release(delayed, delay_ms=LONG)
    own.release(ready)
    own.confirm(done)
    answers = [ask("explain", queue="red", offset=at) for at in range(7)]
    assert [one["reason"] for one in answers] == [
        "leased", "waiting", "ready", "confirmed", "fresh", "fresh", "absent"]
    assert [one["deliverable"] for one in answers] == [False, False, True, False, True, True, False]
    # As long as it took to ask, and no longer than the lease.
    left = re.search(r"lease, for ([\d.]+) s more; it was delivered once", answers[0]["text"])
    assert left and 0 < float(left[1]) <= LONG / 1000
    assert answers[2]["text"].endswith("and it is the next; it was delivered once.")
    assert "after 2 before it" in answers[5]["text"]
    assert ask("explain", id=answers[4]["id"])["reason"] == "fresh"
    store.delete("red")
    assert ask("explain", id=answers[4]["id"])["reason"] == "deleted"


def test_the_last_delivery_is_said_to_be_one(store: Store, ask: Any) -> None:
    queue, group = store.queue("red"), store.queue("red").group()
    store.queue("dead")
    queue.append_many([b"0", b"1"])
    group.configure(retry=Retry(1, "dead", ()))
    group.receive(1, lease_ms=LONG)
    answer = ask("explain", queue="red", offset=0)
    assert answer["reason"] == "leased" and answer["facts"]["last"]
    assert answer["text"].endswith("it was delivered once, the last time.")
    group.receive(1, lease_ms=0)
    answer = ask("explain", queue="red", offset=1)
    assert (answer["reason"], answer["deliverable"]) == ("used up", False)
    assert not len(group.receive(1))
    store._flush()
    assert ask("explain", queue="red", offset=1)["reason"] == "confirmed"
    assert [one["what"] for one in ask("trace", queue="red", offset=1)["events"]][-1] == "copied"
    assert ask("explain", queue="dead", offset=0)["deliverable"]


def test_every_state_has_a_reason(store: Store) -> None:
    from penstock.engine._core import STATES

    assert set(STATES) | {"poisoned", "deleted", "filtered", "used up"} == set(REASONS)
    store.queue("red").append(b"m")
    store._fault(2, 5)
    with pytest.raises(Exception, match="failed"):
        store.queue("red").append(b"n")
    group = store.queue("red").groups()[""]
    assert explain(Inspector(store), store.queue("red"), "", group, 0).reason == "poisoned"


def test_find_says_how_far_it_looked_and_goes_on(store: Store, ask: Any) -> None:
    queue = store.queue("red")
    for at in range(30):
        tag = "even" if at % 2 == 0 else "odd"
        queue.append(b"body %d" % at + b"." * 5000, attributes=Attributes(
            tag=tag, id=f"mine-{at}", properties={"n": str(at % 3)}))
    queue.append(b"\xff")
    page = ask("find", queue="red", tag="even", limit=10)
    assert [one["offset"] for one in page["messages"]] == list(range(0, 20, 2))
    assert (page["searched"], page["of"], page["next"], page["damaged"]) == (19, 31, 19, 0)
    page = ask("find", queue="red", tag="even", limit=10, cursor=page["next"])
    assert [one["offset"] for one in page["messages"]] == list(range(20, 30, 2))
    assert page["next"] is None and page["searched"] == page["of"] == 31
    [one] = ask("find", queue="red", message_id="mine-7")["messages"]
    assert one["message_id"] == "mine-7" and one["properties"] == {"n": "1"}
    assert one["cut"] and len(one["body"]) == 1024 and one["size"] == 5006
    [same] = ask("find", queue="red", id=one["id"])["messages"]
    assert same == one
    both = ask("find", queue="red", properties={"n": "2"}, text="body 1", to_offset="20")
    assert [one["offset"] for one in both["messages"]] == [11, 14, 17]
    assert ask("find", queue="red", from_offset=30)["messages"][0]["body_base64"] == "/w=="
    since = ask("find", queue="red", since_us=one["stored_us"], until_us=one["stored_us"] + 1)
    assert 7 in [one["offset"] for one in since["messages"]]


def test_find_counts_what_is_damaged(store: Store, ask: Any) -> None:
    queue = store.queue("red")
    queue.append_many([b"needle %d" % at for at in range(5)])
    position = Inspector(store).message(queue.id, queue.groups()[""], 2)["position"]
    log = Path(store.path, "log", f"{position >> 32:08x}.seg")
    with open(log, "r+b") as file:
        file.seek((position & 0xFFFFFFFF) + 50)
        file.write(b"X")
    found = ask("find", queue="red", text="needle")
    assert [one["offset"] for one in found["messages"]] == [0, 1, 3, 4] and found["damaged"] == 1
    assert ask("explain", queue="red", offset=2)["reason"] == "damaged"


def test_a_trace_tells_the_life_of_a_message(store: Store, ask: Any) -> None:
    queue, other = store.queue("red"), store.queue("blue")
    queue.append_many([b"a", b"b"], producer=9, sequence=1)
    receipts = split(queue.group().receive(2, lease_ms=LONG).receipts)
    queue.group().confirm(receipts[0])
    queue.group("audit")
    store._place(other, Inspector(store).message(queue.id, queue.groups()[""], 0)["position"])
    queue.group().seek(offset=0)
    queue.purge()
    told = ask("trace", queue="red", offset=0)
    assert [one["what"] for one in told["events"]] == [
        "sent", "visible", "confirmed", "copied", "rewound", "purged"]
    sent, visible, confirmed, copied, rewound, purged = told["events"]
    assert (sent["producer"], sent["sequence"]) == (9, 1)
    assert visible["time_us"] >= sent["time_us"]
    assert confirmed["group"] == "" and (copied["queue"], copied["offset"]) == ("blue", 0)
    assert (rewound["to"], rewound["again"], purged["to"]) == (0, True, 2)
    assert told["now"] == {"": "purged", "audit": "purged"}
    assert told["searched"] == told["of"] and told["next"] is None and told["skipped"] == 0


def test_lag_in_messages_age_and_time(store: Store, ask: Any) -> None:
    queue = store.queue("red")
    queue.append_many([b"m"] * 10)
    queue.group("late")
    receipts = split(queue.group().receive(10, lease_ms=LONG).receipts)
    queue.group().confirm(b"".join(receipts[:4]))
    rows = {one["group"]: one for one in ask("lag", queue="red")["groups"]}
    assert (rows[""]["lag"], rows["late"]["lag"], rows[""]["oldest"]) == (6, 10, 4)
    assert 0 <= rows["late"]["oldest_age_s"] < 60 and rows[""]["drain_s"] is None
    assert len(ask("lag", queue="red", group="late")["groups"]) == 1
    pages = [ask("lag", limit=1)]
    while pages[-1]["next"]:
        pages.append(ask("lag", limit=1, cursor=pages[-1]["next"]))
    assert {one["group"] for page in pages for one in page["groups"]} == {"", "late"}


def test_rates_come_from_two_looks() -> None:
    assert rates(Sample(0, 100, 40), Sample(2_000_000, 120, 100), 20) == {
        "sent_per_s": 10.0, "done_per_s": 30.0, "drain_s": 1.0}
    assert rates(Sample(0, 100, 40), Sample(1_000_000, 200, 50), 150)["drain_s"] is None
    assert rates(Sample(0, 100, 90), Sample(1_000_000, 100, 10), 90)["done_per_s"] is None
    book, lag = Rates(2), {"visible": 10, "lag": 10}
    assert book.look(1, 1, 0, lag)["sent_per_s"] is None
    assert book.look(1, 1, 1_000_000, {"visible": 20, "lag": 5}) == {
        "sent_per_s": 10.0, "done_per_s": 15.0, "drain_s": 1.0}
    # A look at once after the last one has the last rates; they are not those of a moment.
    assert book.look(1, 1, 1_000_001, {"visible": 21, "lag": 5})["sent_per_s"] == 10.0
    for group in range(2, 9):
        book.look(1, group, 0, lag)
    assert len(book.samples) <= 2


def test_a_rewind_can_be_tried_and_done_beside(store: Store, ask: Any) -> None:
    queue = store.queue("red")
    queue.append_many([b"m"] * 100)
    receipts = split(queue.group().receive(50, lease_ms=LONG).receipts)
    queue.group().confirm(b"".join(receipts[:30] + receipts[40:45]))
    before = queue.group().stat()
    tried = ask("rewind", queue="red", relative="-25", dry_run=True)
    assert (tried["offset"], tried["messages"], tried["again"]) == (25, 75, 10)
    assert tried["dry_run"] and tried["skipped"] == 0
    forward = ask("rewind", queue="red", offset=60, dry_run=True)
    assert (forward["messages"], forward["again"], forward["skipped"]) == (40, 0, 25)
    beside = ask("rewind", queue="red", to="earliest", shadow="again")
    assert (beside["shadow"], beside["messages"]) == ("again", 100)
    assert len(queue.group("again").receive(200)) == 100
    refused(ask, Kind.EXISTS, "rewind", queue="red", to="earliest", shadow="again")
    assert queue.group().stat() == before
    done = ask("rewind", queue="red", relative="-25")
    assert (done["offset"], done["again"]) == (25, 10)
    assert queue.group().receive(1).offsets.tolist() == [25]
    assert ask("rewind", queue="red", relative="-2h")["offset"] == 0
    assert ask("rewind", queue="red", relative="+1d")["offset"] == 100


HOSTILE: list[tuple[str, dict[str, Any], Kind]] = [
    ("explain", {"queue": "red"}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": 1, "id": "00000001-0000000000000000"}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": -1}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": 1 << 63}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": "x"}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": [1]}, Kind.INVALID),
    ("explain", {"queue": "none", "offset": 1}, Kind.NOT_FOUND),
    ("explain", {"queue": "red", "offset": 1, "group": "none"}, Kind.NOT_FOUND),
    ("explain", {"id": "00000001"}, Kind.INVALID),
    ("explain", {"id": "../../store"}, Kind.INVALID),
    ("explain", {"queue": "../red", "offset": 1}, Kind.INVALID),
    ("explain", {"queue": "red", "offset": 1, "more": 1}, Kind.INVALID),
    ("trace", {"queue": "red", "offset": 99}, Kind.INVALID),
    ("trace", {"queue": "red", "offset": 0, "cursor": -1}, Kind.INVALID),
    ("find", {"queue": "red", "id": "mine-7"}, Kind.INVALID),
    ("find", {"queue": "red", "limit": 0}, Kind.INVALID),
    ("find", {"queue": "red", "limit": 1001}, Kind.INVALID),
    ("find", {"queue": "red", "text": "x" * 5000}, Kind.INVALID),
    ("find", {"queue": "red", "properties": {"": "x"}}, Kind.INVALID),
    ("find", {"queue": "red", "properties": {"p" * 300: "x"}}, Kind.INVALID),
    ("find", {"queue": "red", "properties": "x"}, Kind.INVALID),
    ("lag", {"queue": "none"}, Kind.NOT_FOUND),
    ("lag", {"queue": "red", "group": "none"}, Kind.NOT_FOUND),
    ("rewind", {"queue": "red"}, Kind.INVALID),
    ("rewind", {"queue": "red", "offset": 1, "to": "earliest"}, Kind.INVALID),
    ("rewind", {"queue": "red", "to": "middle"}, Kind.INVALID),
    ("rewind", {"queue": "red", "relative": "2h"}, Kind.INVALID),
    ("rewind", {"queue": "red", "relative": "-2y"}, Kind.INVALID),
    ("rewind", {"queue": "red", "to": "earliest", "shadow": "a b"}, Kind.INVALID),
    ("rewind", {"queue": "red", "to": "earliest", "group": "none"}, Kind.NOT_FOUND),
]


@pytest.mark.parametrize(("do", "fields", "kind"), HOSTILE)
def test_what_makes_no_sense_is_refused_by_name(
    store: Store, ask: Any, do: str, fields: dict[str, Any], kind: Kind
) -> None:
    store.queue("red").append(b"m")
    assert refused(ask, kind, do, **fields)
    assert store.queue("red").group().stat()["cursor"] == 0


@pytest.mark.parametrize("cursor", [1, 4096, (1 << 32) + 5, 1 << 62, (1 << 63) - 1])
def test_a_made_up_cursor_does_no_harm(store: Store, ask: Any, cursor: int) -> None:
    store.queue("red").append(b"m")
    told = ask("trace", queue="red", offset=0, cursor=cursor)
    assert told["next"] is None
    assert ask("find", queue="red", cursor=cursor)["next"] is None
    assert ask("lag", cursor=cursor)["next"] is None


def test_a_message_of_a_fan_out_is_traced_in_each_of_its_queues(store: Store, ask: Any) -> None:
    queues = [store.queue(name) for name in ("red", "blue")]
    store.fanout(queues, b"m")
    for queue in queues:
        receipt = queue.group().receive(1, lease_ms=LONG).receipts
        queue.group().confirm(receipt)
        told = ask("trace", queue=queue.name, offset=0)["events"]
        assert [one["what"] for one in told] == ["sent", "visible", "confirmed"]
