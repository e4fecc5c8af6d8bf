"""Filters: what compiles, what a program wants, and which bytes are no program."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.engine import Attributes, FilterError, InvalidError
from penstock.engine._core import matches
from penstock.engine.attributes import hash32
from penstock.engine.filters import (
    ALTERNATIVES,
    HEAD,
    SOURCE_BYTES,
    compile_filter,
    stored_filter,
)


def wanted(kind: str, source: str, **attributes: Any) -> bool:
    return matches(compile_filter(kind, source), Attributes(**attributes).pack())


def condition(source: str, **properties: str) -> bool:
    return wanted("sql", source, properties=properties)


@pytest.mark.parametrize(("source", "tag", "answer"), [
    ("paid", "paid", True), ("paid", "paid2", False), ("paid", "", False),
    ("paid", "PAID", False),
    ("paid||sent", "sent", True), (" paid ||  sent ", "sent", True),
    ("paid || sent", "x", False),
    ("größer", "größer", True), ("a || * || b", "x", True), ("*", "", True), ("", "x", True),
])
def test_tags(source: str, tag: str, answer: bool) -> None:
    assert wanted("tag", source, tag=tag) is answer


def test_a_tag_with_the_same_hash_is_not_the_same_tag() -> None:
    stored = compile_filter("tag", "paid")
    head = HEAD.unpack_from(stored)
    # A program that asks for the hash of "sent" and the text "paid".
    forged = bytearray(stored)
    struct.pack_into("<I", forged, HEAD.size + 4, hash32("sent"))
    assert head[0] == 1 and not matches(bytes(forged), Attributes(tag="sent").pack())


@pytest.mark.parametrize(("source", "key", "answer"), [
    ("a.b", "a.b", True), ("a.b", "a.b.c", False), ("a.*", "a.b", True), ("a.*", "a", False),
    ("a.*", "a.b.c", False), ("a.#", "a", True), ("a.#", "a.b.c.d", True), ("#.d", "d", True),
    ("#.d", "a.b.d", True), ("a.#.d", "a.d", True), ("a.#.d", "a.b.d.d", True),
    ("a.#.d", "a.b.c", False), ("#", "", True), ("#", "a.b", True), ("*", "", False),
    ("*", "a", True), ("*", "a.b", False), ("*.#", "", False),
    ("*.*", "a", False), ("#.*", "", False), ("#.*", "a", True), ("#.#", "", True),
    ("a.*.#.b", "a.b", False), ("a.*.#.b", "a.x.b", True), ("a.", "a.", True),
    ("a.", "a", False), ("x || a.*", "a.b", True), ("#.b.#.c", "a.b.b.c", True),
    ("a", "", False),
    ("#.ab.#", "x.a.b", False), ("é.*", "é.ü", True),
])
def test_routing_keys(source: str, key: str, answer: bool) -> None:
    assert wanted("routing", source, routing_key=key) is answer


@pytest.mark.parametrize(("source", "answer"), [
    ("price > 10", True), ("price = 15.5", True), ("price = '15.5'", True),
    ("price = '15.50'", False),
    ("price >= 15.5 and price <= 15.5", True), ("price BETWEEN 15 AND 16", True),
    ("price NOT BETWEEN 15 AND 16", False), ("price IN (1, 15.5)", True),
    ("price IN (1, 2)", False),
    ("price NOT IN (1, 2)", True), ("name IN ('A', 'it''s')", True), ("name <> 'x'", True),
    ("name != 'x'", True), ("name = 5", False), ("NOT name = 5", False), ("name > 5", False),
    ("missing = 1", False), ("NOT missing = 1", False), ("missing IS NULL", True),
    ("name IS NOT NULL", True), ("missing <> 1 OR TRUE", True),
    ("missing = 1 OR price > 1", True),
    ("missing = 1 AND FALSE", False), ("NOT (missing = 1 AND FALSE)", True), ("FALSE", False),
    ("NULL", False), ("NULL IS NULL", True), ("name LIKE 'it%'", True),
    ("name LIKE 'it_s'", True),
    ("name LIKE 'IT%'", False), ("name NOT LIKE 'x%'", True), ("missing LIKE '%'", False),
    ("percent LIKE '50!%' ESCAPE '!'", True), ("name LIKE '50!%' ESCAPE '!'", False),
    ("accent LIKE '_'", True), ("accent LIKE '__'", False), ("accent LIKE '%_'", True),
    ("name CONTAINS '''s'", True), ("name STARTSWITH 'it'", True), ("name ENDSWITH 't'", False),
    ("name NOT CONTAINS 'x'", True), ("price + 1 = 16.5", True), ("price * 2 - 1 = 30", True),
    ("price / 0 = 1", False), ("price / 0 IS NULL", True), ("-price < 0", True),
    ("+price > 0", True),
    ("1 + 2 * 3 = 7", True), ("(1 + 2) * 3 = 9", True), ("10 - 3 - 2 = 5", True),
    ("8 / 4 / 2 = 1", True),
    ("flag", True), ("flag = TRUE", True), ("NOT flag", False), ("name", False),
    ("flag AND price > 1", True),
    ("a = 1 OR b = 2 AND c = 3", False), ('"odd name" = \'x\'', True), ("TAGS = 't'", True),
    ("$key = 'k'", True), ("$routing_key IS NULL", True), ("price > 1 -- a comment", True),
    ("price /* in the middle */ > 1", True), ("big = 9007199254740993", True),
    ("price = 155e-1", True),
    ("'9' < '10'", True), ("'9' < '1x'", False), ("price < '16'", True), ("name < 'j'", True),
    ("price = 15.5L", True),
    ("flag > 1", False), ("a.b = 1", True),
])
def test_conditions(source: str, answer: bool) -> None:
    properties = {
        "price": "15.5", "name": "it's", "percent": "50%", "accent": "é", "flag": "True",
        "odd name": "x", "big": "9007199254740993", "a.b": "1",
    }
    assert wanted("sql", source, tag="t", key="k", properties=properties) is answer


@pytest.mark.parametrize(("kind", "source", "column"), [
    ("sql", "a >", 4), ("sql", "(a = 1", 7), ("sql", "a = 'x", 5), ("sql", "1", 1),
    ("sql", "'x'", 1),
    ("sql", "a AND 1", 7), ("sql", "1 OR a", 1), ("sql", "a = 1 = 2", 7), ("sql", "'a' > 5", 5),
    ("sql", "TRUE > FALSE", 6), ("sql", "a NOT 5", 7), ("sql", "a LIKE b", 8),
    ("sql", "5 + 'x' = 1", 5),
    ("sql", "a = 1 1", 7), ("sql", "a IN (1,)", 9), ("sql", "a IN ()", 7), ("sql", "a @ b", 3),
    ("sql", "NOT", 4), ("sql", "a IS 5", 6), ("sql", "a BETWEEN 1", 12),
    ("sql", "5 LIKE 'x'", 1),
    ("sql", "a LIKE 'x!' ESCAPE '!'", 8), ("sql", "a LIKE 'x' ESCAPE '!!'", 19),
    ("sql", "x = \"y", 5),
    ("sql", "a IN (b)", 7), ("sql", "a = 5x", 5), ("sql", "/* a", 1),
    ("sql", "a = 1 AND ü = ?", 15),
    ("sql", "(" * 30 + "a" + ")" * 30, 26), ("sql", " AND ".join(["a=1"] * 200), 1026),
    ("tag", "a || || b", 6), ("tag", "a |b", 2), ("tag", "a || b c", 7), ("tag", "||", 1),
    ("routing", "a.b*", 3), ("routing", "a || x.##", 8), ("routing", "a b", 2),
])
def test_an_error_points_at_its_column(kind: str, source: str, column: int) -> None:
    with pytest.raises(FilterError, match=f"^column {column}: ") as caught:
        compile_filter(kind, source)
    assert caught.value.column == column


@pytest.mark.parametrize(("kind", "source"), [
    ("colour", "x"), ("sql", "a" * (SOURCE_BYTES + 1)), ("sql", "a = '" + "x" * 2040 + "'"),
    ("tag", "||".join(f"t{at}" for at in range(ALTERNATIVES + 1))), ("tag", "x\ud800"),
    ("tag", "||".join(f"{at:028}" for at in range(ALTERNATIVES))),
    ("sql", "x = (a AND " * 20 + "b" + ")" * 20),
])
def test_a_filter_over_a_limit_is_refused(kind: str, source: str) -> None:
    with pytest.raises(FilterError):
        compile_filter(kind, source)


def test_the_largest_filters_fit() -> None:
    tags = [f"{at:020}" for at in range(ALTERNATIVES)]
    for tag in tags:
        assert wanted("tag", "||".join(tags), tag=tag)
    assert condition("a IN (" + ",".join(map(str, range(200))) + ")", a="199")
    assert condition(" AND ".join(["a=1"] * 120), a="1")
    assert condition("(" * 24 + "a = 1" + ")" * 24, a="1")


def test_what_a_filter_was_made_of_is_kept() -> None:
    for kind, source in (("tag", "a || b"), ("routing", "a.#"), ("sql", "ü = 'é'")):
        found = stored_filter(compile_filter(kind, source), 7)
        assert (found.kind, found.source, found.generation) == (kind, source, 7)
    assert stored_filter(b"").kind is None


def test_a_pattern_that_costs_too_much_wants_nothing() -> None:
    long = "a" * 60000
    assert condition("x LIKE '%b'", x=long + "b")
    assert not condition("x LIKE '" + "%aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab" * 20 + "%'", x=long)
    assert not wanted("routing", "#." + "a." * 200 + "b.#", routing_key="a." * 30000 + "a")


def test_broken_attributes_are_no_attributes() -> None:
    stored = compile_filter("sql", "a = 1 OR a IS NULL")
    good = Attributes(properties={"a": "1"}).pack()
    for size in range(len(good)):
        assert matches(stored, good[:size])
    assert not matches(compile_filter("sql", "a = 1"), good[:-1])


def framed(kind: int, program: bytes, source: bytes = b"") -> bytes:
    return HEAD.pack(kind, 1, len(source), len(program)) + program + source


@pytest.mark.parametrize("program", [
    b"", b"\x20", b"\x06\x20", b"\x06\x06", b"\x06\x23", b"\x06\x23\x00", b"\x06\x23\x01\x00",
    b"\x06\x23\xff\xff\x22", b"\x03\x05\x00abc", b"\x06" * 33 + b"\x20" * 32, b"\x00", b"\xff",
    b"\x06\x23\x02\x00\x03\x01\x00x\x20", b"\x01\x05ab", b"\x04\0\0", b"\x06\x29\x02\x00x",
    b"\x06\x2a\x01\x00\x02", b"\x06\x2a\x03\x00\x03\x09\x00", b"\x06\x23\x01\x00\x06\x20\x20",
])
def test_bytes_that_are_no_program_are_refused(program: bytes) -> None:
    with pytest.raises(InvalidError):
        matches(framed(3, program), b"")


def test_a_frame_that_does_not_add_up_is_refused() -> None:
    whole = compile_filter("sql", "a = 1")
    for wrong in (whole[:-1], whole + b"x", b"\x04" + whole[1:], whole[:1] + b"\x02" + whole[2:],
                  whole[:7], framed(1, b""), framed(1, struct.pack("<I", 65)),
                  framed(2, b"\1\0\0\0\5\0abc"),
                  framed(1, struct.pack("<I", 0xFFFFFFFF))):
        with pytest.raises(InvalidError):
            matches(wrong, b"")


pieces = st.sampled_from([
    bytes([one]) for one in (5, 6, 7, 16, 17, 18, 21, 24, 25, 26, 27, 28, 32, 33, 34, 40)
] + [b"\x01\x01a", b"\x02\x01", b"\x03\x01\x00x", b"\x04" + struct.pack("<d", 2.5), b"\x23\x01\x00",
     b"\x24\x04\x00", b"\x29\x02\x00\xffx", b"\x2a\x04\x00\x03\x01\x00x", b"\x04" + b"\xff" * 8])


@given(st.one_of(st.binary(max_size=200), st.lists(pieces, max_size=40).map(b"".join)),
       st.integers(0, 4), st.binary(max_size=60))
def test_any_bytes_are_safe_as_a_program(program: bytes, kind: int, ext: bytes) -> None:
    for attributes in (ext, Attributes(tag="t", routing_key="a.b", properties={"a": "5"}).pack()):
        try:
            assert matches(framed(kind, program), attributes) in (True, False)
        except InvalidError:
            pass
