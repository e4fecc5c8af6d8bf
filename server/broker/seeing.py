"""Looking into the store. Dictionaries in and out, so that every door says the same."""

import base64
from collections.abc import Callable
from typing import Any

import msgspec

from penstock.engine._core import Inspector, Queue
from penstock.engine.attributes import Attributes, hash32
from penstock.engine.errors import EngineError, QueueNotFoundError
from penstock.engine.trace import event
from penstock.server.broker import asks
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.explain import REASONS, explain
from penstock.server.broker.lag import Rates
from penstock.server.broker.rewind import rewind

Answer = dict[str, Any]
SEARCH_STEPS = 16       # of a million index entries or 32 MiB of messages each
TRACE_STEPS = 16        # of 64 MiB of the log each
REPLY_BYTES = 1 << 20


class Seeing:
    """What can be asked, by name; each ask is bounded, and says where to go on."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.look = Inspector(broker.store)
        self.rates = Rates(broker.limits.route_names)
        self.asks: dict[str, tuple[type[Any], Callable[[Any], Answer]]] = {
            "explain": (asks.Message, self.explain),
            "find": (asks.Find, self.find),
            "trace": (asks.Trace, self.trace),
            "lag": (asks.Lag, self.lag),
            "rewind": (asks.Rewind, self.rewind),
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer. Raises BrokerError; INVALID says which field is wrong."""
        model, run = self.asks[do]
        try:
            return run(msgspec.convert(fields, model, strict=False))
        except msgspec.ValidationError as error:
            raise BrokerError(Kind.INVALID, f"{do}: {error}") from error
        except EngineError as error:
            raise refusal(error) from error

    def message(self, ask: asks.Message | asks.Trace) -> tuple[Queue, int]:
        """The queue and the offset that are meant. Raises INVALID, NOT_FOUND."""
        if bool(ask.id) == (ask.offset is not None):
            raise BrokerError(Kind.INVALID, "exactly one of id and offset is needed")
        if ask.offset is not None:
            return self.broker.open(ask.queue, create=False), ask.offset
        found = asks.ID.fullmatch(ask.id)
        if found is None:
            raise BrokerError(
                Kind.INVALID, f"{ask.id!r} is no message id, as in 00000001-00000000000000ff"
            )
        queue = self.broker.by_id(int(found[1], 16))
        try:
            queue.stat()
        except QueueNotFoundError as error:
            raise refusal(error) from error  # deleted by another worker, remembered by this one
        if ask.queue and queue.name != ask.queue:
            text = f"message {ask.id} is of queue {queue.name}, not {ask.queue}"
            raise BrokerError(Kind.INVALID, text)
        return queue, int(found[2], 16)

    def group(self, queue: Queue, name: str) -> int:
        """The number of a group that there is; looking makes none. Raises NOT_FOUND."""
        groups = self.broker.groups(queue)
        if name not in groups:
            raise BrokerError(Kind.NOT_FOUND, f"queue {queue.name} has no group {name!r}")
        return groups[name]

    def explain(self, ask: asks.Message) -> Answer:
        try:
            queue, offset = self.message(ask)
        except BrokerError as error:
            if error.kind is not Kind.NOT_FOUND or not ask.id:
                raise
            # An id is of a queue that there was: ids are never given twice.
            return {"reason": "deleted", "deliverable": False, "facts": {},
                    "text": f"Message {ask.id}: {REASONS['deleted']}."}
        answer = explain(self.look, queue, ask.group, self.group(queue, ask.group), offset)
        return {"id": f"{queue.id:08x}-{offset:016x}", **answer._asdict()}

    def find(self, ask: asks.Find) -> Answer:
        queue = self.broker.open(ask.queue, create=False)
        low, high = self.reach(queue, ask)
        if ask.id:
            _, offset = self.message(asks.Message(queue=ask.queue, id=ask.id))
            low, high = max(low, offset), min(high, offset + 1)
        wanted = self.wanted(ask)
        start = low if ask.cursor is None else max(low, ask.cursor)
        found: list[int] = []
        damaged = steps = 0
        at, end = start, high
        while steps < SEARCH_STEPS and len(found) < ask.limit:
            more, at, end, lost = self.look.search(
                queue.id, at, high, limit=ask.limit - len(found), **wanted
            )
            found += more
            damaged += lost
            steps += 1
            if at >= end:
                break
        messages = [row for row in (self.row(queue, one, ask.body_bytes) for one in found) if row]
        return {
            "messages": messages, "searched": max(0, at - low), "of": max(0, end - low),
            "damaged": damaged, "next": at if at < end else None,
        }

    def reach(self, queue: Queue, ask: asks.Find) -> tuple[int, int]:
        """The offsets that the asked range of offsets and times leaves."""
        low, high = ask.from_offset, asks_end(ask.to_offset)
        if ask.since_us is not None:
            low = max(low, queue.offset_at(ask.since_us))
        if ask.until_us is not None:
            high = min(high, queue.offset_at(ask.until_us))
        return max(low, queue.stat()["first"]), high

    def wanted(self, ask: asks.Find) -> Answer:
        """What the engine is asked for."""
        attributes = Attributes(
            tag=ask.tag, key=ask.key, routing_key=ask.routing_key, id=ask.message_id,
            correlation=ask.correlation, properties=ask.properties,
        )
        return {"attributes": attributes.pack(), "text": ask.text.encode(),
                "tag": hash32(ask.tag), "key": hash32(ask.key)}

    def row(self, queue: Queue, offset: int, body_bytes: int) -> Answer | None:
        """What a list says of one message; None if it was purged or damaged meanwhile."""
        batch = queue.read(offset=offset, max_messages=1)
        if not len(batch) or int(batch.offsets[0]) != offset:
            return None
        body = bytes(batch[0][:body_bytes])
        row: Answer = {"id": f"{queue.id:08x}-{offset:016x}", "offset": offset,
                       "stored_us": int(batch.timestamps[0]), "size": int(batch.sizes[0])}
        carried = batch.attributes(0)
        for name in ("tag", "key", "routing_key", "reply_to", "correlation"):
            if value := getattr(carried, name):
                row[name] = value
        if carried.id:
            row["message_id"] = carried.id
        if carried.properties:
            row["properties"] = dict(carried.properties)
        if len(body) < row["size"]:
            row["cut"] = True
        try:
            row["body"] = body.decode()
        except UnicodeDecodeError:
            row["body_base64"] = base64.b64encode(body).decode()
        return row

    def trace(self, ask: asks.Trace) -> Answer:
        queue, offset = self.message(ask)
        names = {number: name for name, number in self.broker.groups(queue).items()}
        events: list[Answer] = []
        at, skipped = ask.cursor, 0
        start = self.look.message(queue.id, 0, offset)["position"]
        for step in range(TRACE_STEPS):
            records, at, end, visible_us, lost = self.look.trace(queue.id, offset, at)
            skipped += lost
            told = (event(record, queue.id, offset) for record in records)
            events += [self.named(one, names) for one in told if one]
            if step == 0 and not ask.cursor and start < end:
                # It was on disk before the first frame that says so was written.
                events.insert(1, {"what": "visible", "time_us": visible_us or None})
            if at >= end or len(events) >= 1000:
                break
        size = self.broker.store.segment_size
        now = {
            name: self.look.message(queue.id, group, offset)["state"]
            for group, name in names.items()
        }
        return {
            "id": f"{queue.id:08x}-{offset:016x}", "queue": queue.name, "offset": offset,
            "events": events, "now": now, "searched": apart(start, at, size),
            "of": apart(start, end, size), "skipped": skipped, "next": at if at < end else None,
        }

    def named(self, one: Answer, names: dict[int, str]) -> Answer:
        """An event with its group's and queue's name beside the number; they may be gone."""
        if "group_id" in one:
            one["group"] = names.get(one["group_id"])
        if "queue_id" in one:
            try:
                one["queue"] = self.broker.by_id(one["queue_id"]).name
            except BrokerError:
                one["queue"] = None
        return one

    def lag(self, ask: asks.Lag) -> Answer:
        rows: list[Answer] = []
        following = 0
        if ask.queue:
            queue = self.broker.open(ask.queue, create=False)
            groups = self.broker.groups(queue)
            if ask.group is not None:
                groups = {ask.group: self.group(queue, ask.group)}
            rows = [
                self.behind(queue.name, name, queue.id, group) for name, group in groups.items()
            ]
        else:
            found, following = self.look.groups(ask.cursor, ask.limit)
            for queue_name, name, queue_id, group, _ in found:
                try:
                    rows.append(self.behind(queue_name, name, queue_id, group))
                except EngineError:
                    continue  # deleted meanwhile
        return {"groups": rows, "next": following or None}

    def overview(self, room: int) -> tuple[list[Answer], int]:
        """Up to room groups, and how many more there are. Without rates: it may be asked often."""
        rows: list[Answer] = []
        found, _ = self.look.groups(0, room)
        now_us = self.look.now_us()
        for queue, name, queue_id, group, _ in found:
            try:
                lag = self.look.lag(queue_id, group)
            except EngineError:
                continue  # deleted meanwhile
            rows.append({"queue": queue, "group": name, **lag, "oldest_age_s": age_s(lag, now_us)})
        return rows, max(0, self.broker.store.stat()["groups"] - len(found))

    def behind(self, queue: str, name: str, queue_id: int, group: int) -> Answer:
        """One group's lag, the age of its oldest message, and its rates since the look before."""
        lag = self.look.lag(queue_id, group)
        now_us = self.look.now_us()
        return {
            "queue": queue, "group": name, "lag": lag["lag"], "ready": lag["ready"],
            "in_flight": lag["in_flight"], "oldest": lag["oldest"],
            "oldest_age_s": age_s(lag, now_us),
            **self.rates.look(queue_id, group, now_us, lag),
        }

    def rewind(self, ask: asks.Rewind) -> Answer:
        queue = self.broker.open(ask.queue, create=False)
        if ask.group:
            self.group(queue, ask.group)
        if ask.shadow:
            checked(ask.shadow)
        return rewind(self.look, queue.group(ask.group), ask)


def asks_end(offset: int | None) -> int:
    """The end of a range of which none was given."""
    return (1 << 63) - 1 if offset is None else offset


def age_s(lag: Answer, now_us: int) -> float | None:
    """The age of the oldest message that is not confirmed."""
    return None if lag["oldest"] is None else max(0, now_us - lag["oldest_us"]) / 1e6


def apart(low: int, high: int, segment_size: int) -> int:
    """The bytes of the log from one position to another."""
    return ((high >> 32) - (low >> 32)) * segment_size + (high & 0xFFFFFFFF) - (low & 0xFFFFFFFF)
