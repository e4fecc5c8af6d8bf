"""The tree of an SQL filter, and the program that a tree becomes.

A program is a row of instructions for a stack machine, engine/_filter_sql.pxi; docs/format.md lists
them. Jumps lead forward only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from penstock.engine.errors import FilterError

STACK = 32
ANY, ONE = b"\xff", b"\xfe"  # % and _ in a pattern; no byte of UTF-8

PUSH_PROPERTY, PUSH_ATTRIBUTE, PUSH_TEXT, PUSH_NUMBER = b"\x01", b"\x02", b"\x03", b"\x04"
PUSH = {False: b"\x05", True: b"\x06", None: b"\x07"}
BINARY = {
    "=": b"\x10", "<>": b"\x11", "<": b"\x12", "<=": b"\x13", ">": b"\x14", ">=": b"\x15",
    "+": b"\x18", "-": b"\x19", "*": b"\x1a", "/": b"\x1b",
}
UNARY = {"-": b"\x1c", "NOT": b"\x22", "IS NULL": b"\x28"}
# The instruction, and the jump that saves it.
CHAIN = {"AND": (b"\x20", b"\x23"), "OR": (b"\x21", b"\x24")}
IS_LIKE, IS_AMONG = b"\x29", b"\x2a"
NUMBER, TEXT = 2, 3


@dataclass(frozen=True, slots=True)
class Literal:
    """A text, a number, a truth, or NULL."""

    value: str | float | bool | None


@dataclass(frozen=True, slots=True)
class Name:
    """A property, or (attribute not 0) a field of the message itself."""

    name: str
    attribute: int


@dataclass(frozen=True, slots=True)
class Unary:
    """NOT, - or IS NULL of a value."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True)
class Binary:
    """Two values compared or reckoned with."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True)
class Chain:
    """Conditions joined by AND or by OR."""

    operator: str
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Among:
    """A value that is IN a list of texts and numbers."""

    operand: Node
    items: tuple[str | float, ...]


@dataclass(frozen=True, slots=True)
class Like:
    """A text compared with a pattern, in which ANY and ONE stand for % and _."""

    operand: Node
    pattern: bytes


Node = Literal | Name | Unary | Binary | Chain | Among | Like


def kind(node: Node) -> str:
    """What a node gives: text, number, truth, null, or name (what its text spells)."""
    if isinstance(node, Literal):
        value = node.value
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "truth"
        return "text" if isinstance(value, str) else "number"
    if isinstance(node, Name):
        return "name"
    operator = getattr(node, "operator", "")
    return "number" if operator in ("+", "-", "*", "/") else "truth"


def emit(node: Node) -> bytes:
    """The program; FilterError if it needs more stack than there is."""
    code, depth = emitted(node)
    if depth > STACK:
        raise FilterError(f"nested so deep that it needs {depth} values at once, at most {STACK}")
    return code


def emitted(node: Node) -> tuple[bytes, int]:
    """A node's program, and how many values stand on the stack at most while it runs."""
    match node:
        case Literal(bool() | None as value):
            return PUSH[value], 1
        case Literal(str() as value):
            return PUSH_TEXT + sized(value.encode()), 1
        case Literal(value):
            return PUSH_NUMBER + struct.pack("<d", value), 1
        case Name(name, 0):
            return PUSH_PROPERTY + bytes([len(name.encode())]) + name.encode(), 1
        case Name(_, attribute):
            return PUSH_ATTRIBUTE + bytes([attribute]), 1
        case Unary(operator, operand):
            code, depth = emitted(operand)
            return code + UNARY[operator], depth
        case Binary(operator, left, right):
            first, one = emitted(left)
            second, other = emitted(right)
            return first + second + BINARY[operator], max(one, 1 + other)
        case Among(operand, items):
            code, depth = emitted(operand)
            return code + IS_AMONG + sized(b"".join(map(item, items))), depth
        case Like(operand, pattern):
            code, depth = emitted(operand)
            return code + IS_LIKE + sized(pattern), depth
        case Chain(operator, parts):
            return chained(operator, [emitted(part) for part in parts])


def chained(operator: str, parts: list[tuple[bytes, int]]) -> tuple[bytes, int]:
    """Each part behind the first is jumped over, to the end, when what went before decides."""
    join, jump = CHAIN[operator]
    rest = b""
    for code, _ in reversed(parts[1:]):
        rest = code + join + rest
        rest = jump + sized(rest)[:2] + rest
    return parts[0][0] + rest, max(parts[0][1], 1 + max(depth for _, depth in parts[1:]))


def item(value: str | float) -> bytes:
    if isinstance(value, str):
        return bytes([TEXT]) + sized(value.encode())
    return bytes([NUMBER]) + struct.pack("<d", value)


def sized(raw: bytes) -> bytes:
    if len(raw) > 65535:
        raise FilterError("larger than a program may be")
    return struct.pack("<H", len(raw)) + raw
