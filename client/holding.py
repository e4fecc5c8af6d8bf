"""What a loop over a blocking queue holds: confirmed on return, released on raise."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from penstock import model
from penstock.errors import InvalidError, PenstockError
from penstock.request import Reply
from penstock.wire import Verdict

if TYPE_CHECKING:
    from penstock.request import Call
    from penstock.squeue import Message, Queue

LOG = logging.getLogger("penstock")


class Holding:
    """The messages a loop is not done with, and a thread that extends their leases.

    Invariants:
      1. leased holds the messages neither confirmed nor released yet. It changes, and what is
         said about its messages leaves, under lock: a confirmation is never followed by an
         extension of the same lease.
      2. asked holds the confirmations whose verdict was not looked at yet.
    """

    def __init__(self, queue: Queue, lease: float) -> None:
        self.queue = queue
        self.client = queue.client
        self.lease = lease
        self.leased: dict[int, Message] = {}
        self.asked: list[Reply] = []
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.extender = threading.Thread(
            target=self._extend, name="penstock-leases", daemon=True)

    def take(self, messages: list[Message]) -> Iterator[Message]:
        """Give the messages one by one; each is confirmed when the next is asked for."""
        with self.lock:
            self.leased = {id(message): message for message in messages}
        if messages and self.extender.ident is None:
            self.extender.start()
        for message in messages:
            yield message
            with self.lock:
                del self.leased[id(message)]
                self._ask(self.asked, model.confirm_call, [message])

    def settle(self) -> None:
        """Return when every confirmation was answered."""
        asked, self.asked = self.asked, []
        self._judge(asked, "confirm")

    def close(self) -> None:
        """Give back what was not done, and extend no more."""
        self.ended.set()
        released: list[Reply] = []
        with self.lock:
            left, self.leased = list(self.leased.values()), {}
            if left:
                self._ask(released, model.release_call, left, 0.0)
        self.settle()
        self._judge(released, "release")
        if self.extender.ident is not None:
            self.extender.join()

    def _ask(
        self, replies: list[Reply], make: Callable[..., Call], messages: list[Message], *more: Any
    ) -> None:
        reply = Reply()
        receipts = [message.receipt for message in messages]
        try:
            self.client.issue(lambda session: session.call(make(reply, receipts, *more)))
        except PenstockError as error:
            # What was not confirmed comes again; the loop learns why from its next receive.
            LOG.warning("could not say what became of %d messages of %s: %s",
                        len(messages), self.queue.name, error)
        else:
            replies.append(reply)

    def _judge(self, replies: list[Reply], what: str) -> None:
        late = 0
        for reply in replies:
            try:
                verdicts: list[Verdict] = self.client.wait(reply, self.client.timeout, what)
            except PenstockError as error:
                LOG.warning("could not %s on %s: %s", what, self.queue.name, error)
                continue
            late += len(verdicts) - verdicts.count(Verdict.DONE)
        if late:
            LOG.warning("%d leases on %s were lost before the %s", late, self.queue.name, what)

    def _extend(self) -> None:
        while not self.ended.wait(self.lease / 3):
            extended: list[Reply] = []
            with self.lock:
                if self.leased:
                    self._ask(extended, model.extend_call, list(self.leased.values()),
                              model.milliseconds(self.lease))
            self._judge(extended, "extension")


def consume(
    queue: Queue, concurrency: int, lease: float, wait: float
) -> Generator[Message, None, None]:
    """See Queue.consume."""
    if concurrency < 1 or lease <= 0:
        raise InvalidError("concurrency is at least 1 and a lease is positive")
    return _each(queue, concurrency, lease, wait)


def _each(
    queue: Queue, concurrency: int, lease: float, wait: float
) -> Generator[Message, None, None]:
    held = Holding(queue, lease)
    try:
        while True:
            yield from held.take(queue.receive(concurrency, wait=wait, lease=lease))
            held.settle()
    finally:
        held.close()
