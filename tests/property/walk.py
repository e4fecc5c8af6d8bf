"""Let a machine of this folder walk so many steps, in several processes with seeds of their own.

    python tests/property/walk.py [broker | waiting] [--steps N] [--jobs N] [--seed N]

A failure is told with the seed of its round, which alone walks it again: --seed THAT --steps 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import sys
import time
import traceback
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "build/names"), str(ROOT / "tests")]

from hypothesis import HealthCheck, Phase, seed, settings  # noqa: E402
from hypothesis.stateful import (  # noqa: E402
    RuleBasedStateMachine,
    invariant,
    run_state_machine_as_test,
)

SETTINGS = {
    "database": None, "deadline": None, "suppress_health_check": list(HealthCheck),
}
settings.register_profile("engine", **SETTINGS)

from test_broker_model import Brokered  # noqa: E402
from test_waiting_model import Schedule  # noqa: E402

MACHINES: dict[str, type[RuleBasedStateMachine]] = {"broker": Brokered, "waiting": Schedule}
LENGTH = 1000       # steps of one machine at most: hypothesis ends most of them before that
ROUND = 50          # machines that have one seed
APART = 1_000_000   # the seeds of two processes
TELL_S = 60.0


def counting(kind: type[RuleBasedStateMachine],
             steps: Synchronized[int]) -> type[RuleBasedStateMachine]:
    """The machine, which counts each of its steps."""

    class Counted(kind):  # type: ignore[misc, valid-type]
        begun = False

        @invariant()
        def stepped(self) -> None:
            if self.begun:
                with steps.get_lock():
                    steps.value += 1
            self.begun = True

    return Counted


def walk(name: str, first: int, wanted: int, steps: Synchronized[int],
         failed: Synchronized[int]) -> None:
    """Walk round after round until there are as many steps as are wanted."""
    machine = counting(MACHINES[name], steps)
    chosen = settings(max_examples=ROUND, stateful_step_count=LENGTH,
                      phases=[Phase.generate, Phase.shrink], **SETTINGS)
    number = first
    while steps.value < wanted and not failed.value:
        try:
            run_state_machine_as_test(seed(number)(machine), settings=chosen)
        except BaseException:
            failed.value = 1
            print(f"FAILED in the round of seed {number}:\n{traceback.format_exc()}", flush=True)
            return
        number += 1


def main() -> int:
    """Walk, and say how far that was; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("machine", nargs="?", choices=[*MACHINES], default="broker")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    steps: Synchronized[int] = multiprocessing.Value("q", 0)
    failed: Synchronized[int] = multiprocessing.Value("i", 0)
    began = time.monotonic()
    processes = [
        multiprocessing.Process(
            target=walk,
            args=(options.machine, options.seed + job * APART, options.steps, steps, failed))
        for job in range(options.jobs)
    ]
    for process in processes:
        process.start()

    def tell() -> None:
        print(f"{steps.value:,} steps of the {options.machine} model, "
              f"{time.monotonic() - began:,.0f} s", flush=True)

    told = began
    while any(process.is_alive() for process in processes):
        for process in processes:
            process.join(0.2)
        if time.monotonic() - told > TELL_S:
            told = time.monotonic()
            tell()
    tell()
    bad = failed.value or any(process.exitcode for process in processes)
    print(f"{'FAILED' if bad else 'none failed'}; seeds from {options.seed}, "
          f"{APART} apart, {options.jobs} processes")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
