"""Messages that nobody confirmed in time go to the queue that is named for them. No clock."""

from penstock.engine._core import Queue
from penstock.engine.errors import EngineError, QueueNotFoundError
from penstock.server.broker.broker import Broker
from penstock.server.broker.defaults import Defaults, QueueDefaults
from penstock.server.broker.errors import refusal

STEP = 256
STEPS = 64


class Aging:
    """Moves what is too old, a bounded step at a time. One worker of a server does it.

    Invariants:
      1. A message is moved and confirmed by one record: it is never in both queues, nor in none.
      2. What somebody has under a lease stays with them; it is looked at again when that is over.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store = broker.store
        self.defaults = QueueDefaults(broker)
        self.version = -1
        self.aged: dict[str, Defaults] = {}
        # Where to go on in a queue whose oldest messages are all leased.
        self.next: dict[str, int] = {}

    def sweep(self, now_us: int) -> int:
        """Move what is due; how many messages that were."""
        version = self.store.notes_version()
        if version != self.version:
            self.aged = {n: one for n, one in self.defaults.all().items() if one.dead_after_ms}
            self.version = version
        return sum(self._queue(name, one, now_us) for name, one in self.aged.items())

    def _queue(self, name: str, defaults: Defaults, now_us: int) -> int:
        moved = 0
        try:
            queue = self.store.queue(name, create=False)
            dead = self.store.queue(defaults.dead_letter, create=False)
            end = queue.offset_at(now_us - defaults.dead_after_ms * 1000)
            low = max(queue.group().stat()["floor"], queue.stat()["first"])
            at = max(low, self.next.pop(name, 0))
            for _ in range(STEPS):
                if at >= end:
                    break
                moved += self._step(queue, dead, at, min(end, at + STEP))
                at += STEP
            if at < end:
                self.next[name] = at
        except QueueNotFoundError:
            return moved
        except EngineError as error:
            raise refusal(error) from error
        return moved

    def _step(self, queue: Queue, dead: Queue, low: int, high: int) -> int:
        offsets = list(range(low, high))
        verdicts = queue.group()._transfer(
            offsets, [dead.id] * len(offsets), aged=True)
        return sum(verdict == 0 for verdict in verdicts)
