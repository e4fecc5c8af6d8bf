"""Reading what is retained: from the start, from the middle, from a time."""

from .stores import Prepared

COUNT = 100_000


class Read(Prepared):
    params = [1, 100, 1000]
    param_names = ("batch",)

    def setup(self, batch):
        self.prepare(COUNT)
        # The pages are touched here, so that the first sample measures what the others do.
        self.scan(1000)
        self.middle_us = int(self.queue.read(offset=COUNT // 2, max_messages=1).timestamps[0])

    def scan(self, batch, limit=COUNT):
        offset = 0
        while offset < limit:
            found = self.queue.read(offset=offset, max_messages=batch)
            for body in found:
                len(body)
            offset += len(found)

    def time_scan_10000(self, batch):
        self.scan(batch, 10_000)

    def time_read_arrays(self, batch):
        self.queue.read(offset=COUNT // 2, max_messages=batch).sizes.sum()

    def time_read_at_time(self, batch):
        self.queue.read(time_us=self.middle_us, max_messages=batch)

    def time_index(self, batch):
        self.queue.index(COUNT // 2, COUNT // 2 + batch)
