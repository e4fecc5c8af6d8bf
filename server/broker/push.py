"""Push: what is sent to whom, how it is signed, what an answer means, where nothing may be sent.

No socket, no clock, no loop: the delivering is done by server/push.
"""

import hashlib
import hmac
import ipaddress
import random
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from penstock.engine._core import Store
from penstock.engine.attributes import Attributes
from penstock.engine.errors import EngineError
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind, refusal

PREFIX = "push/"
SUBSCRIPTIONS = 4096
URL_BYTES = 2048
SECRET_BYTES = (16, 256)
CONCURRENCY_LIMIT = 64
TIMEOUT_LIMIT_S = 300
ATTEMPTS_LIMIT = 1000
BACKOFF_MS = 1000
BACKOFF_LIMIT_MS = 3600 * 1000
CMQ_TRIES, CMQ_APART_MS, CMQ_LIFE_S = 3, (19_000, 29_000), 86_400

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Subscription(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The messages of a group of a queue, each sent by POST to url until it is answered with 2xx.

    After attempts tries a message goes to dead_letter (a queue's name; empty: it is tried on).
    format: what a post looks like, ours or CMQ's; strategy: when it is tried again, and for how
    long; labels: what CMQ's posts tell beside the message.
    """

    queue: str
    url: str
    secret: str
    group: str = ""
    concurrency: int = 4
    timeout_s: float = 30.0
    attempts: int = 20
    dead_letter: str = ""
    format: Literal["penstock", "cmq-json", "cmq-simplified"] = "penstock"
    strategy: Literal["backoff", "cmq-backoff", "cmq-decay"] = "backoff"
    labels: dict[str, str] = {}

    def check(self) -> None:
        """Raises INVALID for what cannot be."""
        checked(self.queue)
        target_of(self.url)
        signed = self.format == "penstock"
        if signed and not SECRET_BYTES[0] <= len(self.secret.encode()) <= SECRET_BYTES[1]:
            raise BrokerError(Kind.INVALID, "a secret has 16 to 256 bytes")
        if not 1 <= self.concurrency <= CONCURRENCY_LIMIT:
            raise BrokerError(Kind.INVALID, f"concurrency is 1 to {CONCURRENCY_LIMIT}")
        if not 0.1 <= self.timeout_s <= TIMEOUT_LIMIT_S:
            raise BrokerError(Kind.INVALID, f"timeout_s is 0.1 to {TIMEOUT_LIMIT_S}")
        if not 1 <= self.attempts <= ATTEMPTS_LIMIT:
            raise BrokerError(Kind.INVALID, f"attempts is 1 to {ATTEMPTS_LIMIT}")
        for name in (self.group, self.dead_letter):
            if name:
                checked(name)
        if self.dead_letter == self.queue:
            raise BrokerError(Kind.INVALID, "a queue is not its own dead-letter queue")


class Target(NamedTuple):
    """A URL taken apart."""

    secure: bool
    host: str
    port: int
    path: str


def target_of(url: str) -> Target:
    """Where the URL leads. Raises INVALID unless it is plain http or https."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BrokerError(Kind.INVALID, "the URL makes no sense") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BrokerError(Kind.INVALID, "a URL is http://HOST or https://HOST")
    if len(url) > URL_BYTES or not url.isascii() or not url.isprintable() or " " in url:
        raise BrokerError(Kind.INVALID, f"a URL is at most {URL_BYTES} printable characters")
    if parts.username is not None or parts.fragment:
        raise BrokerError(Kind.INVALID, "a URL has no user and no fragment here")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(secure, parts.hostname, port or (443 if secure else 80), path)


# What an attempt came to, and what follows.

class Verdict(Enum):
    CONFIRM = "confirm"
    AGAIN = "again"
    DEAD = "dead"
    DROP = "drop"


class Decision(NamedTuple):
    """delay_ms: after which it comes again; reason: why, for the dead letter."""

    verdict: Verdict
    delay_ms: int = 0
    reason: str = ""


def decide(
    subscription: Subscription, status: int, why: str, attempts: int, retry_s: int,
    age_s: float = 0.0,
) -> Decision:
    """What follows from an answer. status 0: there was none, for the reason why.

    retry_s: what the answer's Retry-After asks for; age_s: of the message. A redirect is a refusal:
    it is never followed.
    """
    if 200 <= status < 300:
        return Decision(Verdict.CONFIRM)
    reason = why if status == 0 else f"answered {status}"
    if subscription.strategy != "backoff":
        return again_for_cmq(subscription.strategy, attempts, age_s, reason)
    if attempts >= subscription.attempts and subscription.dead_letter:
        return Decision(Verdict.DEAD, 0, reason)
    delay_ms = max(backoff_ms(attempts), min(max(retry_s, 0) * 1000, BACKOFF_LIMIT_MS))
    return Decision(Verdict.AGAIN, delay_ms, reason)


def again_for_cmq(strategy: str, attempts: int, age_s: float, reason: str) -> Decision:
    """BACKOFF_RETRY tries three times more, 19 to 29 s apart; EXPONENTIAL_DECAY_RETRY after 1, 2,
    4, … s until the message is a day old. Then it is dropped."""
    if strategy == "cmq-backoff":
        if attempts > CMQ_TRIES:
            return Decision(Verdict.DROP, 0, reason)
        return Decision(Verdict.AGAIN, random.randint(*CMQ_APART_MS), reason)
    if age_s >= CMQ_LIFE_S:
        return Decision(Verdict.DROP, 0, reason)
    return Decision(Verdict.AGAIN, backoff_ms(attempts), reason)


def backoff_ms(attempts: int) -> int:
    """1 s after the first attempt, then twice as long each time, at most an hour."""
    return min(BACKOFF_MS << min(max(attempts, 1) - 1, 30), BACKOFF_LIMIT_MS)


# Signing: the receiver does the same with its copy of the secret, and compares.

def signature(secret: str, moment_s: int, identity: str, body: bytes) -> str:
    """HMAC-SHA256 over the moment, the message's id and the body: none can be exchanged."""
    said = b"%d.%b." % (moment_s, identity.encode()) + body
    return hmac.new(secret.encode(), said, hashlib.sha256).hexdigest()


def headers_of(
    subscription: Subscription, identity: str, attempts: int, moment_s: int, body: bytes
) -> dict[str, str]:
    """What stands in the head of each request beside what the message carries."""
    return {
        "Content-Type": "application/octet-stream",
        "User-Agent": "penstock",
        "Penstock-Id": identity,
        "Penstock-Queue": subscription.queue,
        "Penstock-Attempts": str(attempts),
        "Penstock-Time": str(moment_s),
        "Penstock-Signature": f"v1={signature(subscription.secret, moment_s, identity, body)}",
    }


def dead_attributes(
    attributes: Attributes, queue: str, offset: int, decision: Decision
) -> Attributes:
    """What a dead letter carries: what it carried, where it comes from and why it is there."""
    told = {
        "dead-queue": queue, "dead-offset": str(offset), "dead-reason": decision.reason[:500],
    }  # fmt: skip
    return Attributes(
        attributes.tag, attributes.key, attributes.routing_key, attributes.id,
        attributes.reply_to, attributes.correlation, {**attributes.properties, **told},
    )  # fmt: skip


# The guard: a stranger's URL must not reach what only this machine can reach.

def permitted(addresses: Iterable[str], allowed: Sequence[Network]) -> str:
    """The address to connect to. INVALID unless every one is public, or in an allowed network."""
    first = ""
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not any(address in network for network in allowed) and not public(address):
            raise BrokerError(Kind.INVALID, f"{address} is in no public network")
        first = first or text
    if not first:
        raise BrokerError(Kind.INVALID, "the host has no address")
    return first


def public(address: Address) -> bool:
    """Whether anybody on the internet could reach it. An address within another counts as well."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in NAT64:
            inner.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(one is not None and not public(one) for one in inner):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Pushes:
    """The push subscriptions of one store, each a note."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store

    def set(self, name: str, subscription: Subscription) -> None:
        """Push from now on. Raises INVALID, NOT_FOUND for the queue, TOO_LARGE."""
        checked(name)
        subscription.check()
        self.broker.open(subscription.queue, create=False)
        known = self.all()
        if name not in known and len(known) >= SUBSCRIPTIONS:
            raise BrokerError(
                Kind.TOO_LARGE, f"{SUBSCRIPTIONS} queues are pushed already", limit=SUBSCRIPTIONS
            )
        self._note(name, msgspec.json.encode(subscription))

    def remove(self, name: str) -> None:
        """Push no more. Raises NOT_FOUND."""
        if name not in self.all():
            raise BrokerError(Kind.NOT_FOUND, f"there is no push subscription {name}")
        self._note(name, None)

    def all(self) -> dict[str, Subscription]:
        """Every subscription by name."""
        try:
            notes = self.store.notes(PREFIX)
        except EngineError as error:
            raise refusal(error) from error
        return {
            name.removeprefix(PREFIX): msgspec.json.decode(value, type=Subscription)
            for name, value in sorted(notes.items())
        }

    def shown(self) -> list[dict[str, object]]:
        """What may be shown of them: all but the secrets."""
        return [
            {"name": name, **msgspec.structs.asdict(msgspec.structs.replace(one, secret=""))}
            for name, one in self.all().items()
        ]

    def _note(self, name: str, value: bytes | None) -> None:
        try:
            self.store.note(PREFIX + name, value)
        except EngineError as error:
            raise refusal(error) from error
