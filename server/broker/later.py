"""When a message shall come, and who is asked about it, as a send of any protocol says it."""

from typing import NamedTuple

from penstock.server.broker.errors import BrokerError, Kind
from penstock.server.broker.transaction import CheckBack

DEFAULT = CheckBack()


class Later(NamedTuple):
    """When it comes, and whether it is a half whose producers can be asked about it."""

    delay_ms: int | None = None
    due_us: int | None = None
    half: bool = False
    producer_group: str = ""
    check_back: CheckBack = DEFAULT

    @property
    def waits(self) -> bool:
        """Whether anything is said of it."""
        return self != AT_ONCE


AT_ONCE = Later()


def later_of(
    delay_ms: int | None = None, due_us: int | None = None, half: int = 0,
    producer_group: str | None = None, first_check_ms: int | None = None,
    check_interval_ms: int | None = None, checks: int | None = None,
) -> Later:
    """What the fields of a send say. Raises INVALID for checks of what is no half."""
    asked = (producer_group, first_check_ms, check_interval_ms, checks)
    if not half and any(one is not None for one in asked):
        raise BrokerError(Kind.INVALID, "only a half has producers that are asked about it")
    back = CheckBack(*(
        default if given is None else given
        for given, default in zip((first_check_ms, check_interval_ms, checks), DEFAULT)))
    return Later(delay_ms, due_us, bool(half), producer_group or "", back)
