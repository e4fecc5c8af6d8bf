"""A CMQ connection for every socket that is accepted."""

from penstock.server._wire import CallRates, CmqConnection, CmqShared, FirstTimes, Hub
from penstock.server.broker.cmq.faults import Fault
from penstock.server.metrics.cmq import REFUSED, TCP, CmqCalls, outcome_of
from penstock.server.protocols.cmq_tcp.handler import Handler

UNAUTHENTICATED, AUTHENTICATED = 306, 307


class CmqDoor:
    """Called by the loop once a connection; returns its protocol."""

    def __init__(
        self, hub: Hub, handler: Handler, firsts: FirstTimes, rates: CallRates, calls: CmqCalls
    ) -> None:
        self.hub = hub
        self.handler = handler
        rules, limits = handler.rules, handler.broker.limits
        self.shared = handler.shared = CmqShared(
            handler.broker.store, texts(), firsts, handler.names, limits.route_names,
            rates, batch=rules.batch, batch_bytes=rules.batch_bytes, delay_s=rules.delay_s,
            wait_s=rules.polling_s[1], parked=limits.cmq_parked)
        calls.add(TCP, self.shared.counted)
        calls.gauges[1:] = [self.shared.waiting, self.shared.connections]
        handler.soon = hub.loop.call_soon_threadsafe

    def __call__(self) -> CmqConnection:
        return CmqConnection(self.hub, self.shared, self.handler)


def texts() -> list[tuple[int, str, int]]:
    """The text of each result, and as what it is counted; of several with one code the first."""
    own = [(UNAUTHENTICATED, Fault.NOT_AUTHENTICATED.text, REFUSED),
           (AUTHENTICATED, Fault.AUTHENTICATED.text, REFUSED)]
    return own + [(fault.module, fault.text, outcome_of(fault.code)) for fault in Fault]
