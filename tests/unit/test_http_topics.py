"""Topics over HTTP, from outside."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_http_door import OCTETS, Server, ask


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("store")) as running:
        yield running


def test_a_topic_lives_grows_and_dies(server: Server) -> None:
    assert ask(server, "GET", "/v1/topics/life")[0] == 404
    assert ask(server, "PUT", "/v1/topics/life?partitions=2")[0] == 201
    status, shown, _ = ask(server, "PUT", "/v1/topics/life?partitions=3")
    assert (status, shown["partitions"]) == (200, 3)
    assert ask(server, "PUT", "/v1/topics/life?partitions=1")[0] == 400
    assert ask(server, "GET", "/v1/topics")[1] == {"topics": ["life"], "next": None}
    assert len(ask(server, "GET", "/v1/topics/life")[1]["messages"]) == 3
    assert ask(server, "GET", "/v1/queues")[1]["queues"] == []
    assert ask(server, "DELETE", "/v1/topics/life")[0] == 204
    assert ask(server, "GET", "/v1/topics/life")[0] == 404


def test_groups_and_queues_get_what_is_published(server: Server) -> None:
    ask(server, "PUT", "/v1/topics/orders?partitions=2")
    subscribed = ask(server, "PUT", "/v1/topics/orders/subscriptions/paid",
                     {"kind": "tag", "source": "paid"})
    assert subscribed[:2] == (201, {"queue": "paid", "kind": "tag", "source": "paid"})
    for n, tag in enumerate(("paid", "new", "paid")):
        status, sent, _ = ask(
            server, "POST", "/v1/topics/orders/messages", {"body": f"m{n}", "tag": tag})
        assert (status, sent["queues"], sent["durability"]) == (201, int(tag == "paid"), "disk")
    status, sent, _ = ask(server, "POST", "/v1/topics/orders/messages?partition=1", b"\xff",
                          Penstock_Tag="paid", **OCTETS)
    assert (status, sent["partition"], sent["queues"]) == (201, 1, 1)
    got = ask(server, "POST", "/v1/queues/paid/receive", {"max_messages": 9})[1]["messages"]
    assert [one.get("body") for one in got] == ["m0", "m2", None]
    for group in ("one", "two"):
        seen, receipts = [], []
        while True:
            asked = {"group": group, "max_messages": 9}
            found = ask(server, "POST", "/v1/topics/orders/receive", asked)[1]["messages"]
            if not found:
                break
            seen += [one.get("body") for one in found]
            receipts += [one["receipt"] for one in found]
        assert sorted(seen, key=str) == [None, "m0", "m1", "m2"]
        confirmed = ask(server, "POST", "/v1/topics/orders/confirm",
                        {"group": group, "receipts": receipts})
        assert confirmed[1] == {"verdicts": ["done"] * 4}
    assert ask(server, "DELETE", "/v1/topics/orders/subscriptions/paid")[0] == 204
    assert ask(server, "DELETE", "/v1/topics/orders/subscriptions/paid")[0] == 404


def test_a_subscription_begins_where_it_is_told(server: Server) -> None:
    ask(server, "PUT", "/v1/topics/past")
    ask(server, "POST", "/v1/topics/past/messages", {"body": "old"})
    ask(server, "PUT", "/v1/topics/past/subscriptions/all", {"start": "earliest"})
    ask(server, "PUT", "/v1/topics/past/subscriptions/fresh", {})
    ask(server, "POST", "/v1/topics/past/messages", {"body": "new"})
    for queue, bodies in (("all", ["old", "new"]), ("fresh", ["new"])):
        got = ask(server, "POST", f"/v1/queues/{queue}/receive", {"max_messages": 9})[1]
        assert [one["body"] for one in got["messages"]] == bodies


@pytest.mark.parametrize(("method", "path", "body", "status"), [
    ("PUT", "/v1/topics/a%23b", None, 400),
    ("PUT", "/v1/topics/t?partitions=0", None, 400),
    ("PUT", "/v1/topics/t?partitions=257", None, 400),
    ("POST", "/v1/topics/none/messages", {"body": "x"}, 404),
    ("POST", "/v1/topics/none/receive", {}, 404),
    ("PUT", "/v1/topics/bad/subscriptions/q", {"kind": "sql", "source": "a >"}, 400),
    ("PUT", "/v1/topics/bad/subscriptions/q", {"kind": "other"}, 400),
    ("PUT", "/v1/topics/bad/subscriptions/q", {"start": "never"}, 400),
    ("PUT", "/v1/topics/bad/subscriptions", {}, 404),
    ("POST", "/v1/topics/bad/messages?partition=1", {"body": "x"}, 400),
    ("GET", "/v1/topics/bad/receive", None, 405),
    ("GET", "/v1/topics/bad/what", None, 404),
])
def test_bad_input_gets_its_answer(
    server: Server, method: str, path: str, body: dict[str, str] | None, status: int
) -> None:
    ask(server, "PUT", "/v1/topics/bad")
    assert ask(server, method, path, body)[0] == status


def test_a_receiver_is_woken(server: Server) -> None:
    ask(server, "PUT", "/v1/topics/wake?partitions=2")
    timer = threading.Timer(0.2, ask, (server, "POST", "/v1/topics/wake/messages?partition=1",
                                       {"body": "x"}))
    timer.start()
    found = ask(server, "POST", "/v1/topics/wake/receive", {"wait_ms": 5000})[1]
    assert found["partition"] == 1 and found["messages"][0]["body"] == "x"
    timer.join()
