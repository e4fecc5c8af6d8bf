"""What the doors of CMQ count: calls by action and outcome, receivers that wait, connections."""

from collections.abc import Callable, Iterable, Iterator
from itertools import product

from penstock.server.metrics.exposition import Metric

OUTCOMES = ("ok", "empty", "refused", "throttled", "failed")
OK, EMPTY, REFUSED, THROTTLED, FAILED = range(len(OUTCOMES))
OTHER = "other"
V2, API3, TCP = "v2", "api3", "tcp"
ACTIONS: dict[str, tuple[str, ...]] = {
    V2: (
        "SendMessage", "ReceiveMessage", "DeleteMessage", "BatchSendMessage",
        "BatchReceiveMessage", "BatchDeleteMessage", "PublishMessage", "BatchPublishMessage",
        "CreateQueue", "ListQueue", "GetQueueAttributes", "SetQueueAttributes", "DeleteQueue",
        "RewindQueue", "QueryQueueRoute", "CreateTopic", "ListTopic", "GetTopicAttributes",
        "SetTopicAttributes", "DeleteTopic", "QueryTopicRoute", "Subscribe",
        "ListSubscriptionByTopic", "GetSubscriptionAttributes", "SetSubscriptionAttributes",
        "ClearSubscriptionFilterTags", "Unsubscribe", OTHER,
    ),
    API3: (
        "CreateCmqQueue", "ModifyCmqQueueAttribute", "DeleteCmqQueue", "ClearCmqQueue",
        "RewindCmqQueue", "UnbindCmqDeadLetter", "DescribeCmqQueueDetail", "DescribeCmqQueues",
        "SendCmqMsg", "CreateCmqTopic", "ModifyCmqTopicAttribute", "DeleteCmqTopic",
        "DescribeCmqTopicDetail", "DescribeCmqTopics", "PublishCmqMsg", "CreateCmqSubscribe",
        "ModifyCmqSubscriptionAttribute", "ClearCmqSubscriptionFilterTags", "DeleteCmqSubscribe",
        "DescribeCmqSubscriptionDetail", OTHER,
    ),
    # From command 1020 on, then those that do not follow on one another.
    TCP: (
        "AUTH", "SEND", "BATCH_SEND", "PULL", "BATCH_PULL", "DELETE", "BATCH_DELETE", "PUBLISH",
        "BATCH_PUBLISH", "HEARTBEAT", "TRANSACTION_CONFIRM", OTHER,
    ),
}  # fmt: skip
ROWS = [(door, action) for door, actions in ACTIONS.items() for action in actions]
PLACES = {(door, action.lower()): at for at, (door, action) in enumerate(ROWS)}
GAUGES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("cmq_parked", "Receivers of CMQ that wait for a message.", (("door", "http"),)),
    ("cmq_parked", "Receivers of CMQ that wait for a message.", (("door", "tcp"),)),
    ("cmq_connections", "Open connections of CMQ over TCP.", ()),
)
# Which of the numbers only grow.
COUNTERS = (True,) * (len(ROWS) * len(OUTCOMES)) + (False,) * len(GAUGES)
# Five outcomes of each action, in the order of the door's table.
Counted = Callable[[], Iterable[int]]


class CmqCalls:
    """The numbers of one worker. Called in the loop's thread, but for values."""

    def __init__(self) -> None:
        self.counts = [0] * (len(ROWS) * len(OUTCOMES))
        self.hot: list[tuple[int, Counted]] = []
        self.gauges: list[Callable[[], int]] = [lambda: 0] * len(GAUGES)

    def count(self, door: str, action: str, outcome: int) -> None:
        """A call came to an end; its action in any case of letters."""
        row = PLACES.get((door, action.lower()))
        if row is None:
            row = PLACES[door, OTHER]
        self.counts[row * len(OUTCOMES) + outcome] += 1

    def add(self, door: str, counted: Counted) -> None:
        """Let a hot path tell what it counts of the first actions of a door."""
        first = PLACES[door, ACTIONS[door][0].lower()]
        self.hot.append((first * len(OUTCOMES), counted))

    def values(self) -> Iterator[int]:
        """The numbers that COUNTERS tells of."""
        counts = self.counts.copy()
        for first, counted in self.hot:
            for at, value in enumerate(counted(), first):
                counts[at] += value
        yield from counts
        yield from (gauge() for gauge in self.gauges)


def series(sums: list[int]) -> Iterator[Metric]:
    """The sums of the values over all workers; of calls those that there were."""
    text = "Calls of CMQ by door, action and outcome. All workers."
    for at, ((door, action), outcome) in enumerate(product(ROWS, OUTCOMES)):
        if sums[at]:
            told = (("door", door), ("action", action), ("outcome", outcome))
            yield Metric("cmq_calls_total", "counter", text, sums[at], told)
    for (name, what, labels), value in zip(GAUGES, sums[-len(GAUGES):], strict=True):
        yield Metric(name, "gauge", f"{what} All workers.", value, labels)


def outcome_of(code: int) -> int:
    """The outcome that a code of v2 stands for."""
    if code == 0:
        return OK
    if code == 7000:
        return EMPTY
    if code == 4420:
        return THROTTLED
    return FAILED if code == 6000 else REFUSED
