"""The attributes of CMQ's queues: their ranges, the original's or ours, and what they mean here."""

from dataclasses import dataclass

from msgspec import structs

from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.defaults import Defaults

DAY_S = 86400
YEARS_S = 3650 * DAY_S
BY_COUNT, BY_AGE = 0, 1
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Rules:
    """What is allowed. Ours are wider than the original's: strict has those."""

    strict: bool = False
    heap: Range = (1, 1 << 53)
    polling_s: Range = (0, 600)
    visibility_s: Range = (1, 43_200)
    max_size: Range = (1_024, 4 << 20)
    retention_s: Range = (30, YEARS_S)
    rewind_s: Range = (0, YEARS_S)
    receives: Range = (1, 65_535)
    dead_after_s: Range = (1, YEARS_S)
    first_query_s: Range = (1, 43_200)
    queries: Range = (1, 255)
    delay_s: int = YEARS_S
    # Of each action on each queue or topic, in a second; 0: any number.
    calls: int = 0
    queues: int = 100_000
    topics: int = 100_000
    subscriptions: int = 4_000
    sources: int = 1_000
    batch: int = 16
    batch_bytes: int = 4 << 20
    tags: int = 5
    tag_characters: int = 64
    key_bytes: int = 64
    dots: int = 15


STRICT = Rules(
    strict=True, heap=(1_000_000, 1_000_000_000), polling_s=(0, 30), max_size=(1_024, 1 << 20),
    retention_s=(30, 1_296_000), rewind_s=(0, 1_296_000), receives=(1, 1_000),
    dead_after_s=(300, 43_200), delay_s=3_600, calls=5_000, queues=10_000, topics=10_000,
    subscriptions=1_000, sources=6, batch_bytes=1 << 20, tag_characters=16,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Given:
    """The attributes that a request names; None for those it does not.

    dead_letter: the name of a queue, "" to have none; policy says whether messages go there after
    max_receive deliveries or dead_after_s seconds.
    """

    heap: int | None = None
    polling_s: int | None = None
    visibility_s: int | None = None
    max_size: int | None = None
    retention_s: int | None = None
    rewind_s: int | None = None
    transaction: bool | None = None
    first_query_s: int | None = None
    queries: int | None = None
    dead_letter: str | None = None
    policy: int = BY_COUNT
    max_receive: int | None = None
    dead_after_s: int | None = None

    def check(self, rules: Rules) -> None:
        """Raises OUT_OF_RANGE for what cannot be."""
        ranges = {
            "maxMsgHeapNum": (self.heap, rules.heap),
            "pollingWaitSeconds": (self.polling_s, rules.polling_s),
            "visibilityTimeout": (self.visibility_s, rules.visibility_s),
            "maxMsgSize": (self.max_size, rules.max_size),
            "msgRetentionSeconds": (self.retention_s, rules.retention_s),
            "rewindSeconds": (self.rewind_s, rules.rewind_s),
            "firstQueryInterval": (self.first_query_s, rules.first_query_s),
            "maxQueryCount": (self.queries, rules.queries),
            "maxReceiveCount": (self.max_receive, rules.receives),
            "maxTimeToLive": (self.dead_after_s, rules.dead_after_s),
        }
        for name, (value, (least, most)) in ranges.items():
            if value is not None and not least <= value <= most:
                raise CmqError(Fault.OUT_OF_RANGE, f"{name} is {least} to {most}")
        if self.policy not in (BY_COUNT, BY_AGE):
            raise CmqError(Fault.OUT_OF_RANGE, "policy is 0 or 1")
        if self.dead_letter:
            needed = self.max_receive if self.policy == BY_COUNT else self.dead_after_s
            if needed is None:
                raise CmqError(
                    Fault.MISSING_ONE, ("maxReceiveCount", "maxTimeToLive")[self.policy])
        retention, rewind = self.retention_s, self.rewind_s
        if rules.strict and rewind and retention is not None and rewind > retention > 43_200:
            raise CmqError(Fault.REWIND_SPAN)

    def defaults(self, before: Defaults, now_us: int) -> Defaults:
        """What the server keeps of it, the rest as it was before."""
        times = {"lease_ms": self.visibility_s, "wait_ms": self.polling_s,
                 "check_after_ms": self.first_query_s}
        plain = {"message_bytes": self.max_size, "messages": self.heap, "checks": self.queries,
                 "transactions": self.transaction, "dead_letter": self.dead_letter}
        changes: dict[str, object] = {
            **{name: value * 1000 for name, value in times.items() if value is not None},
            **{name: value for name, value in plain.items() if value is not None},
        }
        if self.dead_letter is not None:
            by_age = self.dead_letter and self.policy == BY_AGE
            changes["dead_after_ms"] = (self.dead_after_s or 0) * 1000 if by_age else 0
        return structs.replace(before, changed_us=now_us, **changes)
