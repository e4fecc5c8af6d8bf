"""What waited for topics is fanned out the moment it is due, by a thread of one worker."""

import sys
import threading
import traceback

from penstock.server.broker.broker import Broker
from penstock.server.broker.topic_later import LaterTopics

# So often it is looked whether the server stops.
LOOK_MS = 250
TROUBLE_S = 1.0


class Fanner:
    """The thread. It sleeps until something is due for a topic, whatever else arrives."""

    def __init__(self, broker: Broker) -> None:
        self.later = LaterTopics(broker)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run, name="penstock-fanner", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Returns when it has ended."""
        self.stopping.set()
        if self.thread.is_alive():
            self.thread.join()

    def run(self) -> None:
        """Until stopped."""
        while not self.stopping.is_set():
            try:
                if not self.later.turn():
                    self.later.rest(LOOK_MS)
            except Exception:
                # A store that is full may have room again; the doors stay open meanwhile.
                traceback.print_exc(file=sys.stderr)
                self.stopping.wait(TROUBLE_S)
