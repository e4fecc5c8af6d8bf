"""Access keys: pairs of an id and a secret that clients sign their requests with. No wire."""

import hashlib
import hmac
import secrets
import string
from typing import Any, NamedTuple

import msgspec

from penstock.engine._core import Store
from penstock.engine.errors import EngineError
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind, refusal

PREFIX = "key/"
ID_PREFIX = "AKID"
LETTERS = string.ascii_letters + string.digits
SIZE = 32
ID_BYTES, SECRET_BYTES, LABEL_BYTES = (4, 128), (8, 256), 256
KEYS = 4096


class Key(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What is kept of a pair: signing needs the secret itself, so a hash would not do."""

    secret: str
    label: str = ""
    created_us: int = 0


class Pair(NamedTuple):
    """An access key as it is told once, to who made it."""

    id: str
    secret: str


class Keys:
    """The access keys of one store, each a note, and the root pair that the operator has given.

    Invariants:
      1. known is what the notes said at version; it is read anew when any note changed.
    """

    def __init__(self, broker: Broker, root: Pair | None = None) -> None:
        self.store: Store = broker.store
        if root is None and broker.root is not None:
            root = Pair(*broker.root)
        self.root = None if root is None else checked_pair(root)
        self.version = -1
        self.known: dict[str, str] = {}

    def secrets(self) -> dict[str, str]:
        """Every secret by its id, as of now in every worker; empty if there is no key at all."""
        try:
            version = self.store.notes_version()
            if version != self.version:
                notes = self.store.notes(PREFIX)
                self.known = {
                    name.removeprefix(PREFIX): msgspec.json.decode(value, type=Key).secret
                    for name, value in notes.items()
                }
                if self.root is not None:
                    self.known[self.root.id] = self.root.secret
                self.version = version
        except EngineError as error:
            raise refusal(error) from error
        return self.known

    def create(self, label: str, now_us: int) -> Pair:
        """A new pair. Raises TOO_LARGE if there are too many."""
        if len(label.encode()) > LABEL_BYTES:
            raise BrokerError(Kind.INVALID, f"a label has at most {LABEL_BYTES} bytes")
        if len(self.secrets()) >= KEYS:
            raise BrokerError(Kind.TOO_LARGE, f"there are {KEYS} access keys already", limit=KEYS)
        pair = Pair(ID_PREFIX + letters(), letters())
        self._note(pair.id, msgspec.json.encode(Key(pair.secret, label, now_us)))
        return pair

    def shown(self) -> list[dict[str, object]]:
        """The keys without their secrets. The root pair is named, it cannot be deleted."""
        try:
            notes = self.store.notes(PREFIX)
        except EngineError as error:
            raise refusal(error) from error
        rows: list[dict[str, object]] = []
        if self.root is not None:
            rows.append({"id": self.root.id, "label": "root", "created_us": 0})
        for name, value in sorted(notes.items()):
            key = msgspec.json.decode(value, type=Key)
            rows.append({
                "id": name.removeprefix(PREFIX), "label": key.label, "created_us": key.created_us})
        return rows

    def delete(self, id: str) -> None:
        """What is signed with it is refused from now on. Raises NOT_FOUND, INVALID for the root."""
        if self.root is not None and id == self.root.id:
            raise BrokerError(Kind.INVALID, "the root key comes from the server's environment")
        if id not in self.secrets():
            raise BrokerError(Kind.NOT_FOUND, f"there is no access key {id}")
        self._note(id, None)

    def _note(self, id: str, value: bytes | None) -> None:
        try:
            self.store.note(PREFIX + id, value)
        except EngineError as error:
            raise refusal(error) from error


class KeyAsks:
    """What is asked about keys: key.create, key.list, key.delete."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.asks = {"key.create", "key.list", "key.delete"}

    def __call__(self, do: str, fields: dict[str, Any], now_us: int) -> dict[str, Any]:
        if do == "key.list":
            return {"keys": self.keys.shown()}
        if do == "key.delete":
            self.keys.delete(str(fields.get("id", "")))
            return {}
        return self.keys.create(str(fields.get("label", "")), now_us)._asdict()


def checked_pair(pair: Pair) -> Pair:
    """The pair itself. Raises INVALID for one that no client could use."""
    for text, (least, most), name in (
        (pair.id, ID_BYTES, "an access key"), (pair.secret, SECRET_BYTES, "a secret key"),
    ):
        if not text.isascii() or not text.isprintable() or " " in text:
            raise BrokerError(Kind.INVALID, f"{name} is printable ASCII without blanks")
        if not least <= len(text) <= most:
            raise BrokerError(Kind.INVALID, f"{name} has {least} to {most} characters")
    return pair


def key_number(id: str) -> int:
    """What the gates of quotas know an access key by; never 0."""
    return int.from_bytes(hashlib.blake2b(id.encode(), digest_size=8).digest(), "little") | 1


def letters() -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(SIZE))


def equal(one: bytes, other: bytes) -> bool:
    """Whether two signatures are the same, in a time that tells nothing about where they differ."""
    return hmac.compare_digest(one, other)
