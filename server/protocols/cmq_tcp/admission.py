"""Who may use a CMQ connection: one signed AUTH, first of all."""

import base64
import hashlib
import hmac
import ipaddress

from penstock.server.broker.access import Keys, equal, key_number
from penstock.server.broker.cmq.faults import Fault

AUTHENTICATED = 307
METHODS = {"HmacSHA1": hashlib.sha1, "HmacSHA256": hashlib.sha256}
Result = tuple[int, str]
OK: Result = (0, "")


class Admission:
    """Judges AUTH. Without any key there is nothing to sign with: then only this machine may in."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys

    def admit(
        self, already: bool, peer: tuple[str, int] | None, fields: list[tuple[int, int | bytes]]
    ) -> Result:
        """The result of AUTH and its text; 0 lets the connection in."""
        if already:
            return AUTHENTICATED, Fault.AUTHENTICATED.text
        given = {number: value for number, value in fields if isinstance(value, bytes)}
        if not {1, 2, 3, 4} <= set(given):
            return refused(Fault.MISSING)
        try:
            id, signature, client, method = (given[number].decode() for number in (1, 2, 3, 4))
        except UnicodeDecodeError:
            return refused(Fault.UNREADABLE)
        secrets = self.keys.secrets()
        if not secrets:
            return OK if is_local(peer) else refused(Fault.SECRET_ID)
        digest = METHODS.get(method)
        if digest is None:
            return refused(Fault.AUTHENTICATION)
        # A secret nobody has: an unknown id takes as long as a wrong signature.
        secret = secrets.get(id)
        mac = hmac.new((secret or id).encode(), (client + id).encode(), digest).digest()
        good = equal(base64.b64encode(mac), signature.encode())
        if secret is None:
            return refused(Fault.SECRET_ID)
        return OK if good else refused(Fault.AUTHENTICATION)

    def key(self, fields: list[tuple[int, int | bytes]]) -> int:
        """The number of the key that an AUTH is signed with; 0 if there is no key at all."""
        ids = [value for number, value in fields if number == 1 and isinstance(value, bytes)]
        return key_number(ids[-1].decode()) if self.keys.secrets() else 0


def refused(fault: Fault) -> Result:
    return fault.module, fault.text


def is_local(peer: tuple[str, int] | None) -> bool:
    """Whether the other end is on this machine."""
    try:
        return peer is not None and ipaddress.ip_address(peer[0]).is_loopback
    except ValueError:
        return False
