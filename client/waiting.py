"""What both clients can ask about messages that wait. The async client's answers are awaited."""

from __future__ import annotations

from typing import Any

from penstock.grouping import given
from penstock.later import Moment, id_text, later_of, LATER
from penstock.wire import Receipt


class Waiting:
    """Asks about delayed messages and halves; an id is that of a receipt, or as a list tells it."""

    def admin(self, do: str, **fields: Any) -> Any:
        """What the server answers to one administrative request."""
        raise NotImplementedError

    def pending(
        self, queue: str = "", *, topic: str = "", state: str | None = None,
        since_us: int | None = None, until_us: int | None = None, limit: int | None = None,
        cursor: str | None = None,
    ) -> Any:
        """What waits, by when it falls due; go on with cursor=next until next is None.

        Everything, or what waits for a queue or for a topic.

        state: delayed, half, or committed (a half that waits for its time).
        """
        return self.admin("pending.list", **given(
            queue=queue, topic=topic or None, state=state, since_us=since_us, until_us=until_us,
            limit=limit, cursor=cursor))

    def pending_message(self, message: int | str | Receipt) -> Any:
        """One message that waits, body and all. Raises QueueNotFoundError if it waits no more."""
        return self.admin("pending.get", id=id_text(message))

    def schedules(self) -> Any:
        """The schedules of the server, with their next firings."""
        return self.admin("schedule.list")

    def set_schedule(self, name: str, cron: str, *, queue: str = "", topic: str = "",
                     body: str = "", zone: str = "UTC", **more: Any) -> Any:
        """Send a message whenever a cron expression of that time zone says so.

        In body {{time}}, {{unix}} and {{name}} stand for the firing's. more: missed ("skip", "one"
        or "all"), tag, key, routing_key, properties.
        """
        return self.admin("schedule.set", name=name, cron=cron, zone=zone, **more, **{
            field: value for field, value in (("queue", queue), ("topic", topic), ("body", body))
            if value})

    def schedule(self, name: str) -> Any:
        """One schedule, with its next firings."""
        return self.admin("schedule.show", name=name)

    def pause_schedule(self, name: str) -> Any:
        """It fires no more until it is resumed."""
        return self.admin("schedule.pause", name=name)

    def resume_schedule(self, name: str) -> Any:
        """It goes on from now."""
        return self.admin("schedule.resume", name=name)

    def remove_schedule(self, name: str) -> Any:
        """It fires no more."""
        return self.admin("schedule.remove", name=name)

    def cancel(self, message: int | str | Receipt) -> Any:
        """A delayed message never comes; "cancelled" is false if it was cancelled before.

        Raises ExistsError if it is in its queue already, QueueNotFoundError, InvalidError for a
        half.
        """
        return self.admin("pending.cancel", id=id_text(message))

    def move(
        self, message: int | str | Receipt, *, delay: float | None = None,
        at: Moment | None = None,
    ) -> Any:
        """A delayed message comes at another time; its id stays. Raises as cancel does."""
        _, packed = later_of(delay, at)
        fields = {}
        if packed:
            time_us = LATER.unpack(packed)[0]
            # Rounded up: nothing comes earlier than it was asked to.
            fields = {"due_us": time_us} if at is not None else {"delay_ms": -(-time_us // 1000)}
        return self.admin("pending.move", id=id_text(message), **fields)
