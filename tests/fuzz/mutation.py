"""Bytes that are nearly right: a corpus, changed a little, by a seeded chooser."""

from __future__ import annotations

import random
from collections.abc import Sequence

EDGES = (0, 1, 2, 3, 4, 7, 8, 12, 13, 16, 24, 63, 64, 127, 128, 255, 256, 4095, 4096, 0x7FFF,
         0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 1 << 40,
         (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
WORDS = (b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"{", b"}", b"[", b"]",
         b'"', b"\\", b"\\ud800", b"%00", b"%2e%2e", b"%ff", b"-1", b"1e999", b"9" * 20, b"null",
         b"true", b"NaN",
         b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xc0\xaf", b"chunked", b"0\r\n\r\n", b"PNST")


class Mutator:
    """Mutants of a corpus, the same for the same seed."""

    def __init__(self, seed: int, corpus: Sequence[bytes]) -> None:
        self.chooser = random.Random(seed)
        self.corpus = corpus

    def mutant(self) -> bytes:
        """One of the corpus after one to six changes."""
        data = bytearray(self.chooser.choice(self.corpus))
        for _ in range(self.chooser.choice((1, 1, 1, 2, 3, 6))):
            self.change(data)
        return bytes(data)

    def change(self, data: bytearray) -> None:
        """One change: in place, or of the length."""
        chooser = self.chooser
        at = chooser.randrange(len(data) + 1)
        kind = chooser.randrange(10)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chooser.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = chooser.randrange(256)
        elif kind == 2:
            width = chooser.choice((1, 2, 4, 8))
            value = chooser.choice(EDGES) + chooser.choice((0, 0, 1, -1))
            data[at:at + width] = (value % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 3:
            del data[at:at + chooser.choice((1, 2, 4, 16, 64))]
        elif kind == 4:
            data[at:at] = chooser.choice(WORDS)
        elif kind == 5:
            data[at:at] = data[at:at + chooser.choice((1, 4, 24, 100))] * chooser.choice((1, 2, 20))
        elif kind == 6:
            del data[at:]
        elif kind == 7:
            other = chooser.choice(self.corpus)
            begin = chooser.randrange(len(other) + 1)
            data[at:at + chooser.choice((0, 8, 1000))] = other[begin:begin + 200]
        elif kind == 8:
            data[at:at] = chooser.randbytes(chooser.choice((1, 3, 17)))
        else:
            word = chooser.choice(WORDS)
            data[at:at + len(word)] = word
        # Growing without end would only make it slow.
        del data[1 << 17:]
