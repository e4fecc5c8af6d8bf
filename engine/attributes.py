"""What a message carries beside its body: tag, key, routing key, properties.

docs/format.md has the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest

from penstock.engine.errors import InvalidError, TooLargeError

HEAD = struct.Struct("<BBH")
TAG, KEY, PROPERTY, ROUTING_KEY, ID, REPLY_TO, CORRELATION = range(1, 8)
PRODUCER_GROUP, CHECK_BACK, PARTITION = 8, 9, 10
SINGLE = {
    TAG: "tag", KEY: "key", ROUTING_KEY: "routing_key", ID: "id", REPLY_TO: "reply_to",
    CORRELATION: "correlation", PRODUCER_GROUP: "producer_group", CHECK_BACK: "check_back",
    PARTITION: "partition",
}
ATTRIBUTES_BYTES = 65535


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a message carries beside its body. An empty string is an absent attribute.

    key orders: messages of one key are delivered in their order to groups that ask for it.
    id is the caller's own name of the message. Of a half, producer_group names the producers
    that can be asked for its verdict, and check_back says how often: "interval_ms limit". Of what
    waits for a topic, partition is the one that its sender named.
    """

    tag: str = ""
    key: str = ""
    routing_key: str = ""
    id: str = ""
    reply_to: str = ""
    correlation: str = ""
    properties: Mapping[str, str] = field(default_factory=dict)
    producer_group: str = ""
    check_back: str = ""
    partition: str = ""

    def pack(self) -> bytes:
        """The bytes that are stored; TooLargeError if they are over 65,535."""
        parts = [_one(kind, b"", value) for kind, name in SINGLE.items()
                 if (value := getattr(self, name))]
        for name, value in self.properties.items():
            raw = name.encode()
            if not 1 <= len(raw) <= 255:
                raise InvalidError(f"a property's name has 1 to 255 bytes, not {len(raw)}")
            parts.append(_one(PROPERTY, raw, value))
        packed = b"".join(parts)
        if len(packed) > ATTRIBUTES_BYTES:
            raise TooLargeError(f"attributes of {len(packed)} bytes, at most {ATTRIBUTES_BYTES}")
        return packed


def _one(kind: int, name: bytes, value: str) -> bytes:
    raw = value.encode()
    if len(raw) > ATTRIBUTES_BYTES:
        raise TooLargeError(f"an attribute of {len(raw)} bytes, at most {ATTRIBUTES_BYTES}")
    return HEAD.pack(kind, len(name), len(raw)) + name + raw


def unpack(packed: bytes) -> Attributes:
    """The attributes in stored bytes; InvalidError if they are none.

    Kinds we do not know are passed over. Where something stands twice, the first counts, as it
    does for the index and for filters.
    """
    single: dict[str, str] = {}
    properties: dict[str, str] = {}
    at = 0
    while at < len(packed):
        if len(packed) - at < HEAD.size:
            raise InvalidError(f"half an attribute at byte {at}")
        kind, name_size, size = HEAD.unpack_from(packed, at)
        at += HEAD.size
        if len(packed) - at < name_size + size:
            raise InvalidError(f"an attribute at byte {at} of more bytes than there are")
        try:
            name = packed[at:at + name_size].decode()
            value = packed[at + name_size:at + name_size + size].decode()
        except UnicodeDecodeError:
            raise InvalidError(f"an attribute at byte {at} that is no UTF-8") from None
        at += name_size + size
        if kind == PROPERTY:
            properties.setdefault(name, value)
        elif kind in SINGLE:
            single.setdefault(SINGLE[kind], value)
    return Attributes(**single, properties=properties)


def hash32(value: str) -> int:
    """What the index holds for a tag or a key: the low half of its XXH3, 0 for none."""
    return (xxh3_64_intdigest(value.encode()) & 0xFFFFFFFF or 1) if value else 0
