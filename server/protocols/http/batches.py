"""The bodies of a send, in each of the content types that are taken."""

import struct
from typing import NamedTuple

import msgspec

from penstock.engine.attributes import Attributes
from penstock.server._wire import HttpRequest
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.later import AT_ONCE, Later
from penstock.server.broker.limits import Limits
from penstock.server.protocols.http import later
from penstock.server.protocols.http.carried import from_fields, from_json
from penstock.server.protocols.http.models import SendRequest

LINES = msgspec.json.Decoder(SendRequest)


class Sending(NamedTuple):
    """What a send holds. single: a plain message of octets.

    attributes: one, or None, for each body. later: when all of them come.
    """

    single: bool
    bodies: list[bytes]
    attributes: list[Attributes | None] | None
    later: Later = AT_ONCE


def sending_of(request: HttpRequest, limits: Limits) -> Sending:
    """What the request asks to be stored. Raises INVALID, TOO_LARGE."""
    kind = (request.content_type or b"application/octet-stream").split(b";")[0].strip().lower()
    if kind == b"application/json":
        return described([LINES.decode(request.body)], limits)
    if kind == b"application/x-ndjson":
        lines = [line for line in request.body.split(b"\n") if line.strip()]
        return described([LINES.decode(line) for line in lines], limits)
    if kind == b"application/vnd.penstock.batch":
        return Sending(False, counted(prefixed(request.body), limits), None)
    attributes: list[Attributes | None] | None = None
    when = AT_ONCE
    if request.fields:
        when, rest = later.from_fields(request.fields)
        attributes = [from_fields(rest)] if rest else None
    return Sending(kind == b"application/octet-stream", [request.body], attributes, when)


def described(messages: list[SendRequest], limits: Limits) -> Sending:
    bodies = counted([body_of(one) for one in messages], limits)
    attributes = [from_json(one) for one in messages]
    times = {later.from_json(one) for one in messages}
    if len(times) > 1:
        raise BrokerError(Kind.INVALID, "the messages of a batch come all at the same time")
    return Sending(False, bodies, attributes if any(attributes) else None, times.pop())


def body_of(one: SendRequest) -> bytes:
    if isinstance(one.body, str) and not isinstance(one.body_base64, bytes):
        return one.body.encode()
    if isinstance(one.body_base64, bytes) and not isinstance(one.body, str):
        return one.body_base64
    raise BrokerError(Kind.INVALID, "exactly one of body and body_base64 is needed")


def prefixed(raw: bytes) -> list[bytes]:
    """The bodies of a batch in which each is preceded by its size, u32 little-endian."""
    bodies, position = [], 0
    while position < len(raw):
        if len(raw) - position < 4:
            raise BrokerError(Kind.INVALID, f"a size is cut off at byte {position}")
        (size,) = struct.unpack_from("<I", raw, position)
        position += 4
        if size > len(raw) - position:
            raise BrokerError(Kind.INVALID, f"a body is cut off at byte {position}")
        bodies.append(raw[position : position + size])
        position += size
    return bodies


def counted(bodies: list[bytes], limits: Limits) -> list[bytes]:
    if not bodies:
        raise BrokerError(Kind.INVALID, "the batch is empty")
    if len(bodies) > limits.batch_messages:
        limit = limits.batch_messages
        raise BrokerError(Kind.TOO_LARGE, "too many messages in the batch", limit=limit)
    return bodies
