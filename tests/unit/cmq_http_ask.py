"""A CMQ client that knows only the documented rules, and lets a test break each of them."""

import base64
import hmac
import http.client
import itertools
import json
import time
from typing import Any
from urllib.parse import quote_plus

NONCES = itertools.count(1_000_000)


def signed(
    secret: str, pairs: dict[str, str], host: str, path: str = "/v2/index.php",
    method: str = "POST",
) -> dict[str, str]:
    """The pairs and their signature."""
    said = f"{method}{host}{path}?" + "&".join(
        f"{key.replace('_', '.')}={value}" for key, value in sorted(pairs.items()))
    digest = "sha256" if "256" in pairs.get("SignatureMethod", "") else "sha1"
    mac = hmac.digest(secret.encode(), said.encode(), digest)
    return {**pairs, "Signature": base64.b64encode(mac).decode()}


def encoded(pairs: dict[str, str]) -> bytes:
    return "&".join(f"{quote_plus(k)}={quote_plus(v)}" for k, v in pairs.items()).encode()


class Client:
    """One connection."""

    def __init__(self, port: int, id: str = "", secret: str = "", path: str = "/v2/index.php"):
        self.host = f"127.0.0.1:{port}"
        self.id, self.secret, self.path = id, secret, path
        self.connection = http.client.HTTPConnection(self.host, timeout=60)

    def __del__(self) -> None:
        self.connection.close()

    def form(self, action: str, **fields: str) -> bytes:
        pairs = {"Action": action, "Timestamp": str(int(time.time())),
                 "Nonce": str(next(NONCES)), **fields}
        if self.id:
            pairs = signed(self.secret, {"SecretId": self.id, **pairs}, self.host, self.path)
        return encoded(pairs)

    def post(self, form: bytes) -> dict[str, Any]:
        self.connection.request("POST", self.path, form)
        reply = self.connection.getresponse()
        assert reply.status == 200 and reply.getheader("Content-Type") == "application/json"
        answer: dict[str, Any] = json.loads(reply.read())
        assert isinstance(answer["requestId"], str)
        return answer

    def ask(self, action: str, **fields: str) -> dict[str, Any]:
        return self.post(self.form(action, **fields))

    def good(self, action: str, **fields: str) -> dict[str, Any]:
        answer = self.ask(action, **fields)
        assert answer["code"] == 0, answer
        return answer
