"""Where undoing a seek leads, from what its record remembers and what the group is now."""

from __future__ import annotations

Range = tuple[int, int]

RANGES = 4096
SPAN = 1 << 18


def undone(
    target: int, before: tuple[int, list[Range]], now: tuple[int, list[Range]]
) -> tuple[int, list[Range]]:
    """(the offset to go to, what is confirmed from there on) that take back a seek to target.

    before and now are a floor and the ranges (first, count) confirmed above it. Everything that was
    confirmed before the seek or after it stays so, within RANGES ranges and SPAN messages.
    """
    floor, held = before
    current, confirmed = now
    ranges = held + confirmed
    goal = floor
    if target <= floor:
        goal = max(floor, current)
    elif current > target:
        # It was a way forward, and from there on everything up to the floor was confirmed.
        ranges = [*ranges, (target, current - target)]
    kept: list[Range] = []
    done = goal
    for first, count in sorted(ranges):
        end = min(first + count, goal + SPAN)
        first = max(first, done)
        if first < end and len(kept) < RANGES:
            kept.append((first, end - first))
            done = end
    return goal, kept
