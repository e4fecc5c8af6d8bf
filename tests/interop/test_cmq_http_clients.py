"""CMQ over HTTP with real clients, unmodified: each scenario is a program with the client in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "unit")]
from cmq_http_ask import Client
from server_process import Server, Wire, messages_of, receive_payload, send_payload

CLIENTS = Path(__file__).parents[2] / ".venv" / "interop"
SOURCES = Path(__file__).parent / "cmq_http"
DEMANDED = os.environ.get("PENSTOCK_INTEROP") == "1"
KEY, SECRET = "AKIDinterop", "a-secret-of-the-tests"

PYTHON = ["queues", "messages", "batches", "polling", "redelivery", "delay", "rewind", "by_get",
          "by_sha256", "signatures", "topics", "routing"]
PUSH = ["pushing", "push_that_backs_off"]
API3 = ["queues", "dead_letters", "transactional", "topics", "routed", "signatures"]
JAVA = ["queues", "messages", "messages_by_get", "redelivery", "signatures", "topics", "routing"]
NODE = ["queues", "messages", "messages_sha1", "refusals", "redelivery", "signatures", "topics",
        "routing"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ACCESS_KEY", KEY)
        patch.setenv("PENSTOCK_SECRET_KEY", SECRET)
        with Server(tmp_path_factory.mktemp("store"), push_allow=("127.0.0.0/8",)) as running:
            yield running


def lacking(text: str) -> None:
    """Skip, or where real clients are demanded fail."""
    if DEMANDED:
        pytest.fail(text)
    pytest.skip(text)


def run(server: Server, command: list[object], **environment: str) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=CLIENTS, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **environment})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


def python(server: Server, program: str, *scenario: str) -> None:
    folder = CLIENTS / "cmq-python"
    if sys.version_info >= (3, 13):
        lacking("the Python client needs Python 3.12 or older")
    if not (folder / "cmq").is_dir() or not (folder / "tencentcloud").is_dir():
        lacking("the Python clients of CMQ were not set up: make test does it, from their registry")
    run(server, [sys.executable, SOURCES / program, address(server), KEY, SECRET, *scenario],
        PYTHONPATH=str(folder))


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.http}"


@pytest.mark.parametrize("scenario", PYTHON)
def test_the_python_client(server: Server, scenario: str) -> None:
    python(server, "cmq_v2.py", scenario)


@pytest.mark.parametrize("scenario", PUSH)
def test_endpoints_are_pushed_to_as_the_python_client_asks(server: Server, scenario: str) -> None:
    python(server, "cmq_push.py", scenario)


@pytest.mark.parametrize("scenario", API3)
def test_the_python_client_of_api_3(server: Server, scenario: str) -> None:
    python(server, "cmq_api3.py", scenario)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("scenario", ["queues", "topics", "routed", "signatures"])
@pytest.mark.parametrize("signed", ["TC3-HMAC-SHA256", "HmacSHA1", "HmacSHA256"])
def test_the_other_ways_in_which_it_asks(
    server: Server, scenario: str, method: str, signed: str
) -> None:
    """In the target, and in a form: signed in the head, or as v2 is."""
    if (method, signed) != ("POST", "TC3-HMAC-SHA256"):
        python(server, "cmq_api3.py", scenario, method, signed)


@pytest.mark.parametrize("scenario", JAVA)
def test_the_java_client(server: Server, scenario: str) -> None:
    java(server, scenario)


@pytest.mark.parametrize("scenario", NODE)
def test_the_node_client(server: Server, scenario: str) -> None:
    node(server, scenario)


def v2(server: Server, scenario: str) -> None:
    python(server, "cmq_v2.py", scenario)


def api3(server: Server, scenario: str) -> None:
    python(server, "cmq_api3.py", scenario)


def java(server: Server, scenario: str) -> None:
    folder = CLIENTS / "cmq-http"
    if shutil.which("java") is None:
        lacking("Java is not installed")
    if not (folder / "Http.class").exists():
        lacking("the Java client was not set up: it needs java, javac, mvn and their registry")
    # Texts must not depend on the client's locale.
    run(server, ["java", "-Xmx256m", "-cp", f"{folder}:{folder}/*", "Http", address(server), KEY,
                 SECRET, scenario], LC_ALL="C")


def node(server: Server, scenario: str) -> None:
    modules = CLIENTS / "cmq-node" / "node_modules"
    if shutil.which("node") is None:
        lacking("Node is not installed")
    if not (modules / "cmq-sdk").is_dir():
        lacking("the Node client was not set up: it needs node, npm and their registry")
    run(server, ["node", "-r", SOURCES / "redirect.js", SOURCES / "node.js", KEY, SECRET, scenario],
        CMQ_PORT=str(server.http), NODE_PATH=str(modules))


@pytest.mark.parametrize("client", [v2, api3, java, node])
def test_each_client_finds_what_it_left_in_a_server_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: Callable[[Server, str], None]
) -> None:
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", SECRET)
    for scenario in ("leave", "find"):
        with Server(tmp_path / "store") as server:
            client(server, scenario)
            server.process.kill()


def test_messages_cross_to_the_native_client_and_back(server: Server) -> None:
    client = Client(server.http, KEY, SECRET)
    client.good("CreateQueue", queueName="cross")
    client.good("SendMessage", queueName="cross", msgBody="from CMQ")
    wire = Wire(server.tcp)
    queue = wire.open("cross")
    status, payload = wire.call(5, receive_payload(queue))
    assert status == 0 and [body for _, body in messages_of(payload)] == [b"from CMQ"]
    assert wire.call(3, send_payload(queue, "back ü".encode()))[0] == 0
    assert wire.call(3, send_payload(queue, b"\xff no text"))[0] == 0
    wire.close()
    got = [client.good("ReceiveMessage", queueName="cross", pollingWaitSeconds="3")
           for _ in range(2)]
    assert [one["msgBody"] for one in got] == ["back ü", "\ufffd no text"]
    for one in got:
        client.good("DeleteMessage", queueName="cross", receiptHandle=one["receiptHandle"])


def test_a_restart_in_the_middle_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", SECRET)
    with Server(tmp_path / "store") as server:
        client = Client(server.http, KEY, SECRET)
        client.good("CreateQueue", queueName="kept", visibilityTimeout="1", maxMsgSize="2048")
        sent = client.good("SendMessage", queueName="kept", msgBody="a")["msgId"]
        later = client.good("SendMessage", queueName="kept", msgBody="b", delaySeconds="2")["msgId"]
        held = client.good("ReceiveMessage", queueName="kept")["receiptHandle"]
        server.process.kill()
    with Server(tmp_path / "store") as server:
        client = Client(server.http, KEY, SECRET)
        told = client.good("GetQueueAttributes", queueName="kept")
        assert (told["visibilityTimeout"], told["maxMsgSize"]) == (1, 2048)
        assert client.ask("DeleteMessage", queueName="kept", receiptHandle=held)["code"] == 4430
        found = {}
        while len(found) < 2:
            got = client.good("ReceiveMessage", queueName="kept", pollingWaitSeconds="20")
            found[got["msgBody"]] = got["msgId"]
        assert found == {"a": sent, "b": later}


def test_two_workers_are_one_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one worker has done every other one knows at once: keys, queues, handles."""
    monkeypatch.setenv("PENSTOCK_ACCESS_KEY", KEY)
    monkeypatch.setenv("PENSTOCK_SECRET_KEY", SECRET)
    with Server(tmp_path / "store", workers=2) as server:
        Client(server.http, KEY, SECRET).good("CreateQueue", queueName="both")
        failed: list[object] = []

        def work(number: int) -> None:
            try:
                for at in range(30):
                    # A client has one connection: the kernel spreads them over the workers.
                    body = f"{number}.{at}"
                    Client(server.http, KEY, SECRET).good(
                        "SendMessage", queueName="both", msgBody=body)
                    got = Client(server.http, KEY, SECRET).good(
                        "ReceiveMessage", queueName="both", pollingWaitSeconds="20")
                    Client(server.http, KEY, SECRET).good(
                        "DeleteMessage", queueName="both", receiptHandle=got["receiptHandle"])
            except AssertionError as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failed
        told = Client(server.http, KEY, SECRET).good("GetQueueAttributes", queueName="both")
        assert (told["activeMsgNum"], told["inactiveMsgNum"]) == (0, 0)
