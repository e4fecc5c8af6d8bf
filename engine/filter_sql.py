"""SQL92 conditions over a message's properties: source to tree to the program of a stack machine.

    condition   all { OR all }
    all         inverse { AND inverse }
    inverse     NOT inverse | comparison
    comparison  sum [ (= | <> | != | < | <= | > | >=) sum | IS [NOT] NULL
                    | [NOT] BETWEEN sum AND sum | [NOT] IN ( literal {, literal} )
                    | [NOT] LIKE text [ESCAPE character]
                    | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) text ]
    sum         product { (+ | -) product };  product = sign { (* | /) sign };  sign = [+ | -] value
    value       number | 'text' | TRUE | FALSE | NULL | name | "name" | ( condition )

Names are those of properties, which are texts; TAGS, KEYS, and $tag, $key, $routing_key, $id,
$reply_to, $correlation are the message's own. Words of the language are of any case, names are not.
A text beside a number is taken as a number; one that is none makes the comparison UNKNOWN.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from penstock.engine.errors import FilterError
from penstock.engine.filter_tree import (
    ANY,
    ONE,
    Among,
    Binary,
    Chain,
    Like,
    Literal,
    Name,
    Node,
    Unary,
    emit,
    kind,
)

OPERATORS = 256  # in a filter, so that no tree of it is too deep to walk
DEPTH = 24  # of parentheses, signs and NOTs
LIST = 256  # values of one IN

OWN = {
    "TAGS": 1, "KEYS": 2, "$tag": 1, "$key": 2, "$routing_key": 4, "$id": 5, "$reply_to": 6,
    "$correlation": 7,
}
WORDS = {
    "AND", "OR", "NOT", "BETWEEN", "IN", "IS", "NULL", "LIKE", "ESCAPE", "TRUE", "FALSE",
    "CONTAINS", "STARTSWITH", "ENDSWITH",
}
TOKEN = re.compile(r"""
    (?P<space>\s+|--[^\n]*|/\*.*?\*/)
  | (?P<number>(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)[lL]?(?![\w$.])
  | '(?P<text>(?:[^']|'')*)'
  | "(?P<quoted>(?:[^"]|"")+)"
  | (?P<name>[^\W\d][\w$]*(?:\.[^\W\d][\w$]*)*|\$\w+)
  | (?P<sign><>|!=|<=|>=|[=<>+\-*/(),])
""", re.VERBOSE | re.DOTALL)


def program(source: str) -> bytes:
    """The machine's program for a condition; FilterError, with its column, if it is none."""
    return emit(tree(source))


def tree(source: str) -> Node:
    """The tree of a condition."""
    return Parser(source).whole()


@dataclass(frozen=True, slots=True)
class Token:
    """kind: number, text, name, word, sign or end; text: what it is, words in capitals."""

    kind: str
    text: str
    column: int


def tokens(source: str) -> list[Token]:
    """The source's tokens, and one of kind "end"."""
    found = []
    at = 0
    while at < len(source):
        match = TOKEN.match(source, at)
        if match is None:
            start = source[at]
            what = {"'": "a text without its end", '"': "a name without its end",
                    "/": "a comment without its end"}.get(start, f"{start!r} means nothing here")
            raise FilterError(what, at + 1)
        kind = str(match.lastgroup)
        text = match.group(kind)
        if kind == "text":
            text = text.replace("''", "'")
        elif kind == "quoted":
            kind, text = "name", text.replace('""', '"')
        elif kind == "name" and text.upper() in WORDS:
            kind, text = "word", text.upper()
        if kind != "space":
            found.append(Token(kind, "<>" if kind == "sign" and text == "!=" else text, at + 1))
        at = match.end()
    return [*found, Token("end", "", len(source) + 1)]


class Parser:
    """Makes the tree.

    Invariants: 1. here is the index of the next token; the last one, "end", is never passed.
    2. operators and depth never go over OPERATORS and DEPTH.
    """

    def __init__(self, source: str) -> None:
        self.tokens = tokens(source)
        self.here = 0
        self.operators = 0
        self.depth = 0

    def whole(self) -> Node:
        """The tree of the whole source, a condition."""
        found = self.condition()
        if self.tokens[self.here].kind != "end":
            self.fail("an operator or the end expected")
        self.is_condition(found, 0)
        return found

    def fail(self, reason: str, token: Token | None = None) -> NoReturn:
        token = token or self.tokens[self.here]
        seen = f", not {token.text!r}" if token.kind != "end" else ", but it ends here"
        raise FilterError(reason + (seen if "expected" in reason else ""), token.column)

    def take(self, *texts: str) -> str:
        """The next token if it is one of these words or signs, else "" and nothing is taken."""
        token = self.tokens[self.here]
        if token.kind not in ("word", "sign") or token.text not in texts:
            return ""
        self.here += 1
        if token.text not in ("(", ")", ","):
            self.operators += 1
            if self.operators > OPERATORS:
                self.fail(f"more than {OPERATORS} operators", token)
        return token.text

    def need(self, text: str) -> None:
        if not self.take(text):
            self.fail(f"{text} expected")

    def condition(self) -> Node:
        return self.chain("OR", lambda: self.chain("AND", self.inverse))

    def chain(self, operator: str, part: Callable[[], Node]) -> Node:
        start = self.here
        parts = [part()]
        while self.take(operator):
            self.is_condition(parts[-1], start)
            start = self.here
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        self.is_condition(parts[-1], start)
        return Chain(operator, tuple(parts))

    def inverse(self) -> Node:
        if not self.take("NOT"):
            return self.comparison()
        start = self.here
        operand = self.deeper(self.inverse)
        self.is_condition(operand, start)
        return Unary("NOT", operand)

    def deeper(self, part: Callable[[], Node]) -> Node:
        self.depth += 1
        if self.depth > DEPTH:
            self.fail(f"deeper than {DEPTH}")
        found = part()
        self.depth -= 1
        return found

    def comparison(self) -> Node:
        start = self.here
        left = self.sum()
        sign = self.here
        if operator := self.take("=", "<>", "<", "<=", ">", ">="):
            right = self.sum()
            self.comparable(operator, left, right, sign)
            return Binary(operator, left, right)
        if self.take("IS"):
            unless = self.take("NOT")
            self.need("NULL")
            return self.unless(unless, Unary("IS NULL", left))
        unless = self.take("NOT")
        operator = self.take("BETWEEN", "IN", "LIKE", "CONTAINS", "STARTSWITH", "ENDSWITH")
        if not operator:
            if unless:
                self.fail("BETWEEN, IN or LIKE expected")
            return left
        if operator == "BETWEEN":
            low = self.sum()
            self.need("AND")
            high = self.sum()
            for operator, bound in ((">=", low), ("<=", high)):
                self.comparable(operator, left, bound, sign)
            found: Node = Chain("AND", (Binary(">=", left, low), Binary("<=", left, high)))
        elif operator == "IN":
            found = self.among(left, sign)
        else:
            if kind(left) not in ("name", "text"):
                self.fail(f"{operator} compares texts", self.tokens[start])
            found = Like(left, self.pattern(operator))
        return self.unless(unless, found)

    def unless(self, word: str, found: Node) -> Node:
        return Unary("NOT", found) if word else found

    def among(self, left: Node, sign: int) -> Node:
        self.need("(")
        items: list[str | float] = []
        while True:
            start = self.here
            item = self.sign()
            if not isinstance(item, Literal) or kind(item) not in ("text", "number"):
                self.fail("a text or a number expected", self.tokens[start])
            assert isinstance(item.value, str | float)
            if len(items) == LIST:
                self.fail(f"more than {LIST} values", self.tokens[start])
            self.comparable("=", left, item, sign)
            items.append(item.value)
            if not self.take(","):
                break
        self.need(")")
        return Among(left, tuple(items))

    def pattern(self, operator: str) -> bytes:
        token = self.tokens[self.here]
        if token.kind != "text":
            self.fail("a text in quotes expected")
        self.here += 1
        if operator != "LIKE":
            raw = token.text.encode()
            return {"CONTAINS": ANY + raw + ANY, "STARTSWITH": raw + ANY}.get(operator, ANY + raw)
        escape = ""
        if self.take("ESCAPE"):
            escape = self.tokens[self.here].text
            if self.tokens[self.here].kind != "text" or len(escape) != 1:
                self.fail("a character in quotes expected")
            self.here += 1
        parts = []
        characters = iter(token.text)
        for character in characters:
            if character == escape:
                following = next(characters, "")
                if following not in ("%", "_", escape) or not following:
                    self.fail(f"{escape!r} stands only before % and _ and itself", token)
                parts.append(following.encode())
            else:
                parts.append({"%": ANY, "_": ONE}.get(character) or character.encode())
        return b"".join(parts)

    def sum(self) -> Node:
        return self.reckoned(("+", "-"), lambda: self.reckoned(("*", "/"), self.sign))

    def reckoned(self, signs: tuple[str, str], part: Callable[[], Node]) -> Node:
        start = self.here
        left = part()
        while operator := self.take(*signs):
            self.is_number(left, start)
            start = self.here
            right = part()
            self.is_number(right, start)
            left = Binary(operator, left, right)
        return left

    def sign(self) -> Node:
        operator = self.take("+", "-")
        if not operator:
            return self.value()
        start = self.here
        operand = self.deeper(self.sign)
        self.is_number(operand, start)
        if operator == "+":
            return operand
        if isinstance(operand, Literal) and isinstance(operand.value, float):
            return Literal(-operand.value)
        return Unary("-", operand)

    def value(self) -> Node:
        if self.take("("):
            found = self.deeper(self.condition)
            self.need(")")
            return found
        token = self.tokens[self.here]
        if token.kind == "number":
            found = Literal(float(token.text))
        elif token.kind == "text":
            found = Literal(token.text)
        elif token.kind == "name":
            if len(token.text.encode()) > 255:
                self.fail("a property's name has at most 255 bytes")
            found = Name(token.text, OWN.get(token.text, 0))
        elif token.kind == "word" and token.text in ("TRUE", "FALSE", "NULL"):
            found = Literal({"TRUE": True, "FALSE": False}.get(token.text))
        else:
            self.fail("a value expected")
        self.here += 1
        return found

    def is_condition(self, node: Node, at: int) -> None:
        if kind(node) not in ("truth", "name", "null"):
            self.fail("a condition expected", self.tokens[at])

    def is_number(self, node: Node, at: int) -> None:
        if kind(node) not in ("number", "name", "null"):
            self.fail("a number expected", self.tokens[at])

    def comparable(self, operator: str, left: Node, right: Node, at: int) -> None:
        kinds = {kind(left), kind(right)} - {"name", "null"}
        if len(kinds) == 2:
            self.fail(f"a {' and a '.join(sorted(kinds))} cannot be compared", self.tokens[at])
        if kinds == {"truth"} and operator not in ("=", "<>"):
            self.fail(f"{operator} does not order truths", self.tokens[at])
