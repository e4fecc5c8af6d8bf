"""What a message costs, counted and not timed: the series that come out the same on a busy machine.

`make gate` compares the same figures of a call between two commits, and fails if they grew. What
the device takes is not among them: it has neighbours, so the least of several rounds is told.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent / "gate"))

from counting import COUNTERS, Counting, MissingError  # noqa: E402
from works import MESSAGES, WORKS  # noqa: E402


def counted(counter, work, figure):
    """A figure of one message of a work; not a number where this machine cannot count it."""
    counting = Counting(COUNTERS[counter], None, work)
    try:
        counting.round()
        counting.round()
    except MissingError:
        return float("nan")
    return counting.per_call()[figure] / MESSAGES.get(work, 1)


class PerMessage:
    params = list(WORKS)
    param_names = ("work",)
    timeout = 600

    def track_fdatasyncs(self, work):
        return counted("own", work, "fdatasyncs")

    def track_bytes(self, work):
        return counted("own", work, "bytes")

    def track_system_calls(self, work):
        return counted("syscalls", work, "syscalls")

    def track_allocations(self, work):
        return counted("allocations", work, "allocations")

    def track_copied(self, work):
        return counted("copies", work, "copied")

    def track_instructions(self, work):
        return counted("instructions", work, "instructions")

    track_fdatasyncs.unit = "fdatasyncs"
    track_bytes.unit = "bytes"
    track_system_calls.unit = "system calls"
    track_allocations.unit = "allocations"
    track_copied.unit = "bytes"
    track_instructions.unit = "instructions"
