"""Push: decisions, signatures and the guard by themselves; then a server and an endpoint."""

import contextlib
import hashlib
import hmac
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

import penstock
from penstock.engine import Attributes, Store
from penstock.server.broker import push
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.limits import Limits
from penstock.server.broker.push import Pushes, Subscription, Verdict
from penstock.server.push.post import post

sys.path.insert(0, str(Path(__file__).parent))
from server_process import Server
from test_http_door import ask

SECRET = "a secret of some length"
ONE = Subscription("q", "http://example.com/in", SECRET)
LOOPBACK = [ip_network("127.0.0.0/8"), ip_network("::1/128")]


def test_an_answer_decides_what_follows() -> None:
    dead = Subscription("q", ONE.url, SECRET, attempts=3, dead_letter="dead")
    for status in (200, 201, 204, 299):
        assert push.decide(dead, status, "", 9, 0).verdict is Verdict.CONFIRM
    for status in (0, 100, 301, 302, 307, 400, 410, 429, 500, 503):
        again = push.decide(dead, status, "why", 2, 0)
        assert (again.verdict, again.delay_ms) == (Verdict.AGAIN, 2000)
        last = push.decide(dead, status, "why", 3, 0)
        assert last.verdict is Verdict.DEAD
        assert last.reason == (f"answered {status}" if status else "why")
        assert push.decide(ONE, status, "why", 1000, 0).verdict is Verdict.AGAIN
    assert push.decide(ONE, 429, "", 1, 90).delay_ms == 90_000
    assert push.decide(ONE, 429, "", 1, 10**9).delay_ms == push.BACKOFF_LIMIT_MS


def test_back_off_doubles_up_to_an_hour() -> None:
    assert [push.backoff_ms(n) for n in (0, 1, 2, 3, 12, 13, 10**9)] == [
        1000, 1000, 2000, 4000, 2048_000, 3600_000, 3600_000,
    ]  # fmt: skip


def test_a_signature_binds_moment_id_and_body() -> None:
    signed = push.signature(SECRET, 5, "id", b"body")
    assert signed == hmac.new(SECRET.encode(), b"5.id.body", hashlib.sha256).hexdigest()
    others = [
        push.signature(SECRET, 6, "id", b"body"), push.signature(SECRET, 5, "ie", b"body"),
        push.signature(SECRET, 5, "id", b"bodz"), push.signature(SECRET + "x", 5, "id", b"body"),
    ]  # fmt: skip
    assert signed not in others


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "224.0.0.1", "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1%eth0",
    "fc00::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::1",
    "64:ff9b::a00:1", "64:ff9b::7f00:1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_the_guard_lets_nothing_into_private_networks(address: str) -> None:
    for addresses in ([address], ["93.184.216.34", address], [address, "2606:4700::1111"]):
        with pytest.raises(BrokerError):
            push.permitted(addresses, [])


def test_the_guard_lets_public_and_allowed_addresses_pass() -> None:
    assert push.permitted(["93.184.216.34", "2606:4700::1111"], []) == "93.184.216.34"
    assert push.permitted(["10.1.2.3"], [ip_network("10.1.0.0/16")]) == "10.1.2.3"
    with pytest.raises(BrokerError):
        push.permitted(["10.2.2.3"], [ip_network("10.1.0.0/16")])
    with pytest.raises(BrokerError):
        push.permitted([], LOOPBACK)


def changed(**fields: Any) -> Subscription:
    return Subscription(**{"queue": "q", "url": ONE.url, "secret": SECRET, **fields})


WRONG = [
    changed(url=url)
    for url in (
        "ftp://h/", "file:///etc/passwd", "http:///x", "http://h:99999/", "http://u:p@h/",
        "http://h/ x", "http://h/\r\nEvil: 1", "http://h/#f", "http://h/" + "x" * 2048,
        "http://ü/",
    )
] + [
    changed(secret="short"), changed(concurrency=0), changed(concurrency=65),
    changed(timeout_s=0.0), changed(timeout_s=float("nan")), changed(attempts=0),
    changed(group="a b"), changed(dead_letter="a b"), changed(dead_letter="q"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_a_subscription_that_cannot_be_is_refused(tmp_path: Path, wrong: Subscription) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        store.queue("q")
        with pytest.raises(BrokerError) as refused:
            Pushes(Broker(store, Limits())).set("p", wrong)
        assert refused.value.kind is Kind.INVALID and store.notes(push.PREFIX) == {}


def test_subscriptions_outlive_a_restart_and_do_not_show_their_secrets(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s", segment_size=1 << 20) as store:
        store.queue("q")
        Pushes(Broker(store, Limits())).set("p", ONE)
    with Store.open(tmp_path / "s") as store:
        pushes = Pushes(Broker(store, Limits()))
        assert pushes.all() == {"p": ONE}
        assert SECRET not in str(pushes.shown()) and pushes.shown()[0]["name"] == "p"
        pushes.remove("p")
        with pytest.raises(BrokerError):
            pushes.remove("p")


def test_a_dead_letter_says_where_it_comes_from() -> None:
    decision = push.Decision(Verdict.DEAD, 0, "answered 500")
    told = push.dead_attributes(Attributes(tag="t", properties={"a": "1"}), "q", 7, decision)
    assert told.tag == "t" and told.properties == {
        "a": "1", "dead-queue": "q", "dead-offset": "7", "dead-reason": "answered 500",
    }  # fmt: skip


class Endpoint:
    """An HTTP server that notes what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[bytes, int], tuple[int, dict[str, str]]] = lambda body, at: (204, {})
        self.now = self.most = 0
        endpoint, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                with lock:
                    endpoint.now += 1
                    endpoint.most = max(endpoint.most, endpoint.now)
                body = self.rfile.read(int(self.headers["Content-Length"]))
                endpoint.got.append((dict(self.headers), body))
                status, fields = endpoint.answer(body, len(endpoint.got))
                with lock:
                    endpoint.now -= 1
                self.send_response(status)
                for name, value in {"Content-Length": "0", **fields}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in?a=b"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    made = Endpoint()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    store = tmp_path_factory.mktemp("store")
    with Server(store, workers=2, push_allow=("127.0.0.1/32",)) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[penstock.Client]:
    with penstock.connect(f"127.0.0.1:{server.tcp}") as connected:
        yield connected


def until(true: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_messages_arrive_signed_with_what_they_carry(
    server: Server, client: penstock.Client, endpoint: Endpoint
) -> None:
    queue = client.queue("signed")
    queue.send(b"\xffone", tag="t\r\nEvil: 1", properties={"n": "v"})
    client.admin("push.set", name="signed", push={
        "queue": "signed", "url": endpoint.url, "secret": SECRET,
    })  # fmt: skip
    until(lambda: endpoint.got)
    head, body = endpoint.got[0]
    assert body == b"\xffone" and head["Penstock-Tag"] == "t%0D%0AEvil: 1" and "Evil" not in head
    assert (head["Penstock-Property-n"], head["Penstock-Attempts"]) == ("v", "1")
    signed = push.signature(SECRET, int(head["Penstock-Time"]), head["Penstock-Id"], body)
    assert head["Penstock-Signature"] == f"v1={signed}"
    until(lambda: client.show("signed")["floor"] == 1)
    queue.send(b"two")
    until(lambda: len(endpoint.got) == 2)
    client.admin("push.remove", name="signed")
    time.sleep(1.2)
    queue.send(b"three")
    assert queue.receive(1, wait=3)[0].body == b"three"


def test_what_is_refused_comes_again_and_dies_after_its_attempts(
    server: Server, client: penstock.Client, endpoint: Endpoint
) -> None:
    elsewhere = {"Location": endpoint.url}
    endpoint.answer = lambda body, at: (302, elsewhere) if body == b"bad" else (200, {})
    queue, dead = client.queue("refused"), client.queue("refused.dead")
    queue.send_many([b"bad", b"good"])
    path = "/v1/push/refused"
    subscription = {
        "queue": "refused", "url": endpoint.url, "secret": SECRET, "attempts": 2,
        "dead_letter": "refused.dead", "concurrency": 1,
    }  # fmt: skip
    assert ask(server, "PUT", path, subscription)[0] == 204
    [message] = dead.receive(1, wait=15)
    assert message.body == b"bad" and message.properties["dead-reason"] == "answered 302"
    assert (message.properties["dead-queue"], message.properties["dead-offset"]) == ("refused", "0")
    assert sorted(body for _, body in endpoint.got) == [b"bad", b"bad", b"good"]
    until(lambda: client.show("refused")["floor"] == 2)
    shown = ask(server, "GET", "/v1/push")[1]["pushes"]
    assert [one["secret"] for one in shown if one["name"] == "refused"] == [""]
    assert ask(server, "DELETE", path)[0] == 204
    assert ask(server, "DELETE", path)[0] == 404
    assert ask(server, "PUT", path, {**subscription, "url": "ftp://x/"})[0] == 400


def test_no_more_posts_at_a_time_than_allowed(
    server: Server, client: penstock.Client, endpoint: Endpoint
) -> None:
    def slow(body: bytes, at: int) -> tuple[int, dict[str, str]]:
        time.sleep(0.1)
        return 200, {}

    endpoint.answer = slow
    queue = client.queue("many")
    queue.send_many([b"m%d" % n for n in range(20)])
    push_ = {"queue": "many", "url": endpoint.url, "secret": SECRET, "concurrency": 3}
    client.admin("push.set", name="many", push=push_)
    until(lambda: client.show("many")["floor"] == 20)
    assert endpoint.most == 3 and len({body for _, body in endpoint.got}) == 20
    client.admin("push.remove", name="many")


def test_a_post_into_a_private_network_is_never_begun(endpoint: Endpoint) -> None:
    answer = post(push.target_of(endpoint.url), {}, b"x", 2.0, [], set())
    assert answer.status == 0 and "no public network" in answer.why and not endpoint.got
    named = endpoint.url.replace("127.0.0.1", "localhost")
    assert post(push.target_of(named), {}, b"x", 2.0, [], set()).status == 0
    assert post(push.target_of(named), {}, b"x", 2.0, LOOPBACK, set()).status == 204


def test_the_checked_address_is_the_one_that_is_connected_to(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = socket.getaddrinfo

    def fickle(host: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        # The second look-up of the name would lead elsewhere.
        if host == "fickle.test":
            host = "127.0.0.1" if asked.count(host) == 1 else "127.0.0.2"
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", fickle)
    url = endpoint.url.replace("127.0.0.1", "fickle.test")
    assert post(push.target_of(url), {}, b"x", 2.0, LOOPBACK, set()).status == 204
    assert asked.count("fickle.test") == 1
    assert endpoint.got[0][0]["Host"].startswith("fickle.test:")


def test_an_endpoint_that_drips_is_cut_in_time() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def drip() -> None:
        peer, _ = listening.accept()
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"HTTP/1.1 200 OK\r\n")
            for _ in range(100):
                peer.sendall(b"X: y\r\n")
                time.sleep(0.05)

    dripping = threading.Thread(target=drip)
    dripping.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    began = time.monotonic()
    answer = post(push.target_of(url), {}, b"", 0.5, LOOPBACK, set())
    assert (answer.status, answer.why) == (0, "no answer in 0.5 s")
    assert time.monotonic() - began < 2
    dripping.join()
    listening.close()


def test_bytes_that_are_no_answer_are_none() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def babble() -> None:
        peer, _ = listening.accept()
        with peer, contextlib.suppress(OSError):
            peer.sendall(b"\xff" * 70000)

    babbling = threading.Thread(target=babble)
    babbling.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    assert post(push.target_of(url), {}, b"", 2.0, LOOPBACK, set()).status == 0
    babbling.join()
    listening.close()
