"""What a message carries, as HTTP says it: fields of JSON objects, and header fields of octets."""

from typing import Protocol
from urllib.parse import quote, unquote

from msgspec import UNSET, UnsetType

from penstock.engine.attributes import Attributes
from penstock.server.broker.errors import BrokerError, Kind

Fields = list[tuple[bytes, bytes]]

# Behind "Penstock-": what a header field is called, and the attribute that it holds.
SINGLE = {
    "tag": "tag",
    "key": "key",
    "routing-key": "routing_key",
    "message-id": "id",
    "reply-to": "reply_to",
    "correlation": "correlation",
}
PROPERTY = "property-"
# Of a header field's name and value, what need not be percent-encoded.
TOKEN = "!#$&'*+-.^_`|~"
TEXT = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"


class Carrying(Protocol):
    """A message as JSON has it."""

    tag: str | UnsetType
    key: str | UnsetType
    routing_key: str | UnsetType
    message_id: str | UnsetType
    reply_to: str | UnsetType
    correlation: str | UnsetType
    properties: dict[str, str] | UnsetType


def from_json(one: Carrying) -> Attributes | None:
    """What the JSON object carries, None for nothing."""
    given = {
        "tag": one.tag,
        "key": one.key,
        "routing_key": one.routing_key,
        "id": one.message_id,
        "reply_to": one.reply_to,
        "correlation": one.correlation,
    }
    single = {name: value for name, value in given.items() if value}
    properties = {} if one.properties is UNSET else one.properties
    if not single and not properties:
        return None
    return Attributes(**single, properties=properties)


def into_json(attributes: Attributes, one: Carrying) -> None:
    """Say in the JSON object what the message carries."""
    if attributes.tag:
        one.tag = attributes.tag
    if attributes.key:
        one.key = attributes.key
    if attributes.routing_key:
        one.routing_key = attributes.routing_key
    if attributes.id:
        one.message_id = attributes.id
    if attributes.reply_to:
        one.reply_to = attributes.reply_to
    if attributes.correlation:
        one.correlation = attributes.correlation
    if attributes.properties:
        one.properties = dict(attributes.properties)


def from_fields(fields: Fields) -> Attributes:
    """What the header fields say; INVALID for one that nobody knows, or that is no text."""
    single: dict[str, str] = {}
    properties: dict[str, str] = {}
    for raw_name, raw_value in fields:
        name = raw_name.decode("ascii")
        try:
            value = unquote(raw_value.decode(), errors="strict")
            if name.startswith(PROPERTY):
                properties[unquote(name.removeprefix(PROPERTY), errors="strict")] = value
                continue
        except UnicodeDecodeError:
            raise BrokerError(Kind.INVALID, f"Penstock-{name} is not UTF-8") from None
        if name not in SINGLE:
            raise BrokerError(Kind.INVALID, f"there is no header field Penstock-{name}")
        if SINGLE[name] in single:
            raise BrokerError(Kind.INVALID, f"Penstock-{name} stands twice")
        single[SINGLE[name]] = value
    return Attributes(**single, properties=properties)


def into_fields(attributes: Attributes) -> bytes:
    """The header fields that say what a message carries, each with its line end."""
    said = fields_of(attributes).items()
    return "".join(f"{name}: {value}\r\n" for name, value in said).encode()


def fields_of(attributes: Attributes) -> dict[str, str]:
    """The header fields that say what a message carries."""
    said = [
        (name.title(), value)
        for name, attribute in SINGLE.items()
        if (value := getattr(attributes, attribute))
    ]
    for name, value in attributes.properties.items():
        said.append(("Property-" + quote(name, safe=TOKEN), value))
    return {f"Penstock-{name}": header_text(value) for name, value in said}


def header_text(value: str) -> str:
    """The value with all that a header field cannot hold, and %, percent-encoded."""
    inner = quote(value, safe=TEXT + " ")
    # Blanks at the ends of a value are not the value's.
    start = len(inner) - len(inner.lstrip(" "))
    end = len(inner.rstrip(" "))
    if start >= len(inner):
        return "%20" * len(inner)
    return "%20" * start + inner[start:end] + "%20" * (len(inner) - end)
