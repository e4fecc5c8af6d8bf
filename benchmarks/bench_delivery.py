"""Taking under a lease and confirming, releasing and rewinding."""

from .stores import Prepared

COUNT = 100_000


class Delivery(Prepared):
    params = [1, 32, 1000]
    param_names = ("batch",)

    def setup(self, batch):
        self.prepare(COUNT)
        self.consumer = self.queue.group("bench")

    def take(self, batch):
        found = self.consumer.receive(batch, lease_ms=600_000)
        if not len(found):
            self.consumer.seek(offset=0)
            found = self.consumer.receive(batch, lease_ms=600_000)
        return found

    def time_receive_confirm(self, batch):
        self.consumer.confirm(self.take(batch).receipts)

    def time_receive_release(self, batch):
        self.consumer.release(self.take(batch).receipts)

    def time_extend(self, batch):
        receipts = self.take(batch).receipts
        self.consumer.extend(receipts, lease_ms=600_000)
        self.consumer.release(receipts)

    def time_seek_to_the_start(self, batch):
        self.consumer.seek(offset=0)

    def track_fsyncs_per_confirm(self, batch):
        return self.each("fsyncs", batch)

    def track_bytes_per_confirm(self, batch):
        return self.each("bytes_written", batch)

    track_fsyncs_per_confirm.unit = "fdatasyncs"
    track_bytes_per_confirm.unit = "bytes"

    def each(self, what, batch, count=50):
        before = self.spent(what)[0]
        for _ in range(count):
            self.consumer.confirm(self.take(batch).receipts)
        return (self.spent(what)[0] - before) / count
