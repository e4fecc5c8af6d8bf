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


class SendHttp(Loopback):
    params = ["64x1", "8x4x1000"]
    param_names = ("load",)

    def track_rate(self, load):
        return self.server.bench("send", "--http", self.server.http, *LOADS[load],
                                 "--seconds", SECONDS)["rate"]

    track_rate.unit = "messages/s"


class ReceiveHttp(Loopback):
    params = [1, 32]
    param_names = ("batch",)

    def track_rate(self, batch):
        self.server.bench("send", "--tcp", self.server.tcp, "--connections", 2, "--batch", 1000,
                          "--in-flight", 4, "--durability", "kernel", "--count", 200_000)
        return self.server.bench("receive", "--http", self.server.http, "--batch", batch,
                                 "--connections", 64, "--seconds", SECONDS)["rate"]

    track_rate.unit = "messages/s"


class OpenLoop(Loopback):
    """Latency at a rate that is given, from when each request was due: no stall is hidden."""

    params = [1000, 10_000, 50_000]
    param_names = ("rate",)

    def track_p99(self, rate):
        return self.send(rate)["p99_us"]

    def track_p999(self, rate):
        return self.send(rate)["p999_us"]

    def send(self, rate):
        return self.server.bench("send", "--tcp", self.server.tcp, "--rate", rate,
                                 "--seconds", SECONDS)

    track_p99.unit = track_p999.unit = "µs"
