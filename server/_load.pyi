"""The compiled load generator and the sink that shows its ceiling."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, final

class HasFileno(Protocol):
    def fileno(self) -> int: ...

def quantiles(values: Iterable[int], shares: Iterable[float]) -> list[int]: ...
def run(sockets: Sequence[HasFileno], request: bytes, *, mode: Literal["send", "receive"],
        in_flight: int, batch: int, largest_reply: int, seconds: float, warm_up: float,
        limit: int = 0, polling: bool = False,
        cmq: bytes | None = None) -> dict[str, float]: ...

@final
class Sink:
    def __init__(self, listener: HasFileno, stopper: HasFileno, *,
                 body_size: int = 128) -> None: ...
    def serve(self) -> None: ...
