"""Queues that are there as long as somebody asks for them. No wire, no clock, no loop."""

import json
from typing import NamedTuple

from penstock.engine._core import Queue, Store
from penstock.engine.errors import ConflictError, EngineError, QueueNotFoundError
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind, refusal

PREFIX = "temporary/"
ATTEMPTS = 8


class Noted(NamedTuple):
    """What the store keeps about a temporary queue. queue 0: it is just being made."""

    queue: int
    idle_ms: int
    seen_us: int
    gone: bool = False

    def pack(self) -> bytes:
        return json.dumps(self._asdict()).encode()

    @classmethod
    def read(cls, raw: bytes) -> "Noted":
        return cls(**json.loads(raw))

    @property
    def due_us(self) -> int:
        """When it is removed unless somebody asks for it before."""
        return 0 if self.gone else self.seen_us + self.idle_ms * 1000


class Temporary:
    """The temporary queues of one store.

    Invariants:
      1. A queue is temporary exactly while its note is there; the note is there before it.
      2. The note says gone before the queue is removed, and goes after it: whoever asks meanwhile
         is told to come again, and a sweep that was cut off is finished by the next one.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store

    def open(self, name: str, idle_ms: int, now_us: int) -> Queue:
        """The temporary queue of that name, which lives idle_ms from now at least.

        Raises EXISTS if there is a lasting one, INVALID for an impossible time.
        """
        limit = self.broker.limits.temporary_ms
        if not 1 <= idle_ms <= limit:
            raise BrokerError(Kind.INVALID, f"an idle time is 1 to {limit} ms", limit=limit)
        checked(name)
        try:
            for _ in range(ATTEMPTS):
                try:
                    return self._seen(name, idle_ms, now_us)
                except ConflictError:
                    # Another worker touched it, or is removing it.
                    continue
        except EngineError as error:
            raise refusal(error) from error
        raise BrokerError(Kind.BUSY, f"queue {name} is being removed")

    def _seen(self, name: str, idle_ms: int, now_us: int) -> Queue:
        found = self.store.noted(PREFIX + name)
        if found is None:
            if self._exists(name):
                raise BrokerError(Kind.EXISTS, f"queue {name} is there, and is no temporary one")
            version = self._note(name, Noted(0, idle_ms, now_us), 0)
        else:
            noted, version = Noted.read(found[0]), found[1]
            if noted.gone:
                raise BrokerError(Kind.BUSY, f"queue {name} is being removed")
        queue = self.broker.open(name, create=True)
        self._note(name, Noted(queue.id, idle_ms, now_us), version)
        return queue

    def sweep(self, now_us: int) -> list[str]:
        """Remove those whose time is up; their names. May be called by any number of workers."""
        removed = []
        for name in self.store.notes(PREFIX):
            found = self.store.noted(name)
            if found is None:
                continue
            noted, version = Noted.read(found[0]), found[1]
            if noted.due_us > now_us or self._awaited(name.removeprefix(PREFIX)):
                continue
            try:
                self._remove(name.removeprefix(PREFIX), noted, version)
            except ConflictError:
                continue
            removed.append(name.removeprefix(PREFIX))
        return removed

    def _awaited(self, name: str) -> bool:
        """Whether messages wait to come into the queue: it stays for what was promised."""
        try:
            return self.store.queue(name, create=False).stat()["pending"] > 0
        except QueueNotFoundError:
            return False

    def _remove(self, name: str, noted: Noted, version: int) -> None:
        version = self._note(name, noted._replace(gone=True), version)
        try:
            # Somebody may have deleted it and made a lasting one of that name since.
            if noted.queue in (0, self.store.queue(name, create=False).id):
                self.broker.delete(name)
        except (QueueNotFoundError, BrokerError) as error:
            if isinstance(error, BrokerError) and error.kind is not Kind.NOT_FOUND:
                raise
        self.store.note(PREFIX + name, None, expect=version)

    def _note(self, name: str, noted: Noted, expect: int) -> int:
        return self.store.note(PREFIX + name, noted.pack(), expect=expect)

    def _exists(self, name: str) -> bool:
        try:
            self.store.queue(name, create=False)
        except QueueNotFoundError:
            return False
        return True
