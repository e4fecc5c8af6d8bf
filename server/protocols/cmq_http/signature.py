"""How a v2 request is signed, and in which other ways known clients sign it."""

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator

from penstock.server.broker.access import equal
from penstock.server.protocols.cmq_http.form import Pair

SHA256 = ("HmacSHA256", "sha256")
DOCUMENTED = "/v2/index.php"
DEFAULT_PORTS = (":80", ":443")


def said(method: str, host: str, path: str, pairs: Iterable[Pair], *, dotted: bool = True) -> str:
    """The text that is signed: every parameter but the signature, sorted by its key, bytewise."""
    named = [(key.replace("_", ".") if dotted else key, value) for key, value in pairs
             if key != "Signature"]
    named.sort(key=lambda pair: pair[0].encode())
    joined = "&".join(f"{key}={value}" for key, value in named)
    return f"{method}{host}{path}?{joined}"


def signature(secret: str, text: str, method: str | None) -> str:
    """In base64. Whoever does not say SHA-256 means SHA-1."""
    digest = hashlib.sha256 if method in SHA256 else hashlib.sha1
    return base64.b64encode(hmac.digest(secret.encode(), text.encode(), digest)).decode()


def genuine(
    secret: str, method: str, host: str, path: str, pairs: list[Pair], *, strict: bool = False
) -> bool:
    """Whether the signature among the pairs is that of the secret; strict: in the documented way.

    The other ways are tried only after that one, so that what they cost falls on who needs them.
    """
    given = dict(pairs)
    claimed = given.get("Signature", "").encode()
    algorithm = given.get("SignatureMethod")
    for text in ways(method, host, path, pairs, strict):
        if equal(signature(secret, text, algorithm).encode(), claimed):
            return True
    return False


def ways(method: str, host: str, path: str, pairs: list[Pair], strict: bool) -> Iterator[str]:
    """The documented text first, then what clients in use sign instead."""
    yield said(method, host, path, pairs)
    if strict:
        return
    # Python and PHP leave values that begin with @ out of what they sign on POST.
    if method == "POST" and any(value.startswith("@") for _, value in pairs):
        yield said(method, host, path, [one for one in pairs if not one[1].startswith("@")])
    if any("_" in key for key, _ in pairs):
        yield said(method, host, path, pairs, dotted=False)
    # The path of a GET of PHP is doubled, and signed once.
    if path != DOCUMENTED and DOCUMENTED in path:
        yield said(method, host, DOCUMENTED, pairs)
    # A default port stands in the address that is signed, and HTTP libraries leave it out.
    for port in DEFAULT_PORTS:
        yield said(method, host.removesuffix(port) if host.endswith(port) else host + port, path,
                   pairs)
    tags = [one for one in pairs if one[0].startswith("msgTag.")]
    if tags:
        others = [one for one in pairs if not one[0].startswith("msgTag.")]
        yield said(method, host, path, [*others, ("msgTag", ",".join(value for _, value in tags))])
