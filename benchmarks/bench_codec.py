"""The way from bytes to a record and back, without the disk: sizes from none to a megabyte."""

from .stores import Prepared, bodies


class Codec(Prepared):
    params = [0, 128, 4096, 65536, 1 << 20]
    param_names = ("size",)

    def setup(self, size):
        self.prepare()
        self.body = bodies(1, size)[0]
        self.offset = self.queue.append(self.body, durability="kernel").offset
        self.queue.read(offset=self.offset, max_messages=1).tolist()

    def time_encode(self, size):
        self.queue.append(self.body, durability="kernel")

    def time_decode(self, size):
        self.queue.read(offset=self.offset, max_messages=1, max_bytes=2 << 20)

    def time_decode_copy(self, size):
        self.queue.read(offset=self.offset, max_messages=1, max_bytes=2 << 20).tolist()
