"""A native connection for every socket that is accepted."""

from penstock.server._wire import Connection, Hub
from penstock.server.broker.broker import Broker
from penstock.server.protocols.native.handler import Handler


class NativeDoor:
    """Called by the loop once a connection; returns its protocol."""

    def __init__(self, hub: Hub, broker: Broker) -> None:
        self.hub = hub
        self.handler = Handler(broker)

    def __call__(self) -> Connection:
        return Connection(self.hub, self.handler)
