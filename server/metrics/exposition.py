"""Numbers as Prometheus reads them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One number with its name and meaning."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    value: float


def expose(metrics: Iterable[Metric]) -> bytes:
    """The text exposition format, version 0.0.4."""
    lines = []
    for metric in metrics:
        name = f"penstock_{metric.name}"
        lines.append(f"# HELP {name} {metric.text}")
        lines.append(f"# TYPE {name} {metric.kind}")
        lines.append(f"{name} {metric.value}")
    return ("\n".join(lines) + "\n").encode()
