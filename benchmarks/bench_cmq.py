"""CMQ over TCP and HTTP, loaded by the compiled generator: rates and CPU of the hot commands."""

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
HTTP_LOADS = {
    "send": ("send", "--connections", 64),
    "send-16": ("send", "--connections", 64, "--batch", 16),
    "receive": ("receive", "--connections", 64),
    "receive-16": ("receive", "--connections", 64, "--batch", 16),
}
FILLED = 400_000


def loaded(server, words, door, filled=FILLED):
    """The figures of a load; what is received was sent before, over the native protocol."""
    # The first send makes the queue.
    server.bench("send", "--tcp", server.tcp, "--queue", QUEUE, "--connections", 4,
                 "--in-flight", 4, "--batch", 1000, "--durability", "kernel",
                 "--count", filled if words[0] == "receive" else 1000)
    return server.bench(*words, *door, "--queue", QUEUE, "--seconds", SECONDS)


class _Cmq:
    """track_ and not time_: a figure is of a load of seconds, not of one call."""

    timeout = 120

    def setup(self, load):
        self.server = Serving("--cmq-tcp", "127.0.0.1:0")

    def teardown(self, load):
        self.server.close()

    def track_rate(self, load):
        return self.loaded(load)["rate"]

    def track_cpu_per_million(self, load):
        before = self.server.cpu_seconds()
        figures = self.loaded(load)
        return (self.server.cpu_seconds() - before) / figures["acknowledged"] * 1e6

    track_rate.unit = "messages/s"
    track_cpu_per_million.unit = "seconds"


class CmqTcp(_Cmq):
    params = list(LOADS)
    param_names = ("load",)

    def loaded(self, load):
        return loaded(self.server, LOADS[load], ("--cmq-tcp", self.server.cmq))


class CmqHttp(_Cmq):
    """64 connections, one request in flight on each, as its clients have it."""

    params = list(HTTP_LOADS)
    param_names = ("load",)

    def loaded(self, load):
        return loaded(self.server, HTTP_LOADS[load], ("--cmq-http", self.server.http), 200_000)
