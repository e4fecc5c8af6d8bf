"""Parameters that are no model's fields, as OpenAPI says them: queries and header fields."""

from typing import Any

from penstock.server.broker.limits import Limits
from penstock.server.protocols.http import carried, later

Parameter = dict[str, Any]
LIMITS = Limits()


def number(name: str, text: str, most: int = (1 << 53), least: int = 0) -> Parameter:
    """A whole number in the query."""
    schema = {"type": "integer", "minimum": least, "maximum": most}
    return {"name": name, "in": "query", "description": text, "schema": schema}


DURABILITY: Parameter = {
    "name": "durability", "in": "query", "schema": {"type": "string", "enum": ["disk", "kernel"]},
    "description": "what the answer waits for; as the server was told to unless said",
}


def queries(queue: str, topic: str, pending: str) -> dict[tuple[str, str], tuple[Parameter, ...]]:
    """What may stand behind the ?, by target and method."""
    return {
        (queue, "put"): (
            number("idle_ms", "a temporary one, removed when nobody asked for it that long",
                   LIMITS.temporary_ms, 1),
        ),
        (f"{queue}/messages", "delete"): (
            number("keep_ms", "so long unpurge takes it back", 366 * 86_400_000),
        ),
        (f"{queue}/messages", "post"): (DURABILITY,),
        (f"{queue}/peek", "get"): (
            number("offset", "where to begin"), number("max", "how many at most", 1000),
            number("wait_ms", "for a message", LIMITS.wait_ms),
        ),
        (topic, "put"): (number("partitions", "how many it has", LIMITS.partitions, 1),),
        (f"{topic}/messages", "post"): (
            DURABILITY, number("partition", "else by the key, else in turn", LIMITS.partitions - 1),
        ),
        (pending, "get"): (number("body_bytes", "so many of the body", 8 << 20),),
    }


def header(name: str, text: str, kind: str = "string") -> Parameter:
    """A field of the head: Penstock-NAME."""
    field = "-".join(part.title() for part in name.split("-"))
    return {"name": f"Penstock-{field}", "in": "header", "description": text,
            "schema": {"type": "integer", "minimum": 0} if kind == "integer" else {"type": kind}}


NUMBERED = (
    header("producer", "who numbers its sends, so that a repetition is stored once", "integer"),
    header("sequence", "the number of this send", "integer"),
)
# Of a body of octets; JSON has the same as fields. Penstock-Property-NAME: any number of them.
HEADERS = (
    *NUMBERED,
    *(header(name, f"of octets: the message's {field}, percent-encoded")
      for name, field in carried.SINGLE.items()),
    *(header(name.decode(), f"of octets: {field}",
             "string" if field == "producer_group" else "integer")
      for name, field in later.NAMES.items()),
)
