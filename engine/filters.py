"""Compiles what a group wants into the program that the engine runs for each message.

Three kinds. "tag": `paid || shipped`. "routing": patterns over the words of the routing key, where
`*` is one word and `#` any number, also joined with `||`. "sql": a condition over the properties,
see filter_sql.py. An empty source wants everything, and so does `*`, of routing keys `#`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from penstock.engine import filter_sql
from penstock.engine.attributes import hash32
from penstock.engine.errors import FilterError

KINDS = {"tag": 1, "routing": 2, "sql": 3}
HEAD = struct.Struct("<BBHI")  # kind, version, size of the source, size of the program
VERSION = 1
SOURCE_BYTES = 2048
STORED_BYTES = 4080  # the head, the program and the source: one page of the group's settings
ALTERNATIVES = 64
ANY, ONE = b"\xff", b"\xfe"  # in a program's patterns; no byte of UTF-8


@dataclass(frozen=True, slots=True)
class Filter:
    """What a group wants; generation grows with each change and is 0 where none was ever set."""

    kind: str | None = None
    source: str = ""
    generation: int = 0


def compile_filter(kind: str | None, source: str) -> bytes:
    """The bytes that a group's settings hold for a filter; b"" for one that wants everything.

    Raises FilterError, which names the column, for a source that is none or is over a limit.
    """
    if kind is not None and kind not in KINDS:
        raise FilterError(f"a filter is of the kind tag, routing or sql, not {kind!r}")
    if kind is None or source.strip() in ("", "#" if kind == "routing" else "*"):
        return b""
    try:
        raw = source.encode()
    except UnicodeEncodeError as error:
        raise FilterError("a character that is none", error.start + 1) from None
    if len(raw) > SOURCE_BYTES:
        raise FilterError(f"a filter of {len(raw)} bytes, at most {SOURCE_BYTES}")
    program = {"tag": tags, "routing": routing, "sql": filter_sql.program}[kind](source)
    if not program:
        return b""
    if HEAD.size + len(program) + len(raw) > STORED_BYTES:
        raise FilterError(
            f"the filter and its program have {len(program) + len(raw)} bytes, "
            f"at most {STORED_BYTES - HEAD.size}")
    return HEAD.pack(KINDS[kind], VERSION, len(raw), len(program)) + program + raw


def stored_filter(stored: bytes, generation: int = 0) -> Filter:
    """The Filter that a group's settings hold."""
    if not stored:
        return Filter(generation=generation)
    kind, _, _, size = HEAD.unpack_from(stored)
    name = next(name for name, number in KINDS.items() if number == kind)
    return Filter(name, stored[HEAD.size + size:].decode(), generation)


def alternatives(source: str) -> list[tuple[int, str]]:
    """What stands between the bars, with the column where each begins."""
    found = []
    column = 1
    for part in source.split("||"):
        text = part.strip()
        start = column + len(part) - len(part.lstrip())
        column += len(part) + 2
        if not text:
            raise FilterError("a name expected", start)
        for at, character in enumerate(text):
            if character == "|" or character.isspace() or not character.isprintable():
                raise FilterError(f"{character!r} cannot stand in a name", start + at)
        found.append((start, text))
    if len(found) > ALTERNATIVES:
        raise FilterError(f"{len(found)} alternatives, at most {ALTERNATIVES}", found[-1][0])
    return found


def tags(source: str) -> bytes:
    """u32 count, the hashes, then the tags as {u16 size, bytes}; nothing if * is among them."""
    found = alternatives(source)
    if any(text == "*" for _, text in found):
        return b""
    names = sorted({text for _, text in found}, key=lambda name: (hash32(name), name))
    parts = [struct.pack("<I", len(names)), *(struct.pack("<I", hash32(name)) for name in names)]
    for name in names:
        parts.append(struct.pack("<H", len(name.encode())) + name.encode())
    return b"".join(parts)


def routing(source: str) -> bytes:
    """u32 count, then patterns as {u16 size, bytes}."""
    parts = []
    for start, text in alternatives(source):
        words = []
        column = start
        for word in text.split("."):
            if word not in ("*", "#") and ("*" in word or "#" in word):
                raise FilterError("* and # stand for whole words", column)
            column += len(word) + 1
            words.append({"*": ONE, "#": ANY}.get(word) or word.encode())
        pattern = b".".join(words)
        parts.append(struct.pack("<H", len(pattern)) + pattern)
    return struct.pack("<I", len(parts)) + b"".join(parts)
