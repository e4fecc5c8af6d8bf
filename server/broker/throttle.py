"""Quotas of queues, namespaces, access keys: what they say, where they are kept, whom they bind."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from penstock.engine._core import Store
from penstock.engine.errors import EngineError, QueueNotFoundError
from penstock.server.broker.access import SECRET_BYTES, Pair, checked_pair, key_number
from penstock.server.broker.broker import Broker, checked, checked_namespace
from penstock.server.broker.errors import BrokerError, Kind, refusal

PREFIX = "quota/"
SCOPES = ("queue", "namespace", "key")
RATES = {"messages_per_s", "bytes_per_s", "receives_per_s", "burst_s"}
RATE_LIMIT = 1e9
COUNT_LIMIT = 1 << 62
BURST_LIMIT = 3600.0


class Quota(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True):
    """What may be done; 0 is no limit. A namespace's is for all its queues together, a topic's (set
    as a queue's) for all its partitions; an access key's has rates only.

    messages and bytes bound what the queues' own groups have not confirmed yet (bytes by the mean
    size), pending what waits for its time or its verdict; in_flight what each group has leased. A
    rate lets burst_s seconds' worth through at once. queues and connections are a namespace's only.
    """

    messages_per_s: float = 0
    bytes_per_s: float = 0
    receives_per_s: float = 0
    burst_s: float = 1.0
    messages: int = 0
    bytes: int = 0
    in_flight: int = 0
    queues: int = 0
    pending: int = 0
    connections: int = 0

    def check(self, scope: str) -> None:
        """Raises INVALID for what cannot be."""
        for name in ("messages_per_s", "bytes_per_s", "receives_per_s"):
            if not 0 <= getattr(self, name) <= RATE_LIMIT:
                raise BrokerError(Kind.INVALID, f"{name} is 0 to {RATE_LIMIT:.0f}")
        for name in ("messages", "bytes", "queues", "pending"):
            if not 0 <= getattr(self, name) <= COUNT_LIMIT:
                raise BrokerError(Kind.INVALID, f"{name} is 0 to {COUNT_LIMIT}")
        for name in ("in_flight", "connections"):
            if not 0 <= getattr(self, name) <= 0xFFFFFFFF:
                raise BrokerError(Kind.INVALID, f"{name} is 0 to 4294967295")
        if not 0 < self.burst_s <= BURST_LIMIT:
            raise BrokerError(Kind.INVALID, f"burst_s is over 0, at most {BURST_LIMIT:.0f}")
        if (self.queues or self.connections) and scope != "namespace":
            raise BrokerError(Kind.INVALID, "queues and connections are for a namespace")
        given = {name for name, value in msgspec.structs.asdict(self).items() if value}
        if scope == "key" and given - RATES:
            raise BrokerError(Kind.INVALID, "the quota of an access key has rates only")


# As server/_wire_gate.pxi takes it: the cell's name, then the numbers.
Rule = tuple[int, float, float, float, float, bool, bool, bool, int, int]


class Plan(NamedTuple):
    """The rules of all quotas, the queues and keys they bind, and what room is left under each."""

    rules: list[Rule]
    members: list[tuple[int, int, int]]
    keys: list[tuple[int, int]]
    rooms: list[tuple[int, int | None, int | None, int | None]]


class Quotas:
    """The quotas of one store, each a note: quota/queue/NAME or quota/namespace/NAME."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store: Store = broker.store
        self.version = -1
        self.known: dict[tuple[str, str], Quota] = {}

    def set(self, scope: str, name: str, quota: Quota) -> None:
        """Bind the scope from now on (noticed by every worker within a second)."""
        self._check(scope, name)
        quota.check(scope)
        known = self.all()
        limit = self.broker.limits.quotas
        if (scope, name) not in known and len(known) >= limit:
            raise BrokerError(Kind.TOO_LARGE, f"there are {limit} quotas already", limit=limit)
        self._note(scope, name, msgspec.json.encode(quota))

    def remove(self, scope: str, name: str) -> None:
        """Bind it no more. Raises NOT_FOUND if it was not bound."""
        self.get(scope, name)
        self._note(scope, name, None)

    def get(self, scope: str, name: str) -> Quota:
        """Raises NOT_FOUND if there is none."""
        self._check(scope, name)
        found = self.all().get((scope, name))
        if found is None:
            raise BrokerError(Kind.NOT_FOUND, f"{scope} {name} has no quota")
        return found

    def all(self) -> dict[tuple[str, str], Quota]:
        """Every quota by scope and name."""
        try:
            version = self.store.notes_version()
            if version != self.version:
                self.known = {
                    split(note): msgspec.json.decode(value, type=Quota)
                    for note, value in sorted(self.store.notes(PREFIX).items())
                }
                self.version = version
        except EngineError as error:
            raise refusal(error) from error
        return self.known

    def plan(self) -> Plan:
        """What the gates go by now."""
        quotas = self.all()
        plan = Plan([], [], [], [])
        if not quotas:
            return plan
        numbers = {key: at for at, key in enumerate(quotas)}
        used = {key: [0, 0, 0] for key in quotas}
        for name in self.store.queues():
            space = namespace_of(name)
            binding = [("queue", name.partition("#")[0])]
            binding += [("namespace", space)] if space else []
            if not any(key in quotas for key in binding):
                continue
            own, outer = (numbers.get(key, -1) for key in (binding[0], binding[-1]))
            bounds = [quotas[key] for key in binding if key in quotas]
            bounded = any(quota.messages or quota.bytes or quota.pending for quota in bounds)
            try:
                queue = self.store.queue(name, create=False)
                backlog = backlog_of(queue.stat()) if bounded else (0, 0, 0)
            except QueueNotFoundError:
                continue
            plan.members.append((queue.id, own, outer if space else -1))
            for key in binding:
                if key in used:
                    used[key] = [one + more for one, more in zip(used[key], backlog)]
        for key, quota in quotas.items():
            cell = cell_of(*key)
            plan.rules.append(rule_of(cell, quota))
            most = (quota.messages, quota.bytes, quota.pending)
            left = [one - had if one else None for one, had in zip(most, used[key])]
            plan.rooms.append((cell, left[0], left[1], left[2]))
            if key[0] == "key":
                plan.keys.append((key_number(key[1]), numbers[key]))
        return plan

    def guard(self, name: str, names: Iterable[str]) -> None:
        """Called before a queue is made: raises THROTTLED if its namespace has enough of them."""
        space = namespace_of(name)
        quota = self.all().get(("namespace", space)) if space else None
        if quota is None or not quota.queues:
            return
        count = sum(one.startswith(f"{space}/") for one in names)
        if count >= quota.queues:
            raise BrokerError(
                Kind.THROTTLED,
                f"namespace {space} has {count} queues, its quota",
                limit=quota.queues,
            )

    def _note(self, scope: str, name: str, value: "bytes | None") -> None:
        try:
            self.store.note(f"{PREFIX}{scope}/{name}", value)
        except EngineError as error:
            raise refusal(error) from error

    def _check(self, scope: str, name: str) -> None:
        if scope not in SCOPES:
            raise BrokerError(Kind.INVALID, "a quota is a queue's, a namespace's or a key's")
        if scope == "queue":
            checked(name)
        elif scope == "key":
            checked_pair(Pair(name, "-" * SECRET_BYTES[0]))
        else:
            checked_namespace(name)


def split(note: str) -> tuple[str, str]:
    """Scope and name of a quota's note."""
    scope, _, name = note.removeprefix(PREFIX).partition("/")
    return scope, name


def namespace_of(name: str) -> str:
    """The namespace of a queue's name; empty for the default one, which has no quota."""
    return name.rpartition("/")[0]


def backlog_of(stat: dict[str, int]) -> tuple[int, int, int]:
    """Messages that the queue's own group has not confirmed, their bytes by the mean size, and
    messages that wait."""
    messages = stat["next"] - max(stat["floor"], stat["first"])
    return messages, messages * stat["bytes"] // max(1, stat["next"]), stat["pending"]


def cell_of(scope: str, name: str) -> int:
    """The name of the cells that all workers share for a quota; its lowest bits are 0."""
    digest = hashlib.blake2b(f"{scope}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") & ~7 | 8


def rule_of(cell: int, quota: Quota) -> Rule:
    return (
        cell, quota.messages_per_s, quota.bytes_per_s, quota.receives_per_s, quota.burst_s,
        quota.messages > 0, quota.bytes > 0, quota.pending > 0, quota.in_flight,
        quota.connections,
    )  # fmt: skip
