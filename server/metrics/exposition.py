"""Numbers as Prometheus reads them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple


class Metric(NamedTuple):
    """One number with its name and meaning."""

    name: str
    kind: Literal["counter", "gauge"]
    text: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


def expose(metrics: Iterable[Metric]) -> bytes:
    """The text exposition format, version 0.0.4. The series of one name stand together."""
    lines = []
    last = ""
    for metric in metrics:
        name = f"penstock_{metric.name}"
        if name != last:
            lines.append(f"# HELP {name} {metric.text}")
            lines.append(f"# TYPE {name} {metric.kind}")
            last = name
        labels = ",".join(f'{label}="{escaped(value)}"' for label, value in metric.labels)
        lines.append(f"{name}{{{labels}}} {metric.value}" if labels else f"{name} {metric.value}")
    return ("\n".join(lines) + "\n").encode()


def escaped(value: str) -> str:
    """A label's value as the format wants it; an embedding program may name groups as it likes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
