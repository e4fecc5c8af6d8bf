"""What a worker does now and then: each chore has its period, and runs on a thread."""

import asyncio
import sys
import traceback
from collections.abc import Callable
from typing import NamedTuple

from penstock.server.bridge import Bridge


class Chore(NamedTuple):
    """work is called every period_s seconds; it must not take long."""

    period_s: float
    work: Callable[[], object]


async def keep_house(bridge: Bridge, chores: list[Chore]) -> None:
    """Do the chores until cancelled."""
    await asyncio.gather(*(repeat(bridge, chore) for chore in chores))


async def repeat(bridge: Bridge, chore: Chore) -> None:
    while True:
        await asyncio.sleep(chore.period_s)
        try:
            await bridge.call(chore.work)
        except Exception:
            # A chore that fails is tried again; the doors stay open meanwhile.
            traceback.print_exc(file=sys.stderr)
