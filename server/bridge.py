"""Blocking engine calls from an event loop: the one place where threads and the loop meet."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from penstock.server.broker.errors import BrokerError, Kind

P = ParamSpec("P")
R = TypeVar("R")


class Bridge:
    """A few threads for calls that may wait for the disk; the loop itself never does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, threads: int = 4) -> None:
        self.loop = loop
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="penstock")

    def call(
        self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[R]:
        """Run the function on a thread; await the result. Raises SHUTTING_DOWN after close."""
        try:
            return self.loop.run_in_executor(self.pool, lambda: function(*args, **kwargs))
        except RuntimeError as error:
            raise BrokerError(Kind.SHUTTING_DOWN, "the server is stopping") from error

    def close(self) -> None:
        """Wait for the calls under way."""
        self.pool.shutdown(wait=True)
