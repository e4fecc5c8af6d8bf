"""What becomes of halves whose message this worker does not know by heart."""

from penstock.engine.attributes import unpack
from penstock.engine.errors import EngineError, InvalidError
from penstock.server._wire import proto_fields
from penstock.server.broker.broker import Broker
from penstock.server.broker.cmq.faults import CmqError, Fault
from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.transaction import Transactions

COMMIT, ROLLBACK = 1, 2
LOOKED_AT_ONCE = 1000
LOOKED_AT = 100_000


class Verdicts:
    """CONFIRM after a restart, or over another connection than the half's."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.transactions = Transactions(broker)

    def decide(self, fields: list[tuple[int, int | bytes]]) -> None:
        """Commit or roll back what the items name. A verdict said twice counts once."""
        name, items = read(fields)
        known = self.find(name, set(items))
        failed = None
        for message, state in items.items():
            try:
                if message not in known:
                    raise CmqError(Fault.MESSAGE_ID, str(message))
                if state == COMMIT:
                    self.transactions.commit(known[message])
                else:
                    self.transactions.rollback(known[message])
            except BrokerError as error:
                missing = error.kind is Kind.NOT_FOUND
                failed = CmqError(Fault.MESSAGE_ID if missing else Fault.CONFIRM, error.text)
            except CmqError as error:
                failed = error
        if failed is not None:
            raise failed

    def find(self, name: str, wanted: set[int]) -> dict[int, int]:
        """The engine's numbers of the queue's halves with those ids, as far as there are any."""
        queue = self.broker.open(name, create=False)
        pending = self.broker.store.pending
        found: dict[int, int] = {}
        after, looked = None, 0
        while len(found) < len(wanted) and looked < LOOKED_AT:
            page = pending.list(queue, state="half", limit=LOOKED_AT_ONCE, after=after)
            for one in page:
                message = self.message(one.id)
                if message in wanted:
                    found[message] = one.id
            if len(page) < LOOKED_AT_ONCE:
                break
            after = page[-1]
            looked += len(page)
        return found

    def message(self, pending: int) -> int:
        """The id that a half's producer was told; 0 if it is none of CMQ's, or gone."""
        try:
            _, ext, attributed = self.broker.store.pending.read(pending)
            carried = unpack(ext).id if attributed else ""
        except (EngineError, InvalidError):
            return 0
        return int(carried) if carried.isdecimal() else 0


def read(fields: list[tuple[int, int | bytes]]) -> tuple[str, dict[int, int]]:
    """The queue and {message: state} of a CONFIRM."""
    name, items = None, {}
    try:
        for number, value in fields:
            if number == 1 and isinstance(value, bytes):
                name = value.decode()
            elif number == 2 and isinstance(value, bytes):
                item = dict(proto_fields(value))
                message, state = item.get(1), item.get(2)
                if not isinstance(message, int) or state not in (COMMIT, ROLLBACK):
                    raise CmqError(Fault.OUT_OF_RANGE, "state is 1 or 2")
                items[message] = int(state)
    except ValueError as error:
        raise CmqError(Fault.UNREADABLE) from error
    if name is None or not items:
        raise CmqError(Fault.MISSING)
    return name, items
