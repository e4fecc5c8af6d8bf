"""What ADMIN asks about topics."""

import base64
import binascii
from collections.abc import Callable
from typing import Any

from penstock.engine.attributes import unpack
from penstock.engine.errors import InvalidError
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.later import Later, later_of
from penstock.server.broker.topic_later import LaterTopics
from penstock.server.broker.topic_settings import TopicSettings
from penstock.server.protocols.native.later import Joins, always, joined

Request = dict[str, Any]


class TopicAsks:
    """Called with the object that was sent; returns the object of the reply."""

    def __init__(self, broker: Broker) -> None:
        self.later = LaterTopics(broker)
        self.topics = self.later.topics
        self.settings = TopicSettings(self.topics)
        self.asks: dict[str, Callable[[str, Request], Request]] = {
            "topic.list": self.list,
            "topic.show": lambda name, _: self.topics.show(name),
            "topic.create": self.create,
            "topic.grow": lambda name, asked: self.topics.grow(name, number(asked, "partitions")),
            "topic.delete": self.delete,
            "topic.subscribe": self.subscribe,
            "topic.unsubscribe": self.unsubscribe,
            **dict.fromkeys(self.settings.asks, self.set),
        }
        self.does = {"topic.send", *self.asks}

    def __call__(
        self, do: str, request: Request, producer: int = 0, joins: Joins = always
    ) -> Request:
        """producer: what the connection stated, for a send that has a sequence; joins: what says
        whether it may use a queue."""
        name = request.get("name", "")
        if not isinstance(name, str):
            raise BrokerError(Kind.INVALID, "name is text")
        if do == "topic.send":
            joined(joins, self.topics.home(name).id)
            return self.send(name, request, producer)
        return self.asks[do](name, request)

    def set(self, _: str, request: Request) -> Request:
        fields = {field: request[field] for field in request if field != "do"}
        return self.settings(request["do"], fields)

    def list(self, _: str, request: Request) -> Request:
        fields = {field: request[field] for field in request if field != "do"}
        ask = asks.converted("topic.list", fields, asks.Listing)
        names, more = asks.page(self.topics.names(ask.prefix), ask)
        return {"topics": names, "next": more}

    def create(self, name: str, request: Request) -> Request:
        facts, new = self.topics.create(name, number(request, "partitions", 1))
        return {**facts, "new": new}

    def delete(self, name: str, _: Request) -> Request:
        self.topics.delete(name)
        return {}

    def send(self, name: str, request: Request, producer: int) -> Request:
        """body and attributes are base64; attributes as they are stored."""
        body, packed = octets(request, "body"), octets(request, "attributes")
        try:
            attributes = unpack(packed) if packed else None
        except InvalidError as error:
            raise BrokerError(Kind.INVALID, str(error)) from None
        partition = given(request, "partition")
        later = later_of_request(request)
        sequence = given(request, "sequence") or 0
        if not 0 <= sequence < 1 << 64 or (sequence and not producer):
            text = "a sequence is a number of the producer that was stated in HELLO"
            raise BrokerError(Kind.INVALID, text)
        level = request.get("durability", "disk")
        if level not in ("disk", "kernel"):
            raise BrokerError(Kind.INVALID, "durability is disk or kernel")
        self.later.schedule.fits([body])
        waits = bool(later.delay_ms or later.due_us or later.half)
        self.topics.admit(name, 1, len(body), waits=waits)
        sent = self.later.send(
            name, body, attributes, partition=partition, delay_ms=later.delay_ms,
            due_us=later.due_us, half=later.check_back if later.half else None,
            producer_group=later.producer_group, durability=level, producer=producer,
            sequence=sequence)
        return sent._asdict()

    def subscribe(self, name: str, request: Request) -> Request:
        kind, source = request.get("kind"), request.get("source", "")
        if not isinstance(source, str) or not (kind is None or isinstance(kind, str)):
            raise BrokerError(Kind.INVALID, "kind and source are text")
        start = request.get("start", "latest")
        if isinstance(start, bool) or (isinstance(start, int) and not 0 <= start < 1 << 63):
            raise BrokerError(Kind.INVALID, "start is latest, earliest or a time in µs")
        return self.topics.subscribe(
            name, str(request.get("queue", "")), kind=kind, source=source, start=start,
            offset=given(request, "offset"))

    def unsubscribe(self, name: str, request: Request) -> Request:
        self.topics.unsubscribe(name, str(request.get("queue", "")))
        return {}


def later_of_request(request: Request) -> Later:
    """When it shall come, and who is asked about a half."""
    times = {field: given(request, field)
             for field in ("delay_ms", "due_us", "first_check_ms", "check_interval_ms", "checks")}
    half, group = request.get("half", False), request.get("producer_group")
    if not isinstance(half, bool) or not (group is None or isinstance(group, str)):
        raise BrokerError(Kind.INVALID, "half is true or false, producer_group is text")
    return later_of(half=half, producer_group=group, **times)


def given(request: Request, field: str) -> int | None:
    """A number that may be left out."""
    return number(request, field) if request.get(field) is not None else None


def number(request: Request, field: str, default: int | None = None) -> int:
    found = request.get(field, default)
    if not isinstance(found, int) or isinstance(found, bool):
        raise BrokerError(Kind.INVALID, f"{field} is a number")
    return found


def octets(request: Request, field: str) -> bytes:
    text = request.get(field, "")
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise BrokerError(Kind.INVALID, f"{field} is base64") from None
