"""What both clients can set for groups. The async client's answers are awaited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal


def given(**fields: Any) -> dict[str, Any]:
    """The fields that are not left out."""
    return {name: value for name, value in fields.items() if value is not None}


class Grouping:
    """A group's filter, order and retries; dead letters. Answers are dictionaries."""

    def admin(self, do: str, **fields: Any) -> Any:
        """What the server answers to one administrative request."""
        raise NotImplementedError

    def group_settings(self, queue: str, group: str = "") -> Any:
        """What is set for a group of a queue, "" being its own, and how far it is."""
        return self.admin("group.show", queue=queue, group=group)

    def set_filter(self, queue: str, group: str, filter: str, *, kind: str = "tag") -> Any:
        """Let a group, made if absent, have only what a filter wants; "" is everything.

        kind: "tag" (`a || b`), "routing" (`order.*.paid`, `order.#`) or "sql" (`price > 10`). What
        the filter before passed over stays passed over; from there on the new one decides.
        """
        return self.admin("group.set", queue=queue, group=group, filter=filter, kind=kind)

    def join_group(self, queue: str, group: str, filter: str = "", *, kind: str = "tag") -> Any:
        """Be a member of a group with this filter; refused if it has another one."""
        return self.admin("group.join", queue=queue, group=group, filter=filter, kind=kind)

    def set_order(
        self, queue: str, group: str = "", order: Literal["none", "key", "strict"] = "key"
    ) -> Any:
        """Let a group, made if absent, have messages one after the other: those of a key, or all.

        "key": a message comes only after those before it with the same key were confirmed, other
        keys beside it. "strict": one message at a time, in the order of the queue. "none": as many
        as are asked for.
        """
        return self.admin("group.set", queue=queue, group=group, order=order)

    def set_retry(
        self,
        queue: str,
        group: str = "",
        *,
        attempts: int | None = None,
        dead_letter: str = "",
        backoff: Sequence[float] | None = None,
    ) -> Any:
        """Say what becomes of what a group, made if absent, gives back or lets run out.

        attempts: after so many deliveries a message goes to the queue dead_letter, which is made if
        absent (16 times if only that is given; 0 is without end). backoff: the seconds that it
        waits after its first, second, ... delivery; the last counts for all that follow. Without
        it the usual table, from 1 s to 2 h.
        """
        retry = given(max_attempts=attempts) | {"dead_letter": dead_letter}
        if backoff is not None:
            retry["backoff_ms"] = [round(seconds * 1000) for seconds in backoff]
        return self.admin("group.set", queue=queue, group=group, retry=retry)

    def no_retry(self, queue: str, group: str = "") -> Any:
        """Let what a group gives back come again at once, without end."""
        return self.admin("group.set", queue=queue, group=group, retry=None)

    def redrive(self, queue: str, to: str = "", *, group: str = "", **wanted: Any) -> Any:
        """One step of putting dead letters back, to where they came from or into the queue `to`.

        reason, text, origin (a queue's name), since_us, until_us, filter, kind: only those that are
        all of it. limit: messages looked at. Go on with cursor=next and end=end until next is None.
        dry_run moves nothing. redrive_all goes on by itself.
        """
        return self.admin("redrive", queue=queue, to=to, group=group, **given(**wanted))

    def delete_group(self, queue: str, group: str) -> Any:
        """The group and what it knows is gone; the messages stay."""
        return self.admin("group.delete", queue=queue, group=group)

    # By offset, without leases.

    def offset(self, queue: str, group: str = "") -> Any:
        """The stored offset of a group: all before it is done with. Not found if it has none."""
        return self.admin("offset.show", queue=queue, group=group)

    def commit_offset(
        self, queue: str, group: str = "", *, offset: int, reset: bool = False
    ) -> Any:
        """Say that all before an offset is done with, durably; makes the group if it is absent.

        It never goes back, unless reset says so. Read on with queue.peek(offset=…).
        """
        return self.admin("offset.commit", queue=queue, group=group, offset=offset, reset=reset)

    # Broadcasting: each member gets everything.

    def join_member(
        self,
        queue: str,
        group: str,
        member: str,
        *,
        start: int | Literal["latest", "earliest"] = "latest",
        idle: float = 0.0,
    ) -> Any:
        """Be a member of a group that broadcasts; its messages come to the group "GROUP@MEMBER".

        A new one begins at start: latest, earliest, or a time in µs. idle: it goes when nobody
        joined as it for so many seconds; without, it lasts. queue.member does this and goes on.
        """
        idle_ms = round(idle * 1000)
        return self.admin(
            "member.join", queue=queue, group=group, member=member, start=start, idle_ms=idle_ms)

    def leave_member(self, queue: str, group: str, member: str) -> Any:
        """Be a member no more."""
        return self.admin("member.leave", queue=queue, group=group, member=member)

    def members(self, queue: str, group: str) -> Any:
        """The members of a group that broadcasts, and how far they are."""
        return self.admin("member.list", queue=queue, group=group)

    # Of a queue.

    def configure(self, queue: str, **settings: Any) -> Any:
        """Set what a queue keeps and stores once; what is set then. Without settings, only that.

        retain_ms, retain_bytes, keep ("all", "unconfirmed", "subscribed"), rewind_ms; dedup_ms,
        dedup_count: a message whose message_id was stored so lately is not stored again.
        """
        return self.admin("queue.set", queue=queue, **settings)
