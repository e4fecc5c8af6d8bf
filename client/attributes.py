"""What a message carries beside its body: tag, key, properties; docs/format.md has the bytes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, TypedDict

from penstock.errors import InvalidError, ProtocolError, TooLargeError

HEAD = struct.Struct("<BBH")
PROPERTY = 3
KINDS = {
    "tag": 1, "key": 2, "routing_key": 4, "message_id": 5, "reply_to": 6, "correlation": 7,
}
NAMES = {kind: name for name, kind in KINDS.items()}
ATTRIBUTES_BYTES = 0xFFFF


class Carried(TypedDict, total=False):
    """What a send can carry beside its body. An empty text is as good as none.

    tag sorts messages for filters; key orders: messages of one key stay in their order for groups
    that ask for it; message_id is your own name of the message, not the server's.
    """

    tag: str
    key: str
    routing_key: str
    message_id: str
    reply_to: str
    correlation: str
    properties: Mapping[str, str]


class Attributes(NamedTuple):
    """What a message carries; an empty text is an absent attribute."""

    tag: str = ""
    key: str = ""
    routing_key: str = ""
    message_id: str = ""
    reply_to: str = ""
    correlation: str = ""
    properties: Mapping[str, str] = {}


NOTHING = Attributes()


def pack(carried: Carried) -> bytes:
    """The bytes on the wire. Raises InvalidError, TooLargeError."""
    parts: list[bytes] = []
    for name, value in carried.items():
        if name == "properties":
            assert isinstance(value, Mapping)
            parts += [attribute(PROPERTY, _named(key), text) for key, text in value.items()]
        elif name not in KINDS:
            raise InvalidError(f"a message carries no {name!r}")
        elif value:
            parts.append(attribute(KINDS[name], b"", value))
    packed = b"".join(parts)
    if len(packed) > ATTRIBUTES_BYTES:
        raise TooLargeError(f"attributes of {len(packed)} bytes, at most {ATTRIBUTES_BYTES}")
    return packed


def _named(name: str) -> bytes:
    raw = name.encode()
    if not 1 <= len(raw) <= 255:
        raise InvalidError(f"a property's name has 1 to 255 bytes, not {len(raw)}")
    return raw


def attribute(kind: int, name: bytes, value: Any) -> bytes:
    """One attribute as stored."""
    if not isinstance(value, str):
        raise TypeError(f"what a message carries is text, not {type(value).__name__}")
    raw = value.encode()
    if len(raw) > ATTRIBUTES_BYTES:
        raise TooLargeError(f"an attribute of {len(raw)} bytes, at most {ATTRIBUTES_BYTES}")
    return HEAD.pack(kind, len(name), len(raw)) + name + raw


def unpack(packed: bytes) -> Attributes:
    """What the bytes say. Kinds we do not know are passed over; of two alike the first counts.

    Raises ProtocolError for bytes that are no attributes.
    """
    single: dict[str, str] = {}
    properties: dict[str, str] = {}
    at = 0
    while at < len(packed):
        if len(packed) - at < HEAD.size:
            raise ProtocolError(f"half an attribute at byte {at}")
        kind, name_size, size = HEAD.unpack_from(packed, at)
        at += HEAD.size
        if len(packed) - at < name_size + size:
            raise ProtocolError(f"an attribute at byte {at} of more bytes than there are")
        name = packed[at : at + name_size].decode("utf-8", "replace")
        value = packed[at + name_size : at + name_size + size].decode("utf-8", "replace")
        at += name_size + size
        if kind == PROPERTY:
            properties.setdefault(name, value)
        elif kind in NAMES:
            single.setdefault(NAMES[kind], value)
    return Attributes(**single, properties=properties)
