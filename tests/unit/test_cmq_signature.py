"""How CMQ requests are signed: bytes captured from its SDKs, and each way they differ in."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.protocols.cmq_http.form import Form, pairs_of
from penstock.server.protocols.cmq_http.signature import genuine, said, signature
from penstock.server.protocols.cmq_http.tc3 import Claim, claim_of
from penstock.server.protocols.cmq_http.tc3 import genuine as tc3_genuine
from penstock.server.protocols.cmq_http.tc3 import signature as tc3

HOST, PATH = "127.0.0.1:19800", "/v2/index.php"
JAVA_TCP = (
    "GET127.0.0.1:19800/v2/index.php?Action=QueryQueueRoute&Nonce=905145542&SecretId=AKIDtest"
    "&SignatureMethod=HmacSHA256&Timestamp=1795253806&queueName=jt1a1fd77239dq")
JAVA_MANAGEMENT = (
    "POST127.0.0.1:19800/v2/index.php?Action=CreateQueue&Nonce=55014156&SecretId=AKIDtest"
    "&SignatureMethod=sha1&Timestamp=1795253806&maxMsgSize=65536&msgRetentionSeconds=3600"
    "&pollingWaitSeconds=5&queueName=jt1a1fd77239dsha1&rewindSeconds=3600&visibilityTimeout=2")
PYTHON = (
    "POST127.0.0.1:19800/v2/index.php?Action=SendMessage&Nonce=7708969524350242751"
    "&RequestClient=SDK_Python_1.3&SecretId=AKIDtest&SignatureMethod=HmacSHA1"
    "&Timestamp=1795253763&delaySeconds=0&msgBody=hello 世界 +%&=_@ \"quoted\" \u2028end"
    "&queueName=py1a1fd767d99q")


@pytest.mark.parametrize(("text", "method", "expected"), [
    (JAVA_TCP, "HmacSHA256", "1Xc/5hB8lGwTHJbeapO0RdmgDzIsYLNmiiM+EynKSjs="),
    (JAVA_MANAGEMENT, "sha1", "+Qu6t/Wn0NgWrT9Uraqbml2bM0I="),
    (PYTHON, "HmacSHA1", "zpt+zqSZq+PnqHY8yRE36Bd+I4A="),
])  # fmt: skip
def test_signatures_of_real_requests(text: str, method: str, expected: str) -> None:
    assert signature("testkey", text, method) == expected


def test_the_text_is_made_of_decoded_pairs_sorted_bytewise() -> None:
    raw = (b"queueName=py1a1fd767d99q&msgBody=hello+%E4%B8%96%E7%95%8C%20%2B%25%26%3D_%40+%22quoted"
           b"%22+%E2%80%A8end&Action=SendMessage&Nonce=7708969524350242751&RequestClient="
           b"SDK_Python_1.3&SecretId=AKIDtest&SignatureMethod=HmacSHA1&Timestamp=1795253763"
           b"&delaySeconds=0&Signature=zpt%2BzqSZq%2BPnqHY8yRE36Bd%2BI4A%3D")
    pairs = pairs_of(raw)
    assert said("POST", HOST, PATH, pairs) == PYTHON
    assert genuine("testkey", "POST", HOST, PATH, pairs, strict=True)
    numbered = [("b.2", "x"), ("b.10", "y"), ("a_b", "z"), ("Z", "")]
    assert said("GET", "h", "/", numbered) == "GETh/?Z=&a.b=z&b.10=y&b.2=x"


Pairs = list[tuple[str, str]]


def signed(text: str, pairs: Pairs, method: str = "HmacSHA1") -> Pairs:
    return [*pairs, ("Signature", signature("key", text, method))]


BASE = [("Action", "SendMessage"), ("Nonce", "1")]
VARIANTS = [
    # What is signed, what is sent, and with which path and host.
    (said("POST", "h", PATH, BASE), [*BASE, ("msgBody", "@x")], PATH, "h"),
    (said("POST", "h", PATH, [*BASE, ("a_b", "1")], dotted=False), [*BASE, ("a_b", "1")],
     PATH, "h"),
    (said("POST", "h", PATH, BASE), BASE, PATH + PATH, "h"),
    (said("POST", "h:80", PATH, BASE), BASE, PATH, "h"),
    (said("POST", "h:443", PATH, BASE), BASE, PATH, "h"),
    (said("POST", "h", PATH, BASE), BASE, PATH, "h:80"),
    (said("POST", "h", PATH, [*BASE, ("msgTag", "a,b")]),
     [*BASE, ("msgTag.0", "a"), ("msgTag.1", "b")], PATH, "h"),
]


@pytest.mark.parametrize(("text", "pairs", "path", "host"), VARIANTS)
def test_other_ways_are_taken_unless_it_is_strict(
    text: str, pairs: list[tuple[str, str]], path: str, host: str
) -> None:
    whole = signed(text, pairs)
    assert genuine("key", "POST", host, path, whole)
    assert not genuine("key", "POST", host, path, whole, strict=True)
    assert not genuine("other", "POST", host, path, whole)


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=9)), max_size=6), st.data())
def test_whatever_is_changed_is_noticed(pairs: list[tuple[str, str]], data: st.DataObject) -> None:
    pairs = [one for one in dict(pairs).items() if one[0] not in ("Signature", "SignatureMethod")]
    whole = signed(said("POST", "h", "/", pairs), pairs)
    assert genuine("key", "POST", "h", "/", whole, strict=True)
    if pairs:
        at = data.draw(st.integers(0, len(pairs) - 1))
        key, value = whole[at]
        whole[at] = (key, value + "x")
        assert not genuine("key", "POST", "h", "/", whole, strict=True)
    assert not genuine("key", "GET", "h", "/", whole, strict=True)


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), st.text("ab=&.%+0123 ", max_size=60).map(str.encode)))
def test_any_bytes_are_a_form_or_are_refused_in_words(raw: bytes) -> None:
    try:
        form = Form(pairs_of(raw))
        form.list("a")
        form.number("a")
    except CmqError as error:
        assert error.fault in (Fault.UNREADABLE, Fault.REPEATED, Fault.HOLES, Fault.WRONG_TYPE)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=9), st.text(max_size=20)), max_size=9))
def test_a_form_says_what_was_put_into_it(pairs: list[tuple[str, str]]) -> None:
    from urllib.parse import quote, quote_plus, urlencode

    for quoting in (quote, quote_plus):
        raw = urlencode(pairs, quote_via=quoting).encode()
        assert pairs_of(raw) == pairs


def test_arrays_begin_with_0_or_1_and_have_no_holes() -> None:
    def listed(*keys: str) -> list[str]:
        return Form((key, key) for key in keys).list("m")

    assert listed(*(f"m.{at}" for at in (10, 9, 1, 2, 3, 4, 5, 6, 7, 8)))[-1] == "m.10"
    assert listed("m.1", "m.0") == ["m.0", "m.1"] and listed() == []
    for wrong in (["m.2"], ["m.0", "m.2"], ["m.1", "m.3"]):
        with pytest.raises(CmqError) as error:
            listed(*wrong)
        assert error.value.fault is Fault.HOLES
    with pytest.raises(CmqError) as error:
        listed("m.1", "m.01")
    assert error.value.fault is Fault.REPEATED
    assert Form([("offset ", "7")]).number("offset") == 7


def test_tc3_of_a_real_request() -> None:
    claim = Claim("AKIDtest", "2026-11-21", "tdmq", ["content-type", "host"], "")
    head = {"content-type": "application/json", "host": HOST}
    body = b'{"QueueName": "rq4997327", "VisibilityTimeout": 2}'
    found = tc3("testkey", claim, "POST", "/", "", head, body, 1795253762)
    assert found == "415108d7cdc0f332658eeac10bb7ed1808235fde6a3e4c04cbe98dab0409ff7c"
    whole = claim_of("TC3-HMAC-SHA256 Credential=AKIDtest/2026-11-21/tdmq/tc3_request, "
                     f"SignedHeaders=content-type;host, Signature={found}")
    assert whole == claim._replace(signature=found)
    assert tc3_genuine("testkey", whole, "POST", "/", "", head, body, 1795253762)
    for other in (("other", body, 1795253762), ("testkey", body + b" ", 1795253762),
                  ("testkey", body, 1795253763), ("testkey", body, 1795253762 + 86400)):
        secret, content, moment = other
        assert not tc3_genuine(secret, whole, "POST", "/", "", head, content, moment)
    # The host and the type of the body have to be signed.
    short = claim._replace(fields=["content-type"])
    short = short._replace(signature=tc3("testkey", short, "POST", "/", "", head, body, 1795253762))
    assert not tc3_genuine("testkey", short, "POST", "/", "", head, body, 1795253762)
    for wrong in ("", "TC3-HMAC-SHA256", "Basic abc", "TC3-HMAC-SHA256 Credential=a"):
        assert claim_of(wrong) is None
