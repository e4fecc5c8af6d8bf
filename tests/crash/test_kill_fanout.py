"""A process is killed amid fan-outs and notes while another has the store open: all or nothing."""

import os
import random
import signal
import time
from itertools import count
from pathlib import Path

from engine_language import crashed, messages, opened, quiet, started

QUEUES = [f"q{n}" for n in range(200)]


def work(path: str, seed: int) -> None:
    with opened(Path(path), durability="kernel") as store:
        queues = [store.queue(name) for name in QUEUES]
        for n in count():
            store.fanout(queues, b"%d %d" % (seed, n))
            name = f"n{n % 7}"
            store.note(name, None if n % 5 == 4 else b"%d" % n * (n % 900))


def test_whoever_goes_on_finds_all_of_a_fan_out_or_none(tmp_path: Path) -> None:
    rng = random.Random(1)
    with quiet(opened(tmp_path / "s", durability="kernel")) as store:
        queues = [store.queue(name) for name in QUEUES]
        for seed in range(12):
            process = started(work, str(tmp_path / "s"), seed)
            before = store.stat()["written"]
            while store.stat()["written"] < before + rng.randrange(1 << 12, 1 << 17):
                time.sleep(0.001)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            # The next holder of the locks puts right what was left.
            store.fanout(queues, b"after %d" % seed)
            store.note("last", b"%d" % seed)
            store._flush()
            assert len({queue.stat()["next"] for queue in queues}) == 1
            assert store.notes()["last"] == b"%d" % seed
        expected = messages(queues[0])
        assert all(messages(queue) == expected for queue in queues[::40])
        notes = store.notes()
        with opened(crashed(store, tmp_path / "crash")) as after:
            assert after.notes() == notes
            assert messages(after.queue(QUEUES[-1])) == expected
