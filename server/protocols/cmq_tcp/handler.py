"""What a CMQ connection asks of the broker, not of the lane. Runs on threads."""

import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from threading import Lock
from typing import TypeVar

from penstock.engine.attributes import Attributes
from penstock.engine.errors import EngineError
from penstock.server._wire import (
    CmqConnection,
    CmqShared,
    MessageNames,
    proto_field,
    proto_fields,
)
from penstock.server.broker.access import Keys
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.attributes import Rules
from penstock.server.broker.cmq.faults import CmqError, Fault, fault_of
from penstock.server.broker.cmq.queues import CmqQueues
from penstock.server.broker.cmq.topics import CmqTopics
from penstock.server.broker.errors import BrokerError, refusal
from penstock.server.broker.producers import Check, Member
from penstock.server.broker.transaction import CheckBack
from penstock.server.protocols.cmq_tcp.admission import Admission
from penstock.server.protocols.cmq_tcp.verdicts import Verdicts

AUTH, PUBLISH, BATCH_PUBLISH, CONFIRM = 1020, 1027, 1028, 1041
MESSAGE_IDS = 29
GROUP = "cmq:"
LARGEST = 1 << 30
T = TypeVar("T")
Fields = list[tuple[int, int | bytes]]
# A result, its text, and the further fields of the reply.
Answer = tuple[int, str, bytes]
# What CmqShared.put takes.
Known = tuple[int, bytes, int, int, int, int, bool, int, bytes, int | None]
# The version of the notes, the queues' numbers, what each message carries, the largest body, the
# topic's own queue.
Way = tuple[int, list[int], bytes, int, int]


class Handler:
    """The rare requests, and what a request has to know about its queue.

    Invariants:
      1. members[connection] are the places of a live connection among the producers, one for each
         queue that it prepared a half for; a connection that is lost has none.
    """

    def __init__(self, broker: Broker, keys: Keys, rules: Rules, names: MessageNames) -> None:
        self.broker = broker
        self.names = names
        self.rules = rules
        self.admission = Admission(keys)
        self.queues = CmqQueues(broker, rules)
        self.topics = CmqTopics(broker, rules, names)
        self.verdicts = Verdicts(broker)
        self.members: dict[CmqConnection, list[Member]] = {}
        self.lock = Lock()
        # Set by the door.
        self.shared: CmqShared
        self.soon: Callable[..., object]

    def resolve(self, connection: CmqConnection, name: bytes) -> Known | tuple[int, str]:
        """What the requests for a queue have to know, or the result for one that is not there."""
        try:
            return self.guarded(partial(self.known, name))
        except CmqError as error:
            return error.fault.module, error.text

    def register(self, connection: CmqConnection, name: bytes) -> int | tuple[int, str]:
        """Make the connection a producer of the queue's halves; the queue's number."""
        try:
            return self.guarded(partial(self.join, connection, name))
        except CmqError as error:
            return error.fault.module, error.text

    def route(self, connection: CmqConnection, member: bytes) -> Way | None | tuple[int, str]:
        """Where what is published so goes; None if that is to be found out for each message."""
        try:
            return self.guarded(partial(self.way, member))
        except CmqError as error:
            return error.fault.module, error.text

    def answer(self, connection: CmqConnection, command: int, member: bytes) -> Answer:
        """The reply to a request that the lane does not answer."""
        try:
            return self.guarded(partial(self.asked, connection, command, member))
        except CmqError as error:
            return error.fault.module, error.text, b""

    def lost(self, connection: CmqConnection) -> None:
        """The connection is asked for nothing any more."""
        with self.lock:
            members = self.members.pop(connection, [])
        for member in members:
            member.leave()

    def guarded(self, call: Callable[[], T]) -> T:
        """What the call returns; whatever it raises comes out as a CmqError."""
        try:
            return call()
        except CmqError:
            raise
        except BrokerError as error:
            raise fault_of(error) from error
        except EngineError as error:
            raise fault_of(refusal(error)) from error
        except Exception as error:
            # A bug of ours must cost one request, not the connection of a stranger.
            traceback.print_exc(file=sys.stderr)
            raise CmqError(Fault.INTERNAL) from error

    def known(self, name: bytes) -> Known:
        version = self.broker.store.notes_version()
        queue, _, defaults = self.queues.find(text_of(name))
        back = CheckBack(defaults.check_after_ms, defaults.check_every_ms, defaults.checks)
        room = None
        if defaults.messages:
            stat = queue.stat()
            room = defaults.messages - stat["ready"] - stat["in_flight"]
        half = Attributes(producer_group=group_of(name), check_back=back.text)
        return (version, name, queue.id, defaults.lease_ms, defaults.wait_ms,
                min(defaults.message_bytes, LARGEST), defaults.transactions,
                defaults.check_after_ms, half.pack(), room)

    def join(self, connection: CmqConnection, name: bytes) -> int:
        number = self.queues.find(text_of(name)).queue.id
        member = self.broker.producers.join(group_of(name), partial(self.ask, connection, name))
        with self.lock:
            self.members.setdefault(connection, []).append(member)
        return number

    def ask(self, connection: CmqConnection, name: bytes, check: Check) -> bool:
        """Let the client at the other end say what became of a half."""
        message = check.attributes.id
        if connection not in self.members or not message.isdecimal():
            return False
        self.shared.know_half(int(message), check.id, check.queue_id)
        self.soon(connection.query, name, int(message))
        return True

    def asked(self, connection: CmqConnection, command: int, member: bytes) -> Answer:
        fields = fields_of(member)
        if command == AUTH:
            result, text = self.admission.admit(connection.admitted, connection.peer, fields)
            if result == 0:
                connection.key = self.admission.key(fields)
            return result, text, b""
        if command == CONFIRM:
            self.verdicts.decide(fields)
            return 0, "", b""
        return 0, "", self.publish(command, fields, connection.key)

    def way(self, member: bytes) -> Way | None:
        name, _, tags, key = published(fields_of(member))
        return self.topics.way(name, tags, key)

    def publish(self, command: int, fields: Fields, signed: int = 0) -> bytes:
        """Store the messages in every queue whose subscription wants them; their ids."""
        name, bodies, tags, key = published(fields)
        if command == PUBLISH:
            bodies = bodies[-1:]
        self.topics.admit(name, bodies, signed)
        ids = self.topics.publish(name, bodies, tags, key, time.time_ns() // 1000)
        return b"".join(proto_field(MESSAGE_IDS, one) for one in ids)


def published(fields: Fields) -> tuple[str, list[bytes], list[str], str]:
    """Topic, bodies, tags and routing key of what is published."""
    found: dict[int, list[bytes]] = {1: [], 2: [], 3: [], 4: []}
    for number, value in fields:
        if number in found:
            if not isinstance(value, bytes):
                raise CmqError(Fault.UNREADABLE)
            found[number].append(value)
    if not found[1]:
        raise CmqError(Fault.MISSING)
    tags = [text_of(tag) for tag in found[3]]
    return text_of(found[1][-1]), found[2], tags, text_of((found[4] or [b""])[-1])


def fields_of(message: bytes) -> Fields:
    try:
        return proto_fields(message)
    except ValueError as error:
        raise CmqError(Fault.UNREADABLE) from error


def group_of(name: bytes) -> str:
    """The producers that are asked about the halves of a queue."""
    return GROUP + text_of(name)


def text_of(raw: bytes) -> str:
    """The text; UNREADABLE if it is no UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CmqError(Fault.UNREADABLE) from error
