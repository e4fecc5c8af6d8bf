"""What both clients can ask about messages and groups. The async client's answers are awaited."""

from __future__ import annotations

from typing import Any

from penstock.grouping import Grouping, given
from penstock.topics import Topic


class Seeing(Grouping):
    """Asks that change nothing, and rewind. Answers are dictionaries, as docs/wire.md has them."""

    def half(self, id: int | str) -> Any:
        """A half that was prepared before, by its id."""
        raise NotImplementedError

    def topic(self, name: str) -> Topic:
        """The topic of that name; nothing is asked of the server yet."""
        return Topic(self, name)

    def explain(
        self, queue: str = "", offset: int | None = None, *, id: str | None = None, group: str = ""
    ) -> Any:
        """Why a message (by id, or by queue and offset) is not being delivered to a group."""
        return self.admin("explain", **given(queue=queue, offset=offset, id=id, group=group))

    def trace(
        self, queue: str = "", offset: int | None = None, *, id: str | None = None, cursor: int = 0
    ) -> Any:
        """What the log says of a message; go on with cursor=next until next is None."""
        return self.admin("trace", **given(queue=queue, offset=offset, id=id, cursor=cursor))

    def find(self, queue: str, **wanted: Any) -> Any:
        """Messages that are all of what is given; go on with cursor=next until next is None.

        id (the server's), message_id (the sender's), from_offset, to_offset, since_us, until_us,
        tag, key, routing_key, correlation, properties (a dict), text (in the body), limit,
        body_bytes, cursor.
        """
        return self.admin("find", queue=queue, **given(**wanted))

    def lag(self, queue: str = "", group: str | None = None, *, cursor: int = 0) -> Any:
        """How far groups are behind: one, all of a queue, or all there are."""
        return self.admin("lag", **given(queue=queue, group=group, cursor=cursor))

    def rewind(
        self,
        queue: str,
        *,
        group: str = "",
        offset: int | None = None,
        time_us: int | None = None,
        to: str | None = None,
        relative: str | None = None,
        undo: bool | None = None,
        dry_run: bool = False,
        shadow: str | None = None,
    ) -> Any:
        """Set a group to a place; relative is "-2h" or "-1000". With dry_run, only what would come.

        undo takes the last one back: what was confirmed before or since stays confirmed.
        shadow names a new group that begins there, while this one stays where it is.
        """
        fields = given(
            offset=offset, time_us=time_us, to=to, relative=relative, undo=undo, shadow=shadow,
            group=group,
        )
        return self.admin("rewind", queue=queue, dry_run=dry_run, **fields)
