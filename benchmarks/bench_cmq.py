"""CMQ over TCP, loaded by the compiled generator: rates and CPU of the hot commands."""

from .serving import Serving

SECONDS = 2
QUEUE = "bench"
SEND = ("send", "--connections", 8, "--in-flight", 64)
RECEIVE = ("receive", "--connections", 8, "--in-flight", 64)
LOADS = {
    "send": SEND,
    "send-16": (*SEND, "--batch", 16),
    "receive": RECEIVE,
    "receive-16": (*RECEIVE, "--batch", 16),
}
FILLED = 400_000


def loaded(server, load):
    """The figures of a load; what is received was sent before, over the native protocol."""
    words = LOADS[load]
    # The first send makes the queue.
    server.bench("send", "--tcp", server.tcp, "--queue", QUEUE, "--connections", 4,
                 "--in-flight", 4, "--batch", 1000, "--durability", "kernel",
                 "--count", FILLED if words[0] == "receive" else 1000)
    return server.bench(*words, "--cmq-tcp", server.cmq, "--queue", QUEUE, "--seconds", SECONDS)


class CmqTcp:
    """track_ and not time_: a figure is of a load of seconds, not of one call."""

    timeout = 120
    params = list(LOADS)
    param_names = ("load",)

    def setup(self, load):
        self.server = Serving("--cmq-tcp", "127.0.0.1:0")

    def teardown(self, load):
        self.server.close()

    def track_rate(self, load):
        return loaded(self.server, load)["rate"]

    def track_cpu_per_million(self, load):
        before = self.server.cpu_seconds()
        figures = loaded(self.server, load)
        return (self.server.cpu_seconds() - before) / figures["acknowledged"] * 1e6

    track_rate.unit = "messages/s"
    track_cpu_per_million.unit = "seconds"
