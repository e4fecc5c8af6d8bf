"""What a queue says for requests that do not say it: lease, wait, limits, dead letters by age.

How long messages are kept, and after how many deliveries they are dead, are settings of the engine;
what is here is the server's alone, one note for each queue that has any. No wire, no clock.
"""

import msgspec

from penstock.engine._core import Store
from penstock.engine.errors import ConflictError, EngineError
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind, refusal

PREFIX = "queue/"
COUNT_LIMIT = 1 << 62


class Defaults(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """message_bytes, messages: the largest message, the most unconfirmed ones; 0 is no limit.

    dead_letter: where messages go that nobody confirmed for dead_after_ms (0: never by age).
    transactions: halves may be prepared; check_after_ms, check_every_ms, checks: how their
    producers are asked. labels: what an adapter keeps here for its own clients.
    """

    lease_ms: int = 30_000
    wait_ms: int = 0
    message_bytes: int = 0
    messages: int = 0
    dead_letter: str = ""
    dead_after_ms: int = 0
    transactions: bool = False
    check_after_ms: int = 6_000
    check_every_ms: int = 30_000
    checks: int = 15
    changed_us: int = 0
    labels: dict[str, str] = {}

    def check(self, lease_limit_ms: int, wait_limit_ms: int) -> None:
        """Raises INVALID for what cannot be."""
        if not 1 <= self.lease_ms <= lease_limit_ms:
            raise BrokerError(
                Kind.INVALID, f"lease_ms is 1 to {lease_limit_ms}", limit=lease_limit_ms)
        if not 0 <= self.wait_ms <= wait_limit_ms:
            raise BrokerError(
                Kind.INVALID, f"wait_ms is 0 to {wait_limit_ms}", limit=wait_limit_ms)
        for name in ("message_bytes", "messages", "dead_after_ms", "changed_us"):
            if not 0 <= getattr(self, name) <= COUNT_LIMIT:
                raise BrokerError(Kind.INVALID, f"{name} is 0 to {COUNT_LIMIT}")
        if bool(self.dead_letter) < bool(self.dead_after_ms):
            raise BrokerError(Kind.INVALID, "dead_after_ms needs dead_letter, the name of a queue")
        if self.dead_letter:
            checked(self.dead_letter)


class QueueDefaults:
    """The defaults of the queues of one store.

    Invariants:
      1. known is what the notes said at version; it is looked at anew when any note changed.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store
        self.version = -1
        self.known: dict[str, Defaults] = {}

    def of(self, name: str) -> Defaults:
        """Those of a queue; one without a note has the built-in ones."""
        version = self.store.notes_version()
        if version != self.version:
            self.known = {}
            self.version = version
        found = self.known.get(name)
        if found is None:
            found = self.noted(name)[0]
            if len(self.known) >= self.broker.limits.route_names:
                self.known.clear()
            self.known[name] = found
        return found

    def noted(self, name: str) -> tuple[Defaults, int]:
        """Those of a queue, and the version that a change of them has to expect."""
        try:
            found = self.store.noted(PREFIX + name)
        except EngineError as error:
            raise refusal(error) from error
        if found is None:
            return Defaults(), 0
        return msgspec.json.decode(found[0], type=Defaults), found[1]

    def set(self, name: str, defaults: Defaults, expect: int | None = None) -> int:
        """From now on, in every worker; returns the version. Raises INVALID, or EXISTS if somebody
        changed them since the version that is expected (0: there are none)."""
        limits = self.broker.limits
        defaults.check(limits.lease_ms, limits.wait_ms)
        return self._note(checked(name), msgspec.json.encode(defaults), expect)

    def remove(self, name: str) -> None:
        """The built-in ones from now on."""
        if self.noted(name)[1]:
            self._note(name, None, None)

    def all(self) -> dict[str, Defaults]:
        """Those of every queue that has any, by its name."""
        try:
            notes = self.store.notes(PREFIX)
        except EngineError as error:
            raise refusal(error) from error
        return {
            name.removeprefix(PREFIX): msgspec.json.decode(value, type=Defaults)
            for name, value in notes.items()
        }

    def _note(self, name: str, value: bytes | None, expect: int | None) -> int:
        try:
            return self.store.note(PREFIX + name, value, expect=expect)
        except ConflictError as error:
            raise BrokerError(Kind.EXISTS, f"queue {name} was changed meanwhile") from error
        except EngineError as error:
            raise refusal(error) from error
