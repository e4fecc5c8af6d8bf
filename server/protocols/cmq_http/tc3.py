"""TC3-HMAC-SHA256: how requests of API 3.0 are signed."""

import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from typing import NamedTuple

from penstock.server.broker.access import equal

ALGORITHM = "TC3-HMAC-SHA256"
UNSIGNED = b"UNSIGNED-PAYLOAD"
AUTHORIZATION = re.compile(
    r"TC3-HMAC-SHA256 +Credential=([^/,]+)/([0-9]{4}-[0-9]{2}-[0-9]{2})/([a-z0-9]+)/tc3_request, *"
    r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})", re.ASCII)


class Claim(NamedTuple):
    """What an Authorization field claims."""

    id: str
    date: str
    service: str
    fields: list[str]
    signature: str


def claim_of(authorization: str) -> Claim | None:
    """The claim; None if the field makes no sense."""
    found = AUTHORIZATION.fullmatch(authorization.strip())
    if found is None:
        return None
    return Claim(found[1], found[2], found[3], found[4].split(";"), found[5])


def signature(
    secret: str, claim: Claim, method: str, path: str, query: str, head: Mapping[str, str],
    body: bytes, moment_s: int,
) -> str:
    """In hex. head: the fields by their names in lower case; those that are signed count."""
    payload = UNSIGNED if head.get("x-tc-content-sha256") == UNSIGNED.decode() else body
    fields = "".join(f"{name}:{head.get(name, '').strip().lower()}\n" for name in claim.fields)
    canonical = "\n".join((
        method, path, query, fields, ";".join(claim.fields), hashlib.sha256(payload).hexdigest()))
    said = "\n".join((
        ALGORITHM, str(moment_s), f"{claim.date}/{claim.service}/tc3_request",
        hashlib.sha256(canonical.encode()).hexdigest()))
    key = f"TC3{secret}".encode()
    for part in (claim.date, claim.service, "tc3_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, said.encode(), "sha256").hex()


def genuine(
    secret: str, claim: Claim, method: str, path: str, query: str, head: Mapping[str, str],
    body: bytes, moment_s: int,
) -> bool:
    """Whether the claim is the secret's, and its date that of the moment."""
    good = claim.date == time.strftime("%Y-%m-%d", time.gmtime(moment_s))
    for host in hosts(head.get("host", "")):
        one = signature(secret, claim, method, path, query, {**head, "host": host}, body, moment_s)
        if equal(one.encode(), claim.signature.encode()):
            return good and {"content-type", "host"} <= set(claim.fields)
    return False


def hosts(host: str) -> tuple[str, ...]:
    """The host, also without a default port that a library may have added."""
    bare = host.removesuffix(":80").removesuffix(":443")
    return (host,) if bare == host else (host, bare)
