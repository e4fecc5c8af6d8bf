"""A server over the loopback, loaded by the compiled generator: rates, latencies, CPU."""

from .serving import Serving

SECONDS = 2
LOADS = {
    "64x1": ("--connections", 64),
    "8x64": ("--connections", 8, "--in-flight", 64),
    "8x4x1000": ("--connections", 8, "--in-flight", 4, "--batch", 1000),
}


class Loopback:
    """track_ and not time_: a figure is of a load of seconds, not of one call."""

    timeout = 120

    def setup(self, *_):
        self.server = Serving()

    def teardown(self, *_):
        self.server.close()


class Send(Loopback):
    params = (list(LOADS), ["disk", "kernel"])
    param_names = ("load", "durability")

    def send(self, load, durability):
        return self.server.bench("send", "--tcp", self.server.tcp, *LOADS[load],
                                 "--durability", durability, "--seconds", SECONDS)

    def track_rate(self, load, durability):
        return self.send(load, durability)["rate"]

    def track_p99(self, load, durability):
        return self.send(load, durability)["p99_us"]

    def track_cpu_per_million(self, load, durability):
        before = self.server.cpu_seconds()
        figures = self.send(load, durability)
        return (self.server.cpu_seconds() - before) / figures["acknowledged"] * 1e6

    track_rate.unit = "messages/s"
    track_p99.unit = "µs"
    track_cpu_per_million.unit = "seconds"


class Receive(Loopback):
    params = [1, 32]
    param_names = ("batch",)

    def track_rate(self, batch):
        self.server.bench("send", "--tcp", self.server.tcp, "--connections", 2, "--batch", 1000,
                          "--in-flight", 4, "--durability", "kernel",
                          "--count", 2_000_000 if batch > 1 else 200_000)
        return self.server.bench("receive", "--tcp", self.server.tcp, "--batch", batch,
                                 "--connections", 64 if batch == 1 else 8,
                                 "--in-flight", 1 if batch == 1 else 4,
                                 "--seconds", SECONDS)["rate"]

    track_rate.unit = "messages/s"
