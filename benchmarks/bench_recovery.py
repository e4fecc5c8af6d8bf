"""Opening: after a clean close, and after a process was killed with so much retained."""

import os
import shutil
import signal
import tempfile
from pathlib import Path

from penstock.engine import Store

from .disk import PREFIX, folder
from .stores import SIZE, bodies


class Recovery:
    params = [10_000, 200_000]
    param_names = ("retained",)
    # Each opening needs a store that was killed anew.
    number = 1
    repeat = 5
    rounds = 1
    warmup_time = 0
    timeout = 300

    def setup(self, retained):
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder()))
        child = os.fork()
        if child == 0:
            try:
                store = Store.open(self.folder / "store")
                queue = store.queue("bench")
                batch = bodies(1000, SIZE)
                for _ in range(retained // 1000):
                    queue.append_many(batch, durability="kernel")
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)

    def teardown(self, retained):
        shutil.rmtree(self.folder)

    def time_open_after_kill(self, retained):
        Store.open(self.folder / "store").close()

    def track_retained(self, retained):
        """What recovery found: fewer would make the time above worth nothing."""
        with Store.open(self.folder / "store") as store:
            return store.queue("bench").stat()["visible"]

    track_retained.unit = "messages"
