"""The rare verbs: what a connection asks of the broker, not of the lane. Runs on a thread."""

import json
import struct
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from penstock.server.broker import asks
from penstock.server.broker.access import KeyAsks, Keys
from penstock.server.broker.broker import Broker
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.groups import Groups
from penstock.server.broker.seeing import Seeing
from penstock.server.broker.push import Pushes, Subscription
from penstock.server.broker.temporary import Temporary
from penstock.server.broker.throttle import Quota, Quotas
from penstock.server.broker.cron import Crons
from penstock.server.broker.schedule import Schedule
from penstock.server.protocols.native.later import Joins, Later, always, joined
from penstock.server.protocols.native.statuses import refused
from penstock.server.protocols.native.topics import TopicAsks

T = TypeVar("T")
OPEN, SEEK, READ, GROUP, ADMIN, SEND_ALL = 2, 9, 10, 11, 12, 18
CREATE, TEMPORARY = 1, 2

SEEK_PAYLOAD = struct.Struct("<IIIIQ")
READ_PAYLOAD = struct.Struct("<IIQIIII")


class Handler:
    """Called with a verb, its payload, and the producer that the connection stated; returns a
    status and the payload of the reply."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.temporary = Temporary(broker)
        self.seeing = Seeing(broker)
        self.topics = TopicAsks(broker)
        self.quotas = Quotas(broker)
        self.groups = Groups(broker, lambda: time.time_ns() // 1000)
        self.pushes = Pushes(broker)
        self.schedule = Schedule(broker)
        self.crons = Crons(broker)
        later = Later(broker)
        self.produce = later.produce
        self.send_all = later.send_all
        self.keys = KeyAsks(Keys(broker))
        self.verbs: dict[int, Callable[[bytes], bytes]] = {
            SEEK: self.seek,
            READ: self.resolve,
            GROUP: self.group,
        }

    def __call__(
        self, verb: int, payload: bytes, producer: int = 0, joins: Joins = always
    ) -> tuple[int, bytes]:
        try:
            if verb == SEND_ALL:
                return 0, self.send_all(payload, producer, joins)
            if verb == ADMIN:
                return 0, self.admin(payload, producer, joins)
            if verb == OPEN:
                return 0, self.open(payload, joins)
            return 0, self.verbs[verb](payload)
        except BrokerError as error:
            return refused(error)
        except UnicodeEncodeError:
            return refused(BrokerError(Kind.INVALID, "half a surrogate pair is no character"))
        except Exception:
            # A bug of ours must cost one request, not the connection of a stranger.
            traceback.print_exc(file=sys.stderr)
            return refused(BrokerError(Kind.INTERNAL, "the request failed inside the server"))

    def open(self, payload: bytes, joins: Joins = always) -> bytes:
        if len(payload) < 4:
            raise BrokerError(Kind.INVALID, "OPEN is flags and a name")
        flags = int.from_bytes(payload[:4], "little")
        if flags == CREATE | TEMPORARY and len(payload) >= 8:
            idle_ms = int.from_bytes(payload[4:8], "little")
            queue = self.temporary.open(name_of(payload[8:]), idle_ms, time.time_ns() // 1000)
            joined(joins, queue.id)
            return queue.id.to_bytes(4, "little")
        if flags & ~CREATE:
            raise BrokerError(Kind.INVALID, "flags are 1, create if absent, or 3, a temporary one")
        queue = self.broker.open(name_of(payload[4:]), create=bool(flags & CREATE))
        joined(joins, queue.id)
        return queue.id.to_bytes(4, "little")

    def group(self, payload: bytes) -> bytes:
        if len(payload) < 8:
            raise BrokerError(Kind.INVALID, "GROUP is a queue, zero and a name")
        queue = self.broker.by_id(int.from_bytes(payload[:4], "little"))
        return self.broker.group(queue, name_of(payload[8:])).id.to_bytes(4, "little")

    def seek(self, payload: bytes) -> bytes:
        if len(payload) != SEEK_PAYLOAD.size:
            raise BrokerError(Kind.INVALID, f"SEEK has {SEEK_PAYLOAD.size} bytes")
        number, group, kind, _, value = SEEK_PAYLOAD.unpack(payload)
        consumer = self.broker.consumer(self.broker.by_id(number), group)
        return struct.pack("<QQ", *self.broker.seek(consumer, kind, value))

    def resolve(self, payload: bytes) -> bytes:
        """The same READ with its kind and value turned into an offset."""
        number, kind, value, *rest = READ_PAYLOAD.unpack(payload)
        offset = self.broker.position(self.broker.by_id(number), kind, value)
        return READ_PAYLOAD.pack(number, 0, offset, *rest)

    def admin(self, payload: bytes, producer: int = 0, joins: Joins = always) -> bytes:
        try:
            request = json.loads(payload)
        except (ValueError, RecursionError) as error:
            raise BrokerError(Kind.INVALID, "ADMIN is a JSON object") from error
        if not isinstance(request, dict):
            raise BrokerError(Kind.INVALID, "ADMIN is a JSON object")
        return json.dumps(self.administer(request, producer, joins)).encode()

    def administer(
        self, request: dict[str, Any], producer: int = 0, joins: Joins = always
    ) -> dict[str, Any]:
        do = request.get("do")
        if isinstance(do, str) and do in self.seeing.asks:
            return self.seeing(do, {field: request[field] for field in request if field != "do"})
        if isinstance(do, str) and do in self.crons.asks:
            return self.crons(do, {field: request[field] for field in request if field != "do"})
        if isinstance(do, str) and do in self.schedule.asks:
            return self.schedule(do, {field: request[field] for field in request if field != "do"})
        if isinstance(do, str) and do in self.groups.asks:
            return self.groups(do, {field: request[field] for field in request if field != "do"})
        if isinstance(do, str) and do in self.keys.asks:
            return self.keys(do, request, time.time_ns() // 1000)
        name = request.get("name", request.get("queue", ""))
        if not isinstance(name, str):
            raise BrokerError(Kind.INVALID, "name is text")
        if isinstance(do, str) and do.startswith("push."):
            return self.push(do, name, request.get("push"))
        if isinstance(do, str) and do.startswith("quota."):
            return self.quota(do, str(request.get("scope", "")), name, request.get("quota"))
        if isinstance(do, str) and do in self.topics.does:
            return self.topics(do, request, producer, joins)
        if do == "queue.list":
            fields = {field: request[field] for field in request if field != "do"}
            ask = asks.converted(do, fields, asks.Listing)
            names, more = asks.page(self.broker.names(ask.prefix), ask)
            return {"queues": names, "next": more}
        if do == "queue.show":
            return self.broker.show(name)
        if do == "queue.delete":
            self.broker.delete(name)
            return {}
        if do == "queue.purge":
            return {"purged": self.broker.purge(name, request.get("keep_ms", 0))}
        if do == "queue.unpurge":
            return self.broker.unpurge(name)
        raise BrokerError(Kind.INVALID,
                          "do is queue.list, queue.show, queue.delete, queue.purge, queue.unpurge")

    def push(self, do: str, name: str, given: Any) -> dict[str, Any]:
        if do == "push.list":
            return {"pushes": self.pushes.shown()}
        if do == "push.remove":
            self.pushes.remove(name)
            return {}
        if do == "push.set":
            self.pushes.set(name, converted(given, Subscription))
            return {}
        raise BrokerError(Kind.INVALID, "do is push.list, push.set or push.remove")

    def quota(self, do: str, scope: str, name: str, given: Any) -> dict[str, Any]:
        if do == "quota.list":
            rows = self.quotas.all().items()
            return {"quotas": [{"scope": s, "name": n, **described(q)} for (s, n), q in rows]}
        if do == "quota.show":
            return described(self.quotas.get(scope, name))
        if do == "quota.remove":
            self.quotas.remove(scope, name)
            return {}
        if do == "quota.set":
            quota = converted(given, Quota)
            self.quotas.set(scope, name, quota)
            return described(quota)
        raise BrokerError(Kind.INVALID, "do is quota.list, quota.show, quota.set or quota.remove")


def converted(given: Any, into: type[T]) -> T:
    try:
        return msgspec.convert(given, into)
    except msgspec.ValidationError as error:
        raise BrokerError(Kind.INVALID, str(error)) from None


def described(quota: Quota) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(quota)
    return found


def name_of(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise BrokerError(Kind.INVALID, "a name is UTF-8 text") from error
