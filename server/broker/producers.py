"""Who can be asked for a verdict: the live producers of this worker, by group."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from penstock.engine.attributes import Attributes, unpack
from penstock.server.broker.topic_facts import LATER


class Check(NamedTuple):
    """A half whose producers shall say what became of it.

    The answer is Transactions.commit(id) or rollback(id), by whoever and over whatever wire;
    no answer is asked again. ext is attributes if attributed, else what the sender put there.
    """

    id: int
    queue: str
    queue_id: int
    group: str
    body: bytes
    ext: bytes
    attributed: bool
    stored_us: int
    checks: int

    @property
    def attributes(self) -> Attributes:
        """What the half carries."""
        return unpack(self.ext) if self.attributed else Attributes()

    @property
    def target(self) -> str:
        """The name of the queue, or of the topic: what is to be published waits in one of its."""
        return self.queue.removesuffix(LATER)

    @property
    def text_id(self) -> str:
        """Its id as SendReceipt.id has it."""
        return f"{self.queue_id:08x}-p{self.id:015x}"


Ask = Callable[[Check], bool]


class Member:
    """One producer's place in its group; leave() gives it up."""

    def __init__(self, producers: "Producers", group: str, ask: Ask) -> None:
        self.producers = producers
        self.group = group
        self.ask = ask

    def leave(self) -> None:
        """Be asked no more; leaving twice is leaving once."""
        self.producers.leave(self)


class Producers:
    """The producers that adapters have a live connection to. Any thread may call.

    Invariants:
      1. members[group] is there exactly while it is not empty.
      2. Whoever was asked last stands last: the members of a group are asked in turn.
    """

    def __init__(self) -> None:
        self.members: dict[str, OrderedDict[Member, None]] = {}
        self.lock = Lock()

    def join(self, group: str, ask: Ask) -> Member:
        """Let a producer be asked for the verdicts of its group, "" being a group as well.

        ask is called on a thread of the broker with a Check and must not take long: an adapter
        hands it to its loop. True: it goes to the producer; False: somebody else shall be asked.
        """
        member = Member(self, group, ask)
        with self.lock:
            self.members.setdefault(group, OrderedDict())[member] = None
        return member

    def leave(self, member: Member) -> None:
        """Give up a place."""
        with self.lock:
            others = self.members.get(member.group)
            if others is not None and member in others:
                del others[member]
                if not others:
                    del self.members[member.group]

    def groups(self) -> list[str]:
        """The groups that have a live producer here."""
        with self.lock:
            return list(self.members)

    def hand(self, check: Check) -> bool:
        """Ask one producer of the check's group; False if none of them could be."""
        with self.lock:
            turn = list(self.members.get(check.group, ()))
        for member in turn:
            with self.lock:
                if member not in self.members.get(check.group, ()):
                    continue
                self.members[check.group].move_to_end(member)
            if member.ask(check):
                return True
        return False
