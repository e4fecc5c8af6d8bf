"""How a group is served: order, retries, dead letters; docs/format.md has the bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from penstock.engine.errors import InvalidError

if TYPE_CHECKING:
    from penstock.engine._core import Batch, Consumer, Queue

FIELD = struct.Struct("<BBH")
POLICY = struct.Struct("<BBHII")
FILTER, ORDER, RETRY = 1, 2, 3
ORDERS = ("none", "key", "strict")
DELAYS = 64
DELAY_MS = 12 * 3600 * 1000
ATTEMPTS = 65535
STEP = 256  # messages that one step of a redrive reads and moves
STEP_BYTES = 1 << 24
DONE = 0
# Why a message was moved, by number.
REASONS = {1: "attempts used up", 2: "given back for the last time", 3: "redriven",
           4: "too old"}


@dataclass(frozen=True, slots=True)
class Retry:
    """What becomes of messages that are given back or whose lease runs out.

    max_attempts: after so many deliveries a message goes to the queue named by dead_letter; 0 means
    without end. backoff_ms: how long a message waits after its first, second, ... delivery when it
    is given back without a delay; the last one counts for all that follow. A lease that runs out
    brings the message back at once.
    """

    max_attempts: int = 16
    dead_letter: str = ""
    backoff_ms: tuple[int, ...] = (1_000, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000,
                                   600_000, 1_800_000, 3_600_000, 7_200_000)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a message was before it was moved: numbers of its queue and group, its offset there.

    The queue's name is empty if it was deleted since. Also when it was sent, how often it was
    delivered, why it was moved and the text given with its last release.
    """

    queue: int
    queue_name: str
    group: int
    offset: int
    sent_us: int
    attempts: int
    reason: str
    text: str


@dataclass(slots=True)
class Redriven:
    """What a redrive did: looked at so many, wanted and moved so many; next is where to go on."""

    seen: int = 0
    wanted: int = 0
    moved: int = 0
    next: int | None = None


def configure(consumer: Consumer, order: str | None, retry: Retry | None) -> None:
    """Set a group's order and retry policy, durably; None leaves what is."""
    fields = packed(consumer.queue, order, retry)
    if fields:
        consumer._settings(fields)


def packed(queue: Queue, order: str | None, retry: Retry | Literal["none"] | None) -> bytes:
    """The fields of a GROUP_SETTINGS record that set these; retry "none" removes the policy."""
    fields = b""
    if order is not None:
        if order not in ORDERS:
            raise InvalidError(f"order is one of {', '.join(ORDERS)}, not {order!r}")
        fields += field(ORDER, bytes([ORDERS.index(order)]) if order != "none" else b"")
    if retry is not None:
        fields += field(RETRY, policy(queue, retry) if isinstance(retry, Retry) else b"")
    return fields


def policy(queue: Queue, retry: Retry) -> bytes:
    """The stored form of a retry policy."""
    if not 0 <= retry.max_attempts <= ATTEMPTS:
        raise InvalidError(f"max_attempts is 0 to {ATTEMPTS}, not {retry.max_attempts}")
    if len(retry.backoff_ms) > DELAYS or not all(0 <= ms <= DELAY_MS for ms in retry.backoff_ms):
        raise InvalidError(f"backoff_ms has at most {DELAYS} times of 0 to {DELAY_MS} ms")
    number = 0
    if retry.dead_letter:
        number = queue.store.queue(retry.dead_letter, create=False).id
    if retry.max_attempts and not number:
        raise InvalidError("max_attempts needs dead_letter, the queue for what was tried so often")
    if number == queue.id:
        raise InvalidError(f"queue {queue.name!r} cannot be its own dead-letter queue")
    delays = retry.backoff_ms
    return POLICY.pack(1, 0, retry.max_attempts, number, len(delays)) + struct.pack(
        f"<{len(delays)}I", *delays)


def field(number: int, value: bytes) -> bytes:
    """One field of a record of settings; without a value it is removed."""
    return FIELD.pack(number, 0, len(value)) + value


def unpacked(order: bytes, retry: bytes) -> tuple[str, tuple[int, int, tuple[int, ...]] | None]:
    """Settings in words: the order; (max_attempts, id of the dead-letter queue, backoff_ms)."""
    found = None
    if retry:
        _, _, attempts, number, count = POLICY.unpack_from(retry)
        found = (attempts, number, struct.unpack_from(f"<{count}I", retry, POLICY.size))
    return ORDERS[order[0]] if order else "none", found


def redrive(
    dead: Consumer, *, to: Queue | None = None, wanted: Callable[[Batch, int], bool] | None = None,
    start: int = 0, end: int = 1 << 63, limit: int = STEP, dry_run: bool = False,
) -> Redriven:
    """Put dead letters back into the queues they came from, or into one queue; a bounded step.

    dead is a group of the queue of dead letters, for which they are confirmed in the same record.
    Those without an origin need `to`. At most limit messages are looked at, from offset start on
    and before end; next says where to go on. What somebody has under a lease or what is confirmed
    is passed over. wanted is asked with the batch and the number of a message in it. dry_run counts
    what would be moved (what is under a lease or confirmed too).
    """
    done = Redriven()
    start = max(start, dead.stat()["floor"])
    if start >= end:
        return done
    batch = dead.queue.read(
        offset=start, max_messages=min(limit, end - start), max_bytes=STEP_BYTES)
    offsets: list[int] = []
    targets: list[int] = []
    for at, offset in enumerate(batch.offsets.tolist()):
        if offset >= end:
            break
        done.next = offset + 1
        done.seen += 1
        if wanted is not None and not wanted(batch, at):
            continue
        done.wanted += 1
        origin = batch.origin(at)
        target = to.id if to is not None else origin.queue if origin is not None else 0
        if target not in (0, dead.queue.id):
            offsets.append(offset)
            targets.append(target)
    if dry_run:
        done.moved = len(offsets)
    elif offsets:
        done.moved = sum(verdict == DONE for verdict in dead._transfer(offsets, targets))
    return done
