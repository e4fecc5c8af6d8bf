"""What requests and replies hold. The OpenAPI document is made from the same definitions."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from penstock.server.broker.throttle import Quota

Count = Annotated[int, Meta(ge=1, le=4096)]
Milliseconds = Annotated[int, Meta(ge=0, le=43_200_000)]
Natural = Annotated[int, Meta(ge=0)]
PropertyName = Annotated[str, Meta(min_length=1, max_length=255)]
Group = Annotated[str, Meta(max_length=128)]


class SendRequest(Struct, forbid_unknown_fields=True):
    """One message: text in body, or any bytes in body_base64.

    It comes after delay_ms or at due_us (since 1970). A half comes when it is committed; the
    producers of producer_group are asked about it after first_check_ms, then each
    check_interval_ms.
    """

    body: str | UnsetType = UNSET
    body_base64: bytes | UnsetType = UNSET
    tag: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    routing_key: str | UnsetType = UNSET
    message_id: str | UnsetType = UNSET
    reply_to: str | UnsetType = UNSET
    correlation: str | UnsetType = UNSET
    properties: dict[PropertyName, str] | UnsetType = UNSET
    delay_ms: Natural | UnsetType = UNSET
    due_us: Natural | UnsetType = UNSET
    half: bool | UnsetType = UNSET
    producer_group: str | UnsetType = UNSET
    first_check_ms: Natural | UnsetType = UNSET
    check_interval_ms: Natural | UnsetType = UNSET
    checks: Natural | UnsetType = UNSET


class SendReply(Struct, omit_defaults=True):
    """waits: it is not in its queue yet, and its offset is not known; id is for /v1/pending."""

    id: str
    offset: int | None
    durability: Literal["disk", "kernel"]
    count: int = 1
    duplicate: bool = False
    waits: bool = False


class ReceiveRequest(Struct, forbid_unknown_fields=True):
    max_messages: Count = 1
    wait_ms: Annotated[int, Meta(ge=0, le=600_000)] = 0
    lease_ms: Annotated[int, Meta(ge=1, le=43_200_000)] = 30_000
    group: Group = ""
    filter: Annotated[str, Meta(max_length=4096)] | UnsetType = UNSET
    kind: Literal["tag", "routing", "sql"] = "tag"


class Origin(Struct):
    """Where a message was before it was moved: a dead letter, or one that was redriven.

    queue is empty if that was deleted since; attempts: how often it was delivered there; text: what
    was said when it was given back the last time.
    """

    queue: str
    id: str
    offset: int
    sent_us: int
    attempts: int
    reason: str
    text: str


class Message(Struct, omit_defaults=True):
    """body is there if it is UTF-8 text, else body_base64; then what it carries."""

    id: str
    offset: int
    stored_us: int
    attempts: int
    receipt: str | None = None
    body: str | None = None
    body_base64: bytes | None = None
    tag: str | UnsetType = UNSET
    key: str | UnsetType = UNSET
    routing_key: str | UnsetType = UNSET
    message_id: str | UnsetType = UNSET
    reply_to: str | UnsetType = UNSET
    correlation: str | UnsetType = UNSET
    properties: dict[str, str] | UnsetType = UNSET
    origin: Origin | UnsetType = UNSET


class MessagesReply(Struct):
    messages: list[Message]


class ConfirmRequest(Struct, forbid_unknown_fields=True):
    """again: asked before, and the answer was lost; what is confirmed already is done then."""

    receipts: Annotated[list[str], Meta(max_length=65536)]
    group: Group = ""
    again: bool = False


class ReleaseRequest(Struct, forbid_unknown_fields=True):
    """Without delay_ms the group's retry policy says when they come again; at once if it has none.

    reason: why, for the dead-letter queue; at most 1,024 bytes of it are kept.
    """

    receipts: Annotated[list[str], Meta(max_length=65536)]
    delay_ms: Milliseconds | None = None
    reason: Annotated[str, Meta(max_length=1024)] = ""
    group: Group = ""


class ExtendRequest(Struct, forbid_unknown_fields=True):
    receipts: Annotated[list[str], Meta(max_length=65536)]
    lease_ms: Annotated[int, Meta(ge=1, le=43_200_000)]
    group: Group = ""


class VerdictsReply(Struct):
    """One verdict for each receipt, in order."""

    verdicts: list[Literal["done", "stale", "forged"]]


class QueuesReply(Struct):
    """next: the cursor of the next page, null at the end."""

    queues: list[str]
    next: str | None = None


class QuotaRow(Struct):
    scope: str
    name: str
    quota: Quota


class QuotasReply(Struct):
    quotas: list[QuotaRow]


class QueueReply(Struct):
    name: str
    id: int
    first: int
    next: int
    visible: int
    pending: int
