"""The wire of `penstock bench --cmq-http`: CMQ's actions as forms, signed if there is a key.

The keys are those of bench_cmq. A signed request is sent again and again as it is: its nonce is so
small that the server takes no request for a repetition of another.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import time
from urllib.parse import quote_plus

from penstock.server.bench_http import Confirming, ask, post

PATH = "/v2/index.php"
FORM = "application/x-www-form-urlencoded"
ALREADY_THERE = 4460
NONCE = "1"


def key() -> tuple[str, str] | None:
    """The id and the secret that requests are signed with, if there are any."""
    id, secret = os.environ.get("PENSTOCK_ACCESS_KEY"), os.environ.get("PENSTOCK_SECRET_KEY")
    return (id, secret) if id and secret else None


def form(address: str, **fields: str) -> bytes:
    """A form, signed if there is a key; of `name_n` the underscore is the dot of a list."""
    pairs = {name.replace("_", "."): value for name, value in fields.items()}
    found = key()
    if found is not None:
        pairs |= {"SecretId": found[0], "Nonce": NONCE, "Timestamp": str(int(time.time())),
                  "SignatureMethod": "HmacSHA1"}
    ordered = sorted(pairs.items())
    if found is not None:
        said = f"POST{address}{PATH}?" + "&".join(f"{name}={value}" for name, value in ordered)
        mac = hmac.digest(found[1].encode(), said.encode(), "sha1")
        ordered.append(("Signature", base64.b64encode(mac).decode()))
    return "&".join(f"{name}={quote_plus(value)}" for name, value in ordered).encode()


def open_queue(address: str, queue: str) -> None:
    """Create the queue if it is absent. Raises ValueError with what the server said."""
    text = ask(address, "POST", PATH, form(address, Action="CreateQueue", queueName=queue), FORM)
    try:
        told = json.loads(text)
        code = told["code"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"this is no answer of CMQ: {text[:100]!r}") from None
    if code not in (0, ALREADY_THERE):
        raise ValueError(f"CreateQueue was answered with {code}: {told.get('message', '')}")


def send_request(address: str, queue: str, body: str, batch: int) -> bytes:
    """The request that sends one message, or `batch` of them."""
    if batch == 1:
        text = form(address, Action="SendMessage", queueName=queue, msgBody=body)
    else:
        text = form(address, Action="BatchSendMessage", queueName=queue,
                    **{f"msgBody_{number}": body for number in range(batch)})
    return post(address, PATH, FORM, text)


def receive_request(address: str, queue: str, batch: int, wait_s: int) -> bytes:
    """The request that receives one message, or up to `batch` of them."""
    fields = {"queueName": queue, "pollingWaitSeconds": str(wait_s)}
    if batch == 1:
        text = form(address, Action="ReceiveMessage", **fields)
    else:
        text = form(address, Action="BatchReceiveMessage", numOfMsg=str(batch), **fields)
    return post(address, PATH, FORM, text)


def confirming(address: str, queue: str, batch: int) -> Confirming:
    """How what was received is deleted."""
    action = "DeleteMessage" if batch == 1 else "BatchDeleteMessage"
    names = ["receiptHandle"] if batch == 1 else [f"receiptHandle.{n}" for n in range(batch)]
    first = f"Action={action}&queueName={quote_plus(queue)}".encode()
    return Confirming(b'"receiptHandle":"', post(address, PATH, FORM, None), first, b"",
                      tuple(f"&{name}=".encode() for name in names))
