"""Ways to consume besides leases: by a stored offset, and as members that each get everything."""

import json
from typing import Any, NamedTuple

from penstock.engine._core import Consumer, Queue, Store
from penstock.engine.errors import ConflictError, QueueNotFoundError
from penstock.engine.retries import FILTER, ORDER, RETRY, field
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind

Answer = dict[str, Any]
PREFIX = "member/"
ATTEMPTS = 8


class Offsets:
    """A group's stored offset: all before it is confirmed, nothing is leased to read on."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def show(self, ask: asks.OffsetShow) -> Answer:
        """The stored offset. Raises NOT_FOUND if the group is not there: it never stored one."""
        queue = self.broker.open(ask.queue, create=False)
        return self.told(queue, self.broker.existing(queue, ask.group))

    def commit(self, ask: asks.OffsetCommit) -> Answer:
        """Store an offset; a group that is absent is made there.

        It never goes back unless the ask says reset. Raises INVALID beyond the end of the queue.
        """
        queue = self.broker.open(ask.queue, create=False)
        if ask.offset > queue.stat()["next"]:
            raise BrokerError(
                Kind.INVALID, f"offset {ask.offset} lies beyond the end of queue {ask.queue}")
        if ask.group not in self.broker.groups(queue):
            checked(ask.group)
            queue.store._group(queue.id, ask.group.encode(), ask.offset)
        group = self.broker.existing(queue, ask.group)
        if ask.reset and ask.offset < group.stat()["floor"]:
            group.seek(offset=ask.offset)
        else:
            group.advance(ask.offset)
        return self.told(queue, group)

    def told(self, queue: Queue, group: Consumer) -> Answer:
        stat = queue.stat()
        return {"queue": queue.name, "group": group.name, "offset": group.stat()["floor"],
                "first": stat["first"], "end": stat["visible"]}


class Noted(NamedTuple):
    """What the store keeps about a member that goes when nobody asks for it."""

    queue: str
    group: str
    idle_ms: int
    seen_us: int
    gone: bool = False

    def pack(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def read(cls, raw: bytes) -> "Noted":
        return cls(**json.loads(raw))


class Members:
    """Members of a group that broadcasts: each is a group of its own, called GROUP@MEMBER.

    Invariants:
      1. A member goes by itself exactly while its note is there; the note is there before it.
      2. The note says gone before the member is removed, and goes after it.
      3. What is set for the group is set for its members, present and to come.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store

    def join(self, ask: asks.MemberJoin, now_us: int) -> Answer:
        """Be there from now on, or go on being there. Raises INVALID, EXISTS, BUSY."""
        queue = self.broker.open(ask.queue, create=False)
        name = member_name(ask)
        limit = self.broker.limits.temporary_ms
        if ask.idle_ms > limit:
            raise BrokerError(Kind.INVALID, f"an idle time is at most {limit} ms", limit=limit)
        for _ in range(ATTEMPTS):
            try:
                new = self.seen(queue, name, ask, now_us)
                break
            except ConflictError:
                continue        # another worker touched it, or is removing it
        else:
            raise BrokerError(Kind.BUSY, f"member {name} is being removed")
        group = self.broker.existing(queue, name)
        return {"queue": queue.name, "group": name, "id": group.id, "new": new, **group.stat()}

    def seen(self, queue: Queue, name: str, ask: asks.MemberJoin, now_us: int) -> bool:
        """Note that it was asked for, and make it if it is absent; whether it is new."""
        note = note_of(queue, name)
        found = self.store.noted(note)
        there = name in self.broker.groups(queue)
        noted, version = (Noted.read(found[0]), found[1]) if found else (None, 0)
        if noted is not None and noted.gone:
            raise BrokerError(Kind.BUSY, f"member {name} is being removed")
        if ask.idle_ms:
            if noted is None and there:
                raise BrokerError(Kind.EXISTS, f"member {name} is there, and is a lasting one")
            fresh = Noted(queue.name, name, ask.idle_ms, now_us)
            self.store.note(note, fresh.pack(), expect=version)
        elif noted is not None:
            self.store.note(note, None, expect=version)
        if there:
            return False
        stat = queue.stat()
        start = {"latest": stat["next"], "earliest": stat["first"]}.get(str(ask.start))
        if start is None:
            start = queue.offset_at(int(ask.start))
        self.store._group(queue.id, name.encode(), start)
        self.settle(queue, name, ask.group)
        return True

    def settle(self, queue: Queue, name: str, base: str) -> None:
        """Give a new member what is set for its group."""
        if base not in self.broker.groups(queue):
            return
        from_ = self.broker.group(queue, base)
        fields = b"".join(
            field(number, value) for number in (FILTER, ORDER, RETRY)
            if (value := from_._setting(number)[1])
        )
        if fields:
            queue.group(name)._settings(fields)

    def leave(self, ask: asks.Member) -> Answer:
        """Be there no more. Raises NOT_FOUND."""
        queue = self.broker.open(ask.queue, create=False)
        name = member_name(ask)
        self.broker.existing(queue, name)
        queue.delete_group(name)
        self.store.note(note_of(queue, name), None)
        return {}

    def list(self, ask: asks.OffsetShow) -> Answer:
        """The members of a group, and how far they are."""
        queue = self.broker.open(ask.queue, create=False)
        rows = [
            {"member": name.partition("@")[2], "group": name, **queue.group(name).stat()}
            for name in sorted(members_of(self.broker.groups(queue), ask.group))
        ]
        return {"members": rows}

    def sweep(self, now_us: int) -> int:
        """Remove those whose time is up; how many. May be called by any number of workers."""
        removed = 0
        for note in self.store.notes(PREFIX):
            found = self.store.noted(note)
            if found is None:
                continue
            noted, version = Noted.read(found[0]), found[1]
            if not noted.gone and noted.seen_us + noted.idle_ms * 1000 > now_us:
                continue
            try:
                version = self.store.note(note, noted._replace(gone=True).pack(), expect=version)
                try:
                    self.store.queue(noted.queue, create=False).delete_group(noted.group)
                except QueueNotFoundError:
                    pass        # the queue was deleted, or a sweep was cut off here
                self.store.note(note, None, expect=version)
            except ConflictError:
                continue
            removed += 1
        return removed


def member_name(ask: asks.Member | asks.MemberJoin) -> str:
    """What the member's group is called. Raises INVALID."""
    name = f"{checked(ask.group)}@{checked(ask.member)}"
    if len(name) > 128 or "/" in name:
        raise BrokerError(Kind.INVALID, "GROUP@MEMBER has at most 128 characters, and no /")
    return name


def members_of(groups: dict[str, int], base: str) -> list[str]:
    """Those of the names that are members of a group."""
    return [name for name in groups if name.startswith(f"{base}@")]


def note_of(queue: Queue, name: str) -> str:
    """A queue that was deleted and made anew has another number, and other members."""
    return f"{PREFIX}{queue.id:08x}/{name}"
