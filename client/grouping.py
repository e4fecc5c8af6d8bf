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
