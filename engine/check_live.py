"""What check knows of reclaimed segments: the table of segments in a checkpoint's image."""

from __future__ import annotations

import struct
from typing import NamedTuple

PAGE = 4096
COLD = 1 << 31  # of the end: the segment's file is gone
RECLAIM_WORD = 11  # of the state: the page with the roots of the table


class Live(NamedTuple):
    """One segment: bytes that are needed, the checkpoint it is dead in, where its frames end."""

    bytes: int
    dead: int
    end: int
    cold: bool = False


def segment_table(image: memoryview, pages_at: int) -> dict[int, Live]:
    """The segments that an image knows, by number; its pages, from 1 on, begin at a byte."""
    (root,) = struct.unpack_from("<Q", image, RECLAIM_WORD * 8)
    found: dict[int, Live] = {}
    if root:
        for top, node in numbers(image, pages_at, root, 16):
            for high, leafs in numbers(image, pages_at, node, 1024):
                for low, leaf in numbers(image, pages_at, leafs, 1024):
                    first = (top << 20 | high << 10 | low) << 8
                    read_leaf(image, pages_at + (leaf - 1) * PAGE, first, found)
    return found


def numbers(image: memoryview, pages_at: int, page: int, count: int) -> list[tuple[int, int]]:
    """The page numbers other than 0 that a page holds, each with its place."""
    at = pages_at + (page - 1) * PAGE
    if at + PAGE > len(image):
        return []
    return [(place, number) for place, number in
            enumerate(struct.unpack_from(f"<{count}I", image, at)) if number]


def read_leaf(image: memoryview, at: int, first: int, found: dict[int, Live]) -> None:
    """Add the segments of a page with 256 of them."""
    if at + PAGE <= len(image):
        for place, row in enumerate(struct.iter_unpack("<QII", image[at:at + PAGE])):
            if row[0] or row[2]:
                needed, dead, end = row
                found[first + place] = Live(needed, dead, end & ~COLD, bool(end & COLD))
