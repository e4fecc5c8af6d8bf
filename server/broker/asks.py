"""What can be asked of a store by who looks into it: the fields, each with its bounds."""

import re
from bisect import bisect_right
from typing import Annotated, Any, Literal, TypeVar

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert

from penstock.engine.retries import ATTEMPTS, DELAY_MS, DELAYS
from penstock.server.broker.errors import BrokerError, Kind

Name = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=4096)]
Offset = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Delay = Annotated[int, Meta(ge=0, le=DELAY_MS)]
Setting = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]
DEDUP_MS = 7 * 24 * 3600 * 1000
DEDUP_COUNT = 1 << 18
# Names in one answer, so that it fits a frame whatever they are.
LISTED = 10_000
ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})", re.ASCII)
WAITING_ID = re.compile(r"([0-9a-f]{8})-p([0-9a-f]{15})", re.ASCII)
Asked = TypeVar("Asked")


def converted(do: str, fields: dict[str, Any], model: type[Asked]) -> Asked:
    """The fields as the ask has them. Raises INVALID, which says which one is wrong."""
    try:
        return convert(fields, model, strict=False)
    except ValidationError as error:
        raise BrokerError(Kind.INVALID, f"{do}: {error}") from error


def page(names: list[str], ask: "Listing") -> tuple[list[str], str | None]:
    """The names that an ask is about, of sorted ones, and the cursor of the next page."""
    left = names[bisect_right(names, ask.cursor):] if ask.cursor else names
    return left[:ask.limit], left[ask.limit - 1] if len(left) > ask.limit else None


class Message(Struct, forbid_unknown_fields=True):
    """A message by its id, or by its queue's name and its offset; group "" is the queue's own."""

    queue: Name = ""
    id: Text = ""
    offset: Offset | None = None
    group: Name = ""


class Listing(Struct, forbid_unknown_fields=True):
    """Names that begin with prefix, in order; cursor is next of the reply before."""

    prefix: Text = ""
    limit: Annotated[int, Meta(ge=1, le=LISTED)] = LISTED
    cursor: Text = ""


class Trace(Struct, forbid_unknown_fields=True):
    """A message as above; cursor is next of the reply before."""

    queue: Name = ""
    id: Text = ""
    offset: Offset | None = None
    cursor: Offset = 0


class Find(Struct, forbid_unknown_fields=True):
    """Messages that are all of what is given; message_id is the id that its sender gave it."""

    queue: Name = ""
    id: Text = ""
    from_offset: Offset = 0
    to_offset: Offset | None = None
    since_us: Offset | None = None
    until_us: Offset | None = None
    message_id: Text = ""
    tag: Text = ""
    key: Text = ""
    routing_key: Text = ""
    correlation: Text = ""
    properties: dict[Text, Text] = {}
    text: Text = ""
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    body_bytes: Annotated[int, Meta(ge=0, le=65536)] = 1024
    cursor: Offset | None = None


class Lag(Struct, forbid_unknown_fields=True):
    """One group of a queue, all of a queue (group not given), or all there are; cursor as above."""

    queue: Name = ""
    group: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Offset = 0


class Rewind(Struct, forbid_unknown_fields=True):
    """Exactly one of offset, time_us, to, relative, and undo (of the last rewind).

    relative: "-2h" (s, m, h, d) back from now, or "-1000" messages back from where the group is.
    dry_run changes nothing; shadow names a new group that begins there while this one stays.
    """

    queue: Name = ""
    group: Name = ""
    offset: Offset | None = None
    time_us: Offset | None = None
    to: Annotated[str, Meta(pattern="^(earliest|latest)$")] | None = None
    relative: Annotated[str, Meta(pattern="^[-+][0-9]{1,15}[smhd]?$")] | None = None
    undo: bool = False
    dry_run: bool = False
    shadow: Name = ""


class Retry(Struct, forbid_unknown_fields=True):
    """What becomes of what fails. dead_letter is made if absent; max_attempts 0 is without end.

    backoff_ms: the wait after the first, second, ... delivery; the last counts for all that follow.
    Without backoff_ms the usual table, from 1 s to 2 h.
    """

    max_attempts: Annotated[int, Meta(ge=0, le=ATTEMPTS)] | UnsetType = UNSET
    dead_letter: Name = ""
    backoff_ms: Annotated[list[Delay], Meta(max_length=DELAYS)] | UnsetType = UNSET


class Group(Struct, forbid_unknown_fields=True):
    """A group of a queue, "" being its own; an empty filter or null wants everything.

    order: "key" delivers the messages of a key one after the other, "strict" all of the queue.
    retry null: what is given back comes at once, without end.
    """

    queue: Name = ""
    group: Name = ""
    filter: Text | None | UnsetType = UNSET
    kind: Literal["tag", "routing", "sql"] = "tag"
    order: Literal["none", "key", "strict"] | UnsetType = UNSET
    retry: Retry | None | UnsetType = UNSET


class OffsetShow(Struct, forbid_unknown_fields=True):
    """A group of a queue."""

    queue: Name = ""
    group: Name = ""


class OffsetCommit(Struct, forbid_unknown_fields=True):
    """All before offset is done with; reset also lets the group go back."""

    offset: Offset
    queue: Name = ""
    group: Name = ""
    reset: bool = False


class Member(Struct, forbid_unknown_fields=True):
    """A member of a group that broadcasts."""

    member: Annotated[str, Meta(min_length=1, max_length=64)]
    queue: Name = ""
    group: Name = ""


class MemberJoin(Struct, forbid_unknown_fields=True):
    """A new member begins at start: latest, earliest or a time in µs.

    With idle_ms it goes when nobody joined as it for so long; 0 is a lasting one.
    """

    member: Annotated[str, Meta(min_length=1, max_length=64)]
    queue: Name = ""
    group: Name = ""
    start: Literal["latest", "earliest"] | Offset = "latest"
    idle_ms: Annotated[int, Meta(ge=0)] = 0


class QueueSettings(Struct, forbid_unknown_fields=True):
    """What is kept and what is stored once; a field that is not given stays as it is.

    retain_ms, retain_bytes: what is older, or more, is purged; 0 never. keep: "unconfirmed" purges
    what every group has confirmed, "subscribed" the same without the queue's own; rewind_ms: even
    then it is kept so long. dedup_ms: a message whose message_id was stored so lately is not stored
    again; dedup_count: so many ids are known at most (0: 65,536).
    """

    queue: Name = ""
    retain_ms: Setting | None = None
    retain_bytes: Setting | None = None
    keep: Literal["all", "unconfirmed", "subscribed"] | None = None
    rewind_ms: Setting | None = None
    dedup_ms: Annotated[int, Meta(ge=0, le=DEDUP_MS)] | None = None
    dedup_count: Annotated[int, Meta(ge=0, le=DEDUP_COUNT)] | None = None


class Redrive(Struct, forbid_unknown_fields=True):
    """One step: at most limit dead letters of a queue looked at, from cursor on.

    They go back to where they came from, or into the queue `to`. Only those that fit all of what is
    given: reason (a word of it or all), text (in what was said with the last release), origin (the
    name of the queue they came from), since_us and until_us (when they died), filter and kind as of
    a group. Nothing from offset end on is looked at. dry_run moves nothing.
    """

    queue: Name = ""
    group: Name = ""
    to: Name = ""
    reason: Text = ""
    text: Text = ""
    origin: Name = ""
    since_us: Offset | None = None
    until_us: Offset | None = None
    filter: Text = ""
    kind: Literal["tag", "routing", "sql"] = "tag"
    limit: Annotated[int, Meta(ge=1, le=1000)] = 256
    cursor: Offset = 0
    end: Offset | None = None
    dry_run: bool = False


class Waiting(Struct, forbid_unknown_fields=True):
    """What waits, by the time at which it falls due: [since_us, until_us); cursor as above.

    state: delayed (for its time), half (for its verdict), committed (a half, for its time). Of a
    queue or of a topic, if one is named.
    """

    queue: Name = ""
    topic: Name = ""
    state: Literal["delayed", "half", "committed"] | None = None
    since_us: Offset = 0
    until_us: Offset | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100
    cursor: Text = ""


class WaitingMessage(Struct, forbid_unknown_fields=True):
    """One message that waits, by its id."""

    id: Text
    body_bytes: Annotated[int, Meta(ge=0, le=8 << 20)] = 65536


class WaitingMove(Struct, forbid_unknown_fields=True):
    """Exactly one of delay_ms, from now, and due_us."""

    id: Text
    delay_ms: Offset | None = None
    due_us: Offset | None = None
