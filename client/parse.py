"""Payloads to values: the reading half of the native codec, used by both ends."""

from __future__ import annotations

import struct
from itertools import accumulate

from penstock.moved import parse_origin
from penstock.wire import (
    ATTRIBUTED,
    BATCH,
    COUNT,
    COUNT_AND_TIME,
    MESSAGE,
    MESSAGE_SIZE,
    MESSAGES,
    MOVED,
    RECEIPT_SIZE,
    SEND,
    Delivered,
    Status,
    Verdict,
    WireError,
)


def fixed_fields(layout: struct.Struct, payload: memoryview, exact: bool = True) -> tuple[int, ...]:
    """The fields at the start of payload, which must have no more bytes if exact."""
    if len(payload) < layout.size or (exact and len(payload) != layout.size):
        raise WireError(Status.MALFORMED, f"a payload of {len(payload)} bytes, not {layout.size}")
    return layout.unpack_from(payload)


def parse_error(payload: memoryview) -> tuple[int, str]:
    """(retry_after_ms, text) of an error reply."""
    (retry_after_ms,) = fixed_fields(COUNT, payload, exact=False)
    return retry_after_ms, str(payload[4:], "utf-8", "replace")


def parse_send(payload: memoryview) -> tuple[int, int, int, memoryview, memoryview, int]:
    """(queue, durability, sequence, ext, body, flags) of a SEND."""
    queue, durability, flags, ext_size, sequence = fixed_fields(SEND, payload, exact=False)
    if ext_size > len(payload) - SEND.size:
        raise WireError(Status.MALFORMED, f"an ext of {ext_size} bytes does not fit the frame")
    end = SEND.size + ext_size
    return queue, durability, sequence, payload[SEND.size : end], payload[end:], flags


def parse_batch(payload: memoryview) -> tuple[
    int, int, int, list[memoryview], list[memoryview] | None
]:
    """(queue, durability, sequence, bodies, attributes) of a SEND_BATCH."""
    queue, durability, flags, _, sequence, count, _ = fixed_fields(BATCH, payload, exact=False)
    room = len(payload) - BATCH.size
    # Before the sizes are read: the count comes from the other end.
    many = count * 2 if flags & ATTRIBUTED else count
    if many > room // 4:
        raise WireError(Status.MALFORMED, f"{count} sizes do not fit the frame")
    sizes = list(struct.unpack_from(f"<{many}I", payload, BATCH.size))
    if sum(sizes) != room - 4 * many:
        raise WireError(Status.MALFORMED, "the sizes are not those of the bodies")
    if flags & ATTRIBUTED:
        # The sizes are {body, attributes}, but the attributes stand before the body.
        sizes[::2], sizes[1::2] = sizes[1::2], sizes[::2]
    ends = list(accumulate(sizes, initial=BATCH.size + 4 * many))
    parts = [payload[a:b] for a, b in zip(ends, ends[1:])]
    if flags & ATTRIBUTED:
        return queue, durability, sequence, parts[1::2], parts[::2]
    return queue, durability, sequence, parts, None


def parse_receipts(
    payload: memoryview, timed: bool, text_bytes: int = 0
) -> tuple[int, list[bytes]]:
    """(delay_ms or lease_ms, receipts); a CONFIRM is not timed and states 0.

    text_bytes: how many may stand behind them, why a RELEASE gives them back.
    """
    layout = COUNT_AND_TIME if timed else COUNT
    count, *rest = fixed_fields(layout, payload, exact=False)
    if not 0 <= len(payload) - layout.size - count * RECEIPT_SIZE <= text_bytes:
        raise WireError(Status.MALFORMED, f"{count} receipts are not what the frame holds")
    starts = range(layout.size, layout.size + count * RECEIPT_SIZE, RECEIPT_SIZE)
    return (rest[0] if timed else 0), [bytes(payload[p : p + RECEIPT_SIZE]) for p in starts]


def parse_verdicts(payload: memoryview) -> list[Verdict]:
    """The verdicts of a CONFIRM, RELEASE or EXTEND reply."""
    (count,) = fixed_fields(COUNT, payload, exact=False)
    if count != len(payload) - COUNT.size:
        raise WireError(Status.MALFORMED, f"{count} verdicts are not what the frame holds")
    try:
        return [Verdict(byte) for byte in payload[COUNT.size :]]
    except ValueError as error:
        raise WireError(Status.MALFORMED, str(error)) from error


def parse_messages(payload: memoryview) -> list[Delivered]:
    """The messages of a RECEIVE or READ reply, as views of payload."""
    count, _ = fixed_fields(MESSAGES, payload, exact=False)
    position = MESSAGES.size
    if count > (len(payload) - position) // MESSAGE_SIZE:
        raise WireError(Status.MALFORMED, f"{count} messages do not fit the frame")
    messages: list[Delivered] = []
    for _ in range(count):
        if len(payload) - position < MESSAGE_SIZE:
            raise WireError(Status.MALFORMED, "a message's head is cut short")
        fields = MESSAGE.unpack_from(payload, position)
        receipt, stored_us, attempts, ext_size, body_size, flags = fields
        start = position + MESSAGE_SIZE
        middle = start + ext_size
        position = middle + body_size
        if position > len(payload):
            raise WireError(Status.MALFORMED, "a message is cut short")
        ext, body = payload[start:middle], payload[middle:position]
        origin = None
        if flags & MOVED:
            moved = parse_origin(payload[position:])
            if moved is None:
                raise WireError(Status.MALFORMED, "where a message came from is cut short")
            origin = moved[0]
            position += moved[1]
        messages.append(Delivered(receipt, stored_us, attempts, ext, body, flags, origin))
    if position != len(payload):
        raise WireError(Status.MALFORMED, "bytes after the last message")
    return messages
