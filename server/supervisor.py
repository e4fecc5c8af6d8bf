"""The parent of several workers: it starts them, starts those again that die, and stops them."""

import os
import signal
import sys
import time
from collections.abc import Callable

SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGCHLD}
READY_LOOK_S = 0.02
BACKOFF_S = 0.1
BACKOFF_LIMIT_S = 10.0
SETTLED_S = 60.0  # a worker that lived so long starts again at once when it dies
IDLE_S = 3600.0


class Supervisor:
    """Keeps count workers alive until told to stop.

    Invariants:
      1. Each index is in living (by process id) or in due (when to start it), never in both; in
         neither once stopping.
      2. Signals are blocked here and taken one by one; a worker unblocks them.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, Callable[[], object]], int],
        ended: Callable[[int, bool], object],
    ) -> None:
        self.count = count
        self.work = work
        self.ended = ended
        self.living: dict[int, int] = {}
        self.due: dict[int, float] = {}
        self.started = [0.0] * count
        self.deaths = [0] * count
        self.serving = False
        self.stopping = False
        self.failed = False

    def run(self, ready: Callable[[], object]) -> int:
        """Start, call ready when all serve, go on until SIGTERM or SIGINT. The exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.reading, self.writing = os.pipe()
        os.set_blocking(self.reading, False)
        for index in range(self.count):
            self.start(index)
        if self.all_serve():
            self.serving = True
            ready()
            while not self.stopping:
                self.turn(self.until_due())
        self.stop()
        while self.living:
            self.turn(IDLE_S)
        return int(self.failed)

    def all_serve(self) -> bool:
        """Whether every worker said that it serves. The first start is not tried twice."""
        serving = 0
        while serving < self.count and not self.stopping and not self.failed:
            self.turn(READY_LOOK_S, first=True)
            try:
                serving += len(os.read(self.reading, self.count))
            except BlockingIOError:
                continue
        return serving >= self.count

    def until_due(self) -> float:
        return max(0.0, min(self.due.values(), default=IDLE_S) - time.monotonic())

    def turn(self, seconds: float, first: bool = False) -> None:
        """Wait for a signal or the time, then do what is due."""
        told = signal.sigtimedwait(SIGNALS, seconds)
        if told is not None and told.si_signo != signal.SIGCHLD:
            self.stop()
        self.reap(first)
        now = time.monotonic()
        for index in [index for index, when in self.due.items() if when <= now]:
            del self.due[index]
            self.start(index)

    def reap(self, first: bool) -> None:
        """Take note of every worker that ended."""
        while self.living:
            worker, status = os.waitpid(-1, os.WNOHANG)
            if worker == 0:
                return
            index = self.living.pop(worker)
            code = os.waitstatus_to_exitcode(status)
            again = not self.stopping and not first
            self.ended(index, again)
            if not again:
                # One that was told before it could listen has served nothing yet.
                self.failed |= code not in (0, -signal.SIGTERM) or not self.stopping
                continue
            self.plan(index, worker, code)

    def plan(self, index: int, worker: int, code: int) -> None:
        """Say when a worker that died is started again: later each time it dies early."""
        lived = time.monotonic() - self.started[index]
        self.deaths[index] = 0 if lived > SETTLED_S else self.deaths[index] + 1
        delay = min(BACKOFF_S * 2 ** max(0, self.deaths[index] - 1), BACKOFF_LIMIT_S)
        self.due[index] = time.monotonic() + delay
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        print(
            f"penstock: worker {worker} {how}, another starts in {delay:.1f} s", file=sys.stderr
        )

    def stop(self) -> None:
        """Start none any more, and tell those that live."""
        self.stopping = True
        self.due.clear()
        for worker in self.living:
            os.kill(worker, signal.SIGTERM)

    def start(self, index: int) -> None:
        """Fork a worker. In the worker itself it does not return."""
        self.started[index] = time.monotonic()
        worker = os.fork()
        if worker:
            self.living[worker] = index
            return
        code = 1
        try:
            os.close(self.reading)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            # Nobody reads what a worker says that was started again.
            code = self.work(index, lambda: self.serving or os.write(self.writing, b"+"))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
