"""Schedules: a cron expression in a time zone, and the message that is sent each time.

A schedule is a note. Any number of workers look at it; which of them sends does not matter: the
send has the schedule's own producer id and the firing's second as its number, and is stored once.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from penstock.engine.attributes import Attributes
from penstock.engine.errors import ConflictError, EngineError
from penstock.server.broker.broker import Broker, checked
from penstock.server.broker.errors import BrokerError, Kind, refusal
from penstock.server.broker.schedule import Schedule
from penstock.server.broker.topic import Topics

Answer = dict[str, Any]
PREFIX = "schedule/"
AHEAD_US = 2_000_000        # a firing of a queue is stored so early, to come exactly then
LATE_US = 60_000_000        # what is later than this was missed
MISSED_LIMIT = 1000
SHOWN = 5
ATTEMPTS = 8
# Trying the same firing again would not help.
LASTING = (Kind.NOT_FOUND, Kind.INVALID, Kind.TOO_LARGE)

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Text = Annotated[str, Meta(max_length=4096)]


class Plan(Struct, forbid_unknown_fields=True, frozen=True):
    """What is sent when. In body, {{time}}, {{unix}} and {{name}} stand for the firing's.

    Exactly one of queue and topic. missed: what becomes of firings while no server ran: skip them,
    send the last one, or all (up to 1,000).
    """

    cron: Annotated[str, Meta(max_length=256)]
    queue: Annotated[str, Meta(max_length=128)] = ""
    topic: Annotated[str, Meta(max_length=128)] = ""
    body: Annotated[str, Meta(max_length=32768)] = ""
    zone: Annotated[str, Meta(max_length=64)] = "UTC"
    missed: Literal["skip", "one", "all"] = "one"
    tag: Text = ""
    key: Text = ""
    routing_key: Text = ""
    properties: dict[Text, Text] = {}


class Noted(Struct, frozen=True):
    """A plan and where it is: when it fires next (0: never), what was stored ahead. The name and
    made_us give it its producer id; made_us is new whenever it is set or resumed."""

    plan: Plan
    made_us: int
    next_us: int
    paused: bool = False
    ahead: int = 0
    ahead_us: int = 0
    last_us: int = 0
    error: str = ""


class Named(Struct, forbid_unknown_fields=True):
    """A schedule by its name."""

    name: Name


class Crons:
    """The schedules of one store.

    Invariants:
      1. What is sent for a firing is sent under (producer of the schedule, second of the firing):
         however many workers or lives send it, it is stored once.
      2. The note says a later time only after what was due is stored.
    """

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.store = broker.store
        self.schedule = Schedule(broker)
        self.topics = Topics(broker)
        self.version = -1
        self.soonest_us = 0
        self.asks: dict[str, Callable[[Answer], Answer]] = {
            "schedule.list": self.list, "schedule.show": self.show, "schedule.set": self.set,
            "schedule.remove": self.remove, "schedule.pause": self.pause,
            "schedule.resume": self.resume,
        }

    def __call__(self, do: str, fields: Answer) -> Answer:
        """The answer. Raises BrokerError; INVALID says which field is wrong."""
        try:
            return self.asks[do](fields)
        except msgspec.ValidationError as error:
            raise BrokerError(Kind.INVALID, f"{do}: {error}") from error
        except EngineError as error:
            raise refusal(error) from error

    def list(self, fields: Answer) -> Answer:
        """All schedules, by name."""
        if fields:
            raise BrokerError(Kind.INVALID, "schedule.list has no fields")
        return {"schedules": [shown(name, noted) for name, noted in sorted(self.all().items())]}

    def show(self, fields: Answer) -> Answer:
        """One schedule and its next firings. Raises NOT_FOUND."""
        name = msgspec.convert(fields, Named).name
        return shown(name, self.noted(name)[0])

    def set(self, fields: Answer) -> Answer:
        """Make a schedule or change it; it goes on from now."""
        given = dict(fields)
        name = checked(msgspec.convert({"name": given.pop("name", "")}, Named).name)
        plan = msgspec.convert(given, Plan)
        self.sensible(plan)
        now_us = self.schedule.now_us()
        known = self.all()
        limit = self.broker.limits.schedules
        if name not in known and len(known) >= limit:
            raise BrokerError(Kind.TOO_LARGE, f"there are {limit} schedules already", limit=limit)

        def change(old: Noted | None) -> Noted:
            paused = old is not None and old.paused
            return Noted(plan, anew_us(old, now_us), next(firings(plan, now_us), 0), paused)

        return shown(name, self.changed(name, change, make=True))

    def remove(self, fields: Answer) -> Answer:
        """A schedule fires no more. Raises NOT_FOUND."""
        name = msgspec.convert(fields, Named).name
        for _ in range(ATTEMPTS):
            noted, version = self.noted(name)
            try:
                self.store.note(PREFIX + name, None, expect=version)
            except ConflictError:
                continue
            self.withdraw(noted)
            return {}
        raise BrokerError(Kind.BUSY, f"schedule {name} is being changed")

    def pause(self, fields: Answer) -> Answer:
        """A schedule fires no more until it is resumed; what it would have sent is not missed."""
        name = msgspec.convert(fields, Named).name
        return shown(name, self.changed(
            name, lambda old: msgspec.structs.replace(kept(old), paused=True)))

    def resume(self, fields: Answer) -> Answer:
        """A paused schedule goes on from now."""
        name = msgspec.convert(fields, Named).name
        now_us = self.schedule.now_us()
        return shown(name, self.changed(name, lambda old: msgspec.structs.replace(
            kept(old), paused=False, made_us=anew_us(old, now_us), ahead=0,
            next_us=next(firings(kept(old).plan, now_us), 0))))

    def turn(self) -> int:
        """Send what is due, on any worker, as often as one likes; how many firings were stored."""
        version = self.store.notes_version()
        now_us = self.schedule.now_us()
        if version == self.version and self.soonest_us > now_us + AHEAD_US:
            return 0
        sent = 0
        soonest_us = now_us + 3600 * 1_000_000
        for name in self.all():
            try:
                noted, at = self.noted(name)
                if noted.paused or not noted.next_us:
                    continue
                after, some = self.fire(name, noted, now_us)
                sent += some
                if after is not noted:
                    self.keep(name, after, at)
                soonest_us = min(soonest_us, after.next_us or soonest_us)
            except (EngineError, BrokerError):
                # Removed meanwhile, or there is no room: seen in the next turn.
                soonest_us = now_us
        self.version, self.soonest_us = version, soonest_us
        return sent

    def keep(self, name: str, after: Noted, version: int) -> None:
        """Note how far a schedule is, unless another worker, or a user, was faster."""
        try:
            self.store.note(PREFIX + name, msgspec.json.encode(after), expect=version)
        except ConflictError:
            found = self.store.noted(PREFIX + name)
            now = msgspec.json.decode(found[0], type=Noted) if found is not None else None
            if now is None or now.paused or now.made_us != after.made_us:
                self.withdraw(after)

    def fire(self, name: str, noted: Noted, now_us: int) -> tuple[Noted, int]:
        """Send what is due of one schedule; where it is then, and how many firings were stored."""
        plan = noted.plan
        horizon = now_us + (AHEAD_US if plan.queue else 0)
        if noted.next_us > horizon:
            return noted, 0
        due = [noted.next_us]
        for at in firings(plan, noted.next_us):
            if at > horizon or len(due) > MISSED_LIMIT:
                break
            due.append(at)
        missed = [at for at in due if at < now_us - LATE_US]
        timely = due[len(missed):]
        if plan.missed == "skip":
            missed = []
        elif plan.missed == "one" and missed:
            missed = [] if timely else missed[-1:]
        sent, ahead, error = 0, noted.ahead, ""
        for at in [*missed, *timely]:
            try:
                ahead = self.send(name, noted, at)
                sent += 1
            except BrokerError as refused:
                if refused.kind not in LASTING:
                    raise
                # The queue is gone: said in the schedule, and tried at the next time.
                error = refused.text
        following = next(firings(plan, max(due[-1], min(now_us, horizon))), 0)
        return msgspec.structs.replace(
            noted, next_us=following, ahead=ahead, ahead_us=due[-1], last_us=due[-1],
            error=error), sent

    def send(self, name: str, noted: Noted, at_us: int) -> int:
        """Store one firing, once; the id of the message if it waits, else 0."""
        plan = noted.plan
        body = rendered(plan, name, at_us).encode()
        attributes = Attributes(
            tag=plan.tag, key=plan.key, routing_key=plan.routing_key, properties=plan.properties)
        identity = hashlib.sha256(f"{name}:{noted.made_us}".encode()).digest()
        producer = int.from_bytes(identity[:8], "little") or 1
        if plan.topic:
            self.topics.send(plan.topic, body, attributes, producer=producer,
                             sequence=at_us // 1_000_000)
            return 0
        receipt = self.schedule.send(
            self.broker.open(plan.queue, create=False), body, attributes, due_us=at_us,
            producer=producer, sequence=at_us // 1_000_000)
        return receipt.pending or 0

    def sensible(self, plan: Plan) -> None:
        """Raise INVALID for what cannot be, NOT_FOUND for a target that is not there."""
        if bool(plan.queue) == bool(plan.topic):
            raise BrokerError(Kind.INVALID, "exactly one of queue and topic is needed")
        if plan.topic:
            self.topics.topic(plan.topic)
        else:
            self.broker.open(plan.queue, create=False)
        if next(firings(plan, self.schedule.now_us()), None) is None:
            raise BrokerError(Kind.INVALID, f"{plan.cron!r} never fires")

    def withdraw(self, noted: Noted) -> None:
        """Cancel what was stored ahead and has not come yet."""
        if noted.ahead and noted.ahead_us > self.schedule.now_us():
            try:
                self.store.pending.cancel(noted.ahead)
            except EngineError:
                return  # it came meanwhile

    def changed(
        self, name: str, change: Callable[[Noted | None], Noted], make: bool = False
    ) -> Noted:
        for _ in range(ATTEMPTS):
            found = self.store.noted(PREFIX + checked(name))
            if found is None and not make:
                raise BrokerError(Kind.NOT_FOUND, f"there is no schedule {name}")
            old = msgspec.json.decode(found[0], type=Noted) if found is not None else None
            new = change(old)
            try:
                self.store.note(PREFIX + name, msgspec.json.encode(new),
                                expect=found[1] if found is not None else 0)
            except ConflictError:
                continue
            if old is not None:
                self.withdraw(old)
            return new
        raise BrokerError(Kind.BUSY, f"schedule {name} is being changed")

    def noted(self, name: str) -> tuple[Noted, int]:
        found = self.store.noted(PREFIX + checked(name))
        if found is None:
            raise BrokerError(Kind.NOT_FOUND, f"there is no schedule {name}")
        return msgspec.json.decode(found[0], type=Noted), found[1]

    def all(self) -> dict[str, Noted]:
        """Every schedule by name."""
        return {name.removeprefix(PREFIX): msgspec.json.decode(value, type=Noted)
                for name, value in self.store.notes(PREFIX).items()}


def firings(plan: Plan, after_us: int) -> Iterator[int]:
    """When a plan fires after a time, in µs since 1970. Raises INVALID.

    A time that the zone leaves out in spring fires when the clock has moved on; one that it has
    twice in autumn fires once, unless the expression says every so many minutes.
    """
    try:
        from cronsim import CronSim, CronSimError  # an extra
    except ImportError:
        text = "this server knows no cron: pip install 'penstock[cron]'"
        raise BrokerError(Kind.INVALID, text) from None
    try:
        zone = ZoneInfo(plan.zone)
    except (KeyError, ValueError, OSError):
        raise BrokerError(Kind.INVALID, f"there is no time zone {plan.zone!r}") from None
    start = datetime.fromtimestamp(after_us // 1_000_000, zone)
    try:
        times = CronSim(plan.cron, start)
    except CronSimError as error:
        raise BrokerError(Kind.INVALID, f"{plan.cron!r} is no cron expression: {error}") from None
    return (int(at.timestamp()) * 1_000_000 for at in times)


def rendered(plan: Plan, name: str, at_us: int) -> str:
    """The body of one firing."""
    at = datetime.fromtimestamp(at_us // 1_000_000, ZoneInfo(plan.zone))
    told = {"{{time}}": at.isoformat(), "{{unix}}": str(at_us // 1_000_000), "{{name}}": name}
    body = plan.body
    for word, value in told.items():
        body = body.replace(word, value)
    return body


def shown(name: str, noted: Noted) -> Answer:
    """What is told of a schedule."""
    row: Answer = {"name": name, **msgspec.to_builtins(noted.plan), "paused": noted.paused}
    following: list[str] = []
    if noted.next_us and not noted.paused:
        times = [noted.next_us]
        for at in firings(noted.plan, noted.next_us):
            if len(times) == SHOWN:
                break
            times.append(at)
        zone = ZoneInfo(noted.plan.zone)
        following = [datetime.fromtimestamp(at // 1_000_000, zone).isoformat() for at in times]
    row |= {"next": following, "last": iso(noted.last_us) if noted.last_us else None}
    if noted.error:
        row["error"] = noted.error
    return row


def iso(at_us: int) -> str:
    return datetime.fromtimestamp(at_us // 1_000_000, timezone.utc).isoformat()


def anew_us(old: Noted | None, now_us: int) -> int:
    """A made_us that this schedule never had: what is sent from now on was not sent before, even
    if it was stored ahead and withdrawn."""
    return max(now_us, old.made_us + 1) if old is not None else now_us


def kept(old: Noted | None) -> Noted:
    assert old is not None
    return old
