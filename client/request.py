"""What a client has asked for, and who waits for the answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from penstock.wire import Verb


class Waiter(Protocol):
    """Who wants a reply: an asyncio or a concurrent future will do."""

    def done(self) -> bool: ...
    def set_result(self, value: Any, /) -> None: ...
    def set_exception(self, error: Any, /) -> None: ...


class Handle:
    """A queue, or a group of it, by name; its numbers are those of the present connection."""

    __slots__ = (
        "create", "group", "group_name", "idle_ms", "name", "queue", "resolved", "waiters",
    )

    def __init__(self, name: str, group_name: str, create: bool) -> None:
        self.name = name
        self.group_name = group_name
        self.create = create
        # Not 0: the queue is a temporary one, kept that long after it was asked for last.
        self.idle_ms = 0
        self.queue = 0
        self.group = 0
        self.resolved = False
        self.waiters: list[Waiter] = []


class Send(NamedTuple):
    waiter: Waiter
    handle: Handle
    durability: int
    sequence: int
    ext: bytes
    body: bytes
    flags: int = 0


class Call(NamedTuple):
    """Any request but a SEND; encode is asked again after a reconnect, for numbers change."""

    waiter: Waiter
    verb: Verb
    encode: Callable[[int], bytes]
    decode: Callable[[memoryview], Any]
    handle: Handle | None = None
    retry: bool = True


class Nobody:
    """A waiter that wants no reply."""

    def done(self) -> bool:
        return True

    def set_result(self, value: Any, /) -> None: ...

    def set_exception(self, error: Any, /) -> None: ...


class Reply:
    """A waiter whose owner looks at it under the client's lock."""

    __slots__ = ("_done", "error", "value")

    def __init__(self) -> None:
        self._done = False
        self.value: Any = None
        self.error: BaseException | None = None

    def done(self) -> bool:
        return self._done

    def set_result(self, value: Any, /) -> None:
        self.value = value
        self._done = True

    def set_exception(self, error: BaseException, /) -> None:
        self.error = error
        self._done = True
