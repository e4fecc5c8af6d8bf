"""What a v2 request says: pairs of its query or its body, decoded, and values by their names."""

import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from penstock.server.broker.cmq.faults import CmqError, Fault

PAIRS = 512
INDEXED = re.compile(r"(.+)\.([0-9]{1,6})", re.ASCII)
NUMBER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
Pair = tuple[str, str]


def pairs_of(raw: bytes) -> list[Pair]:
    """Key and value of each pair, in their order. Raises UNREADABLE for what is no form of text."""
    if not raw:
        return []
    parts = raw.split(b"&", PAIRS)
    if len(parts) > PAIRS:
        raise CmqError(Fault.UNREADABLE, f"at most {PAIRS} parameters")
    try:
        return [text_pair(part) for part in parts if part]
    except UnicodeDecodeError:
        raise CmqError(Fault.UNREADABLE, "a parameter is no UTF-8") from None


def text_pair(part: bytes) -> Pair:
    key, _, value = part.partition(b"=")
    return text(key), text(value)


def text(raw: bytes) -> str:
    return unquote_to_bytes(raw.replace(b"+", b" ")).decode()


class Form:
    """The parameters of one request. A key may have blanks behind it, which do not count."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self.values: dict[str, str] = {}
        self.arrays: dict[str, dict[int, str]] = {}
        for key, value in pairs:
            key = key.rstrip()
            if key in self.values:
                raise CmqError(Fault.REPEATED, key)
            self.values[key] = value
            indexed = INDEXED.fullmatch(key)
            if indexed is not None:
                numbered = self.arrays.setdefault(indexed[1], {})
                if int(indexed[2]) in numbered:
                    raise CmqError(Fault.REPEATED, key)
                numbered[int(indexed[2])] = value

    def text(self, name: str) -> str:
        """A value that has to be there."""
        found = self.values.get(name)
        if found is None:
            raise CmqError(Fault.MISSING_ONE, name)
        return found

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole number; default if it is not there."""
        found = self.values.get(name)
        if found is None or found == "":
            return default
        if NUMBER.fullmatch(found) is None:
            raise CmqError(Fault.WRONG_TYPE, name)
        return int(found)

    def needed(self, name: str) -> int:
        """A whole number that has to be there."""
        found = self.number(name)
        if found is None:
            raise CmqError(Fault.MISSING_ONE, name)
        return found

    def list(self, *names: str) -> list[str]:
        """The values NAME.0 (or NAME.1), NAME.1, … by their numbers; [] if there is none."""
        numbered = next((self.arrays[name] for name in names if name in self.arrays), {})
        if not numbered:
            return []
        first = min(numbered)
        if first > 1 or sorted(numbered) != list(range(first, first + len(numbered))):
            raise CmqError(Fault.HOLES, names[0])
        return [numbered[at] for at in sorted(numbered)]
