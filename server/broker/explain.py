"""Why a message is not being delivered: one answer, a reason, a sentence and the facts."""

from typing import Any, NamedTuple

from penstock.engine._core import Inspector, Queue


class Explanation(NamedTuple):
    """reason is one word of REASONS, text a sentence; deliverable: a receive now may give it."""

    reason: str
    deliverable: bool
    text: str
    facts: dict[str, Any]


# What the engine calls a message's state, and what that means for its delivery.
REASONS = {
    "absent": "nothing is stored at that offset yet",
    "not durable": "it is not on disk yet: nobody sees what a power cut could take back",
    "purged": "it was purged",
    "damaged": "its stored bytes are damaged; receives leave it out and look again after an hour",
    "passed": "the group came by while it was purged; a rewind brings it",
    "confirmed": "the group has confirmed it, or began or was moved behind it",
    "filtered": "the group's filter does not want it",
    "leased": "somebody has it under a lease",
    "held": "one before it with the same key, or before it in a strict order, is not confirmed yet",
    "waiting": "it was given back with a delay that has not ended",
    "used up": "it was delivered as often as allowed: a receive will move it to the dead letters",
    "ready": "nothing keeps it: a receive may give it now",
    "fresh": "nothing keeps it: a receive may give it now",
    "poisoned": "a write or an fsync failed, and the store gives nothing until it is opened anew",
    "deleted": "its queue was deleted",
}
DELIVERABLE = ("ready", "fresh")


def explain(look: Inspector, queue: Queue, group: str, group_id: int, offset: int) -> Explanation:
    """The one answer for a message and a group of its queue. Raises QueueNotFoundError."""
    facts = look.message(queue.id, group_id, offset)
    facts |= {"queue": queue.name, "group": group, "offset": offset}
    reason = str(facts["state"])
    if reason in DELIVERABLE and look.store.stat()["poisoned"]:
        reason = "poisoned"
    if facts["unwanted"]:
        wanted = queue.group(group).settings()["filter"]
        facts["filter"] = {"kind": wanted.kind, "source": wanted.source}
        if reason in ("fresh", "confirmed"):
            reason = "filtered"
    if last_time(queue, group, facts):
        facts["last"] = True
        reason = "used up" if reason == "ready" else reason
    text = f"Message {offset} of queue {queue.name}, group {group!r}: {REASONS[reason]}"
    return Explanation(reason, reason in DELIVERABLE, f"{text}{detail(reason, facts)}.", facts)


def last_time(queue: Queue, group: str, facts: dict[str, Any]) -> bool:
    """Whether the group's policy does not let the message be delivered once more."""
    policy = queue.group(group).settings()["retry"] if facts.get("attempts") else None
    return policy is not None and 0 < policy[0] <= facts["attempts"]


def detail(reason: str, facts: dict[str, Any]) -> str:
    """What the facts add to the sentence of a reason."""
    if reason == "absent":
        return f"; the next will be {facts['next']}"
    if reason == "not durable":
        return f"; what is before {facts['visible']} can be seen"
    if reason == "purged":
        return f", with all before {facts['first']}"
    if reason == "held":
        return f": message {facts['behind']}"
    if reason == "filtered":
        return f" ({facts['filter']['kind']}: {facts['filter']['source']})"
    if reason in ("leased", "waiting"):
        left = (facts["until_us"] - facts["now_us"]) / 1e6
        ends = ", the last time" if facts.get("last") else ""
        return f", for {left:.3f} s more; it was delivered {times(facts['attempts'])}{ends}"
    if reason == "used up":
        return f"; it was delivered {times(facts['attempts'])}"
    if reason in DELIVERABLE:
        ended = "; the last lease or delay ran out" if facts["ran_out"] else ""
        before = facts["before"]
        line = f", after {before} before it" if before else ", and it is the next"
        return f"{line}; it was delivered {times(facts['attempts'])}{ended}"
    return ""


def times(count: int) -> str:
    """How often, in words."""
    return {0: "never", 1: "once"}.get(count, f"{count} times")
