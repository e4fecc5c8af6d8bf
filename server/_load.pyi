"""The compiled load generator and the sink that shows its ceiling."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, final

class HasFileno(Protocol):
    def fileno(self) -> int: ...

def quantiles(values: Iterable[int], shares: Iterable[float]) -> list[int]: ...
def run(sockets: Sequence[HasFileno], request: bytes, *, mode: Literal["send", "receive"],
        in_flight: int, batch: int, largest_reply: int, seconds: float, warm_up: float,
        limit: int = 0, polling: bool = False,
        cmq: bytes | None = None, http: bool = False, cmq_http: bool = False,
        confirming: object = None, rate: float = 0.0,
        watch: Callable[[int, int, int], None] | None = None,
        histogram: bool = False) -> dict[str, Any]: ...

@final
class Sink:
    def __init__(self, listener: HasFileno, stopper: HasFileno, *,
                 body_size: int = 128) -> None: ...
    def serve(self) -> None: ...
