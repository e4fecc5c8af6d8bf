"""Conditions: the machine held against a walk over the same tree, and against SQLite."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.engine import Attributes
from penstock.engine._core import matches
from penstock.engine.filter_sql import tree
from penstock.engine.filter_tree import (
    Among,
    Binary,
    Chain,
    Like,
    Literal,
    Name,
    Node,
    Unary,
)
from penstock.engine.filters import compile_filter

NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
Value = bytes | float | bool | None
FLIPPED = {"=": False, "<>": True}


def number(value: Value) -> float | None:
    if isinstance(value, bytes):
        return float(value) if len(value) < 64 and NUMBER.fullmatch(value) else None
    return value if isinstance(value, float) else None


def truth(value: Value) -> bool | None:
    if isinstance(value, bytes):
        return {b"true": True, b"false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def compared(operator: str, left: Value, right: Value) -> bool | None:
    if left is None or right is None:
        return None
    a: Any = left
    b: Any = right
    if isinstance(left, bool) or isinstance(right, bool):
        a, b = truth(left), truth(right)
        if a is None or b is None or operator not in FLIPPED:
            return None
    elif not (isinstance(left, bytes) and isinstance(right, bytes)):
        a, b = number(left), number(right)
        if a is None or b is None:
            return None
    elif operator not in FLIPPED and None not in (number(left), number(right)):
        a, b = number(left), number(right)
    if operator in FLIPPED:
        return bool((a != b) == FLIPPED[operator])
    return bool({"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[operator])


def reckoned(operator: str, left: Value, right: Value) -> float | None:
    a, b = number(left), number(right)
    if a is None or b is None or (operator == "/" and b == 0):
        return None
    found = a / b if operator == "/" else {"+": a + b, "-": a - b, "*": a * b}[operator]
    return None if found != found else found


def liked(text: bytes, pattern: bytes) -> bool:
    parts = {0xFF: "(?s:.*)", 0xFE: "(?s:.)"}
    shape = "".join(
        parts[ord(one) - 0xDC00] if ord(one) - 0xDC00 in parts else re.escape(one)
        for one in pattern.decode("utf-8", "surrogateescape"))
    return re.fullmatch(shape, text.decode()) is not None


def walked(node: Node, properties: dict[str, str]) -> Value:
    """What a tree gives, by the book."""
    match node:
        case Literal(value):
            return value.encode() if isinstance(value, str) else value
        case Name(name, _):
            return properties[name].encode() if name in properties else None
        case Unary("NOT", operand):
            answer = truth(walked(operand, properties))
            return None if answer is None else not answer
        case Unary("IS NULL", operand):
            return walked(operand, properties) is None
        case Unary(_, operand):
            value = number(walked(operand, properties))
            return None if value is None else -value
        case Binary(operator, left, right):
            act = reckoned if operator in "+-*/" else compared
            return act(operator, walked(left, properties), walked(right, properties))
        case Like(operand, pattern):
            text = walked(operand, properties)
            return liked(text, pattern) if isinstance(text, bytes) else None
        case Among(operand, items):
            value = walked(operand, properties)
            found = [compared("=", value, one.encode() if isinstance(one, str) else one)
                     for one in items]
            return True if True in found else None if None in found else False
        case Chain(operator, parts):
            answers = [truth(walked(part, properties)) for part in parts]
            decides = operator == "OR"
            return decides if decides in answers else None if None in answers else not decides


names = st.sampled_from(["a", "b", "c", "gone"])
texts = st.sampled_from(
    ["", "x", "xy", "ü", "5", "-2.5", "05", "1e1", "true", "FALSE", "a%b", "it's"])
digits = st.sampled_from(["0", "1", "5", "2.5", "-2.5", "10", ".5", "1e3"])
quoted = texts.map(lambda text: "'" + text.replace("'", "''") + "'")
patterns = st.text("xy%_ü5", max_size=4).map(lambda text: f"'{text}'")
equals = st.sampled_from(["=", "<>"])
orders = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
unless = st.sampled_from(["", "NOT "])
sums = st.recursive(
    st.one_of(names, digits),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from("+-*/"), inner),
        inner.map("(- {})".format)),
    max_leaves=4)
simple = st.one_of(
    st.builds("{} {} {}".format, sums, orders, sums),
    st.builds("{} {} {}".format, names, orders, quoted),
    st.builds("{} {}BETWEEN {} AND {}".format, names, unless, sums, sums),
    st.builds("{} {}IN ({}, {})".format, names, unless, quoted, digits),
    st.builds("{} {}LIKE {}".format, names, unless, patterns),
    st.builds("{} IS {}NULL".format, names, unless),
    st.builds("{} {} TRUE".format, names, equals),
    st.sampled_from(["TRUE", "FALSE", "NULL", "a", "gone"]))
conditions = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
        st.builds("{} {} {} OR {}".format, inner, st.sampled_from(["AND", "OR"]), inner, inner),
        inner.map("NOT ({})".format)),
    max_leaves=8)


@settings(max_examples=400)
@given(conditions, st.dictionaries(st.sampled_from("abc"), texts))
def test_the_machine_walks_like_the_book(source: str, properties: dict[str, str]) -> None:
    stored = compile_filter("sql", source)
    answer = matches(stored, Attributes(properties=properties).pack())
    assert answer is (truth(walked(tree(source), properties)) is True)
    # NOT of it is wanted only where it is FALSE: that tells FALSE from UNKNOWN.
    stored = compile_filter("sql", f"NOT ({source})")
    inverse = matches(stored, Attributes(properties=properties).pack())
    assert inverse is (truth(walked(tree(source), properties)) is False)


reals = st.recursive(
    st.one_of(st.sampled_from("nm"), digits),
    lambda inner: st.builds("({} {} {})".format, inner, st.sampled_from("+-*"), inner),
    max_leaves=4)
common = st.recursive(
    st.one_of(
        st.builds("{} {} {}".format, reals, orders, reals),
        st.builds("n {}BETWEEN {} AND {}".format, unless, reals, reals),
        st.builds("t {} {}".format, equals, quoted),
        st.builds("t {}LIKE {}".format, unless, patterns),
        st.builds("t {}IN ({}, {})".format, unless, quoted, quoted),
        st.builds("{} IS {}NULL".format, st.sampled_from("nmt"), unless)),
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, st.sampled_from(["AND", "OR"]), inner),
        st.builds("{} AND {} OR NOT {}".format, inner, inner, inner)),
    max_leaves=8)


@settings(max_examples=400)
@given(common, *(st.one_of(st.none(), values) for values in (digits, digits, texts)))
def test_sqlite_gives_the_same_answer(
    source: str, n: str | None, m: str | None, t: str | None
) -> None:
    told = {name: value for name, value in (("n", n), ("m", m), ("t", t)) if value is not None}
    with sqlite3.connect(":memory:") as base:
        base.execute("PRAGMA case_sensitive_like = ON")
        base.execute("CREATE TABLE one (n REAL, m REAL, t TEXT)")
        base.execute("INSERT INTO one VALUES (?, ?, ?)", (n, m, t))
        # Literals of SQLite are integers where ours are not: no division, and each is made a real.
        [[answer]] = base.execute(f"SELECT ({source}) IS TRUE FROM one").fetchall()
    base.close()
    stored = compile_filter("sql", source)
    assert matches(stored, Attributes(properties=told).pack()) is bool(answer)
