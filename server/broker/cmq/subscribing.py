"""CMQ's subscriptions: what is asked for, what it must be, and the filter it comes to."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.push import target_of
from penstock.server.broker.errors import BrokerError

BY_TAG, BY_KEY = 1, 2
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
STRATEGIES = ("BACKOFF_RETRY", "EXPONENTIAL_DECAY_RETRY")
FORMATS = ("JSON", "SIMPLIFIED")
URL_CHARACTERS = 500


class Subscription(msgspec.Struct, omit_defaults=True, frozen=True):
    """As it is kept. queue: where its messages go; for an HTTP endpoint, one of our own."""

    id: str
    queue: str
    protocol: str
    endpoint: str
    strategy: str
    format: str
    tags: list[str]
    keys: list[str]
    created_us: int = 0
    changed_us: int = 0


class Asked(NamedTuple):
    """What a request asks for."""

    protocol: str
    endpoint: str
    strategy: str
    format: str
    tags: list[str]
    keys: list[str]

    def check(self, rules: Rules, filter_type: int) -> None:
        """Raises what is wrong with it."""
        if self.protocol not in ("http", "queue"):
            raise CmqError(Fault.PROTOCOL)
        if self.strategy not in STRATEGIES:
            raise CmqError(Fault.STRATEGY)
        if self.format not in FORMATS:
            raise CmqError(Fault.FORMAT)
        if self.protocol == "http":
            checked_url(self.endpoint)
        elif not NAME.fullmatch(self.endpoint):
            raise CmqError(Fault.ENDPOINT_FORMAT)
        if self.protocol == "queue" and rules.strict and self.format != "SIMPLIFIED":
            raise CmqError(Fault.SIMPLIFIED)
        if len(self.tags) > rules.tags:
            raise CmqError(Fault.FILTER_TAGS)
        if any(not 1 <= len(tag) <= rules.tag_characters or "," in tag for tag in self.tags):
            raise CmqError(Fault.FILTER_TAG)
        if len(self.keys) > rules.tags:
            raise CmqError(Fault.BINDING_KEYS)
        if any(not 1 <= len(key.encode()) <= rules.key_bytes for key in self.keys):
            raise CmqError(Fault.OUT_OF_RANGE, "bindingKey")
        if any(key.count(".") > rules.dots for key in self.keys):
            raise CmqError(Fault.DOTS)
        if filter_type == BY_KEY and not self.keys:
            raise CmqError(Fault.BINDING_KEY)


def checked_url(url: str) -> None:
    """Raises what is wrong with an HTTP endpoint."""
    if any(letter.isspace() for letter in url):
        raise CmqError(Fault.BLANKS)
    if not url.startswith(("http://", "https://")) or len(url) > URL_CHARACTERS:
        raise CmqError(Fault.ENDPOINT_FORMAT)
    try:
        target_of(url)
    except BrokerError as error:
        raise CmqError(Fault.ENDPOINT, error.text) from error


def subscription_name(name: str) -> str:
    """The name itself; SUBSCRIPTION_NAME for another."""
    if not NAME.fullmatch(name):
        raise CmqError(Fault.SUBSCRIPTION_NAME)
    return name


def filter_of(filter_type: int, made: list[Subscription]) -> tuple[str | None, str]:
    """The broker's filter, kind and source, for what any of a queue's subscriptions wants.

    A message of several tags has the first as its tag, and all of them, between commas, as a
    property.
    """
    if filter_type == BY_KEY:
        return "routing", "||".join(distinct(key for one in made for key in one.keys))
    if not all(one.tags for one in made):
        return None, ""
    tags = distinct(tag for one in made for tag in one.tags)
    one_of = ", ".join(map(quoted, tags))
    many = " OR ".join(f'"cmq.tags" CONTAINS {quoted(f",{tag},")}' for tag in tags)
    return "sql", f"$tag IN ({one_of}) OR {many}"


def distinct(texts: Iterable[str]) -> list[str]:
    """Each once, in their order."""
    return list(dict.fromkeys(texts))


def quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
