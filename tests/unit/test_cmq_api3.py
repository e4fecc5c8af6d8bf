"""API 3.0 from outside: in JSON, in the target and in forms, signed in the head and in the form."""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cmq_http_ask import NONCES, Client, encoded, signed
from server_process import Server

KEY, SECRET = "AKIDunit", "a-secret-of-the-tests"
VERSION = "2020-02-17"
JSON, FORM = "application/json", "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PENSTOCK_ACCESS_KEY", KEY)
        patch.setenv("PENSTOCK_SECRET_KEY", SECRET)
        with Server(tmp_path_factory.mktemp("store")) as running:
            yield running


class Api:
    """One connection that knows both ways of signing."""

    def __init__(self, server: Server, secret: str = SECRET, id: str = KEY) -> None:
        self.client = Client(server.http)
        self.host, self.secret, self.id = self.client.host, secret, id
        self.moment = int(time.time())

    def answer(self, method: str, url: str, body: bytes, head: dict[str, str]) -> dict[str, Any]:
        self.client.connection.request(method, url, body or None, head)
        reply = self.client.connection.getresponse()
        assert reply.status == 200 and reply.getheader("Content-Type") == JSON
        told: dict[str, Any] = json.loads(reply.read())["Response"]
        assert isinstance(told["RequestId"], str)
        return told

    def in_head(
        self, action: str, method: str = "POST", kind: str = JSON, query: str = "",
        body: bytes = b"", version: str = VERSION,
    ) -> dict[str, Any]:
        """TC3, as the documentation of API 3.0 has it."""
        date = time.strftime("%Y-%m-%d", time.gmtime(self.moment))
        canonical = "\n".join((
            method, "/", query, f"content-type:{kind}\nhost:{self.host}\n", "content-type;host",
            hashlib.sha256(body).hexdigest()))
        text = "\n".join((
            "TC3-HMAC-SHA256", str(self.moment), f"{date}/tdmq/tc3_request",
            hashlib.sha256(canonical.encode()).hexdigest()))
        key = b"TC3" + self.secret.encode()
        for part in (date, "tdmq", "tc3_request", text):
            key = hmac.digest(key, part.encode(), "sha256")
        claim = (f"TC3-HMAC-SHA256 Credential={self.id}/{date}/tdmq/tc3_request, "
                 f"SignedHeaders=content-type;host, Signature={key.hex()}")
        return self.answer(method, "/?" + query if query else "/", body, {
            "Content-Type": kind, "Authorization": claim, "X-TC-Action": action,
            "X-TC-Version": version, "X-TC-Timestamp": str(self.moment)})

    def form(self, action: str, method: str, sha: str, **fields: str) -> bytes:
        pairs = {"Action": action, "Version": VERSION, "Timestamp": str(self.moment),
                 "Nonce": str(next(NONCES)), "SecretId": self.id, "SignatureMethod": sha, **fields}
        return encoded(signed(self.secret, pairs, self.host, "/", method))

    def in_form(
        self, action: str, method: str = "POST", sha: str = "HmacSHA256", **fields: str
    ) -> dict[str, Any]:
        """Signed as v2 is."""
        return self.ask_form(self.form(action, method, sha, **fields), method)

    def ask_form(self, form: bytes, method: str = "POST") -> dict[str, Any]:
        if method == "GET":
            return self.answer("GET", "/?" + form.decode(), b"", {})
        return self.answer("POST", "/", form, {"Content-Type": FORM})


@pytest.fixture
def api(server: Server) -> Api:
    return Api(server)


def code(told: dict[str, Any]) -> str:
    found: str = told["Error"]["Code"]
    return found


def test_a_queue_is_made_in_each_way(api: Api) -> None:
    ways = [
        lambda name: api.in_head("CreateCmqQueue", body=b'{"QueueName": "%s"}' % name.encode()),
        lambda name: api.in_head(
            "CreateCmqQueue", "GET", FORM, f"QueueName={name}&VisibilityTimeout=7"),
        lambda name: api.in_head(
            "CreateCmqQueue", kind=FORM, body=f"QueueName={name}&VisibilityTimeout=7".encode()),
        lambda name: api.in_form("CreateCmqQueue", QueueName=name, VisibilityTimeout="7"),
        lambda name: api.in_form(
            "CreateCmqQueue", "GET", "HmacSHA1", QueueName=name, VisibilityTimeout="7"),
    ]
    names = [f"way{at}" for at in range(len(ways))]
    for way, name in zip(ways, names, strict=True):
        assert way(name)["QueueId"].startswith("queue-"), name
        # Told apart by nothing that was said before on this connection.
        assert code(way(name)) == "ResourceInUse.Queue"
    listed = api.in_form("DescribeCmqQueues", Limit="10", Offset="0", **{
        f"QueueNameList.{at}": name for at, name in enumerate(names)})
    assert listed["TotalCount"] == len(names)
    assert [one["VisibilityTimeout"] for one in listed["QueueList"]] == [30, 7, 7, 7, 7]


def test_numbers_are_text_only_in_forms(api: Api) -> None:
    assert code(api.in_head("DescribeCmqQueues", body=b'{"Limit": "5"}')) == "InvalidParameter"
    assert code(api.in_form("DescribeCmqQueues", Limit="five")) == "InvalidParameter"
    assert api.in_form("DescribeCmqQueues", Limit="5")["TotalCount"] >= 0
    assert code(api.in_form("DescribeCmqQueues", Limit="0")) == "InvalidParameterValue"


def test_who_is_not_genuine_is_refused_in_each_way(server: Server) -> None:
    for api, expected in ((Api(server, "other"), "AuthFailure.SignatureFailure"),
                          (Api(server, SECRET, "AKIDelse"), "AuthFailure.SecretIdNotFound")):
        assert code(api.in_head("DescribeCmqQueues")) == expected
        assert code(api.in_head("DescribeCmqQueues", "GET", FORM, "Limit=5")) == expected
        assert code(api.in_form("DescribeCmqQueues")) == expected
        assert code(api.in_form("DescribeCmqQueues", "GET", "HmacSHA1")) == expected
    good = Api(server)
    form = good.form("DescribeCmqQueues", "POST", "HmacSHA1", Limit="5")
    assert "TotalCount" in good.ask_form(form)
    assert code(good.ask_form(form.replace(b"Limit=5", b"Limit=6"))) == (
        "AuthFailure.SignatureFailure")


def test_signatures_last_five_minutes_in_each_way(server: Server) -> None:
    for later in (-310, 310):
        api = Api(server)
        api.moment += later
        assert code(api.in_head("DescribeCmqQueues")) == "AuthFailure.SignatureExpire"
        assert code(api.in_form("DescribeCmqQueues")) == "AuthFailure.SignatureExpire"
    api = Api(server)
    api.moment -= 200
    assert "TotalCount" in api.in_head("DescribeCmqQueues")
    assert "TotalCount" in api.in_form("DescribeCmqQueues")


def test_a_form_that_comes_again_is_answered_as_before(api: Api) -> None:
    form = api.form("CreateCmqQueue", "POST", "HmacSHA256", QueueName="again3")
    first, second = api.ask_form(form), api.ask_form(form)
    assert first["QueueId"] == second["QueueId"]
    assert code(api.in_form("CreateCmqQueue", QueueName="again3")) == "ResourceInUse.Queue"
    form = api.form("SendCmqMsg", "GET", "HmacSHA1", QueueName="again3", MsgContent="once")
    assert api.ask_form(form, "GET")["MsgId"] == api.ask_form(form, "GET")["MsgId"]
    told = api.in_form("DescribeCmqQueueDetail", QueueName="again3")["QueueDescribe"]
    assert told["ActiveMsgNum"] == 1


@pytest.mark.parametrize(("body", "kind", "expected"), [
    (b"[]", JSON, "InvalidParameter"), (b"{", JSON, "InvalidParameter"),
    (b"\xff", JSON, "InvalidParameter"), (b"[" * 100_000, JSON, "InvalidParameter"),
    (b"%ff=1", FORM, "InvalidParameter"), (b"a=1&a=2", FORM, "InvalidParameterValue"),
    (b"--x", "multipart/form-data; boundary=x", "InvalidParameter"),
    (b"{}", JSON, "MissingParameter"), (b"", FORM, "MissingParameter"),
])  # fmt: skip
def test_bodies_that_cannot_be(api: Api, body: bytes, kind: str, expected: str) -> None:
    assert code(api.in_head("DescribeCmqQueueDetail", kind=kind, body=body)) == expected


def test_actions_and_versions_that_are_not_there(api: Api) -> None:
    assert code(api.in_head("NoSuchAction")) == "InvalidAction"
    assert code(api.in_form("NoSuchAction")) == "InvalidAction"
    assert code(api.in_head("DescribeCmqQueues", version="2019-03-04")) == "InvalidParameter"
    assert code(api.in_form("DescribeCmqQueues", Version="2019-03-04")) == "InvalidParameter"


def test_what_looks_like_api_3_and_is_v2(server: Server) -> None:
    client = Client(server.http, KEY, SECRET)
    client.good("CreateQueue", queueName="v2")
    for body in ("&Version=2020-02-17&", "Version=2020-02-17", "?Version=2020-02-17"):
        client.good("SendMessage", queueName="v2", msgBody=body)
        assert client.good("ReceiveMessage", queueName="v2")["msgBody"] == body
    for form in (b"msgBody=Version=2020-02-17", b"msgBody=x?Version=2020-02-17"):
        assert client.post(form)["code"] in (4000, 4100)
    # No date: a parameter that v2 does not know, and passes over.
    client.good("SendMessage", queueName="v2", msgBody="x", Version="2")
