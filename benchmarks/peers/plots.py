"""Plots as SVG, drawn here so that a report needs no library: bars, and lines on a log scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT = 860, 300, 90
ROW, TOP = 22, 56
PLOT_HEIGHT = 420
INK, GRID, OURS, THEIRS, LIGHT = "#222", "#ddd", "#c0392b", "#34607f", "#a9c1d1"
COLOURS = ("#c0392b", "#34607f", "#3f8f4f", "#b8860b", "#7d3c98", "#555")


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{INK}">{escape(words)}</text>')


def _svg(height: float, parts: Sequence[str]) -> str:
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
            f'viewBox="0 0 {WIDTH} {height:.0f}" font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")


def bars(title: str, unit: str, values: Sequence[tuple[str, float, bool, bool]]) -> str:
    """Bars from the left on a log scale: name, value, whether it is durable, whether it is ours."""
    high = max(value for _, value, _, _ in values)
    low = 10 ** math.floor(math.log10(min(value for _, value, _, _ in values)))
    room = WIDTH - LEFT - RIGHT

    def across(value: float) -> float:
        return room * math.log(value / low) / max(math.log(high / low), 1e-9)

    parts = [_text(12, 22, title, size=15),
             _text(12, 40, f"{unit}, log scale; dark: on disk before the answer; light: not",
                   size=11)]
    height = TOP + ROW * len(values) + 24
    decade = low
    while decade <= high:
        x = LEFT + across(decade)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height - 20}" '
                     f'stroke="{GRID}"/>')
        parts.append(_text(x, height - 6, f"{decade:,.6g}", "middle", 10))
        decade *= 10
    for at, (name, value, durable, ours) in enumerate(values):
        y = TOP + ROW * at
        colour = OURS if ours else THEIRS
        light = "" if durable else ' fill-opacity="0.45"'
        parts.append(_text(LEFT - 8, y + 14, name, "end"))
        parts.append(f'<rect x="{LEFT}" y="{y + 2}" width="{max(across(value), 1):.1f}" '
                     f'height="{ROW - 6}" fill="{colour}"{light}/>')
        parts.append(_text(LEFT + across(value) + 6, y + 14,
                           f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"))
    return _svg(height, parts)


def lines(title: str, x_name: str, y_name: str,
          series: dict[str, Sequence[tuple[float, float]]], log_x: bool = True,
          log_y: bool = False) -> str:
    """Lines over x; y begins at zero, so that what is flat looks flat, unless it is a log scale."""
    left, top, bottom = 90, TOP, TOP + PLOT_HEIGHT
    room = WIDTH - left - 250
    points = [point for one in series.values() for point in one]
    low, high = min(x for x, _ in points), max(x for x, _ in points)
    highest = max(y for _, y in points) * 1.05 or 1.0
    lowest = 10 ** math.floor(math.log10(max(min(y for _, y in points), 1e-9))) if log_y else 0.0

    def scale(value: float) -> float:
        return math.log10(max(value, 0.5)) if log_x else value

    def across(value: float) -> float:
        span = scale(high) - scale(low) or 1.0
        return left + room * (scale(value) - scale(low)) / span

    def up(value: float) -> float:
        share = math.log(max(value, lowest) / lowest) / math.log(highest / lowest) if log_y \
            else value / highest
        return bottom - PLOT_HEIGHT * share

    steps = _decades(lowest, highest) if log_y else _steps(highest)
    parts = [_text(12, 22, title, size=15),
             _text(12, 42, y_name + (", log scale" if log_y else ""), size=11),
             _text(left + room / 2, bottom + 40, x_name, "middle")]
    for value in steps:
        parts.append(f'<line x1="{left}" x2="{left + room}" y1="{up(value):.1f}" '
                     f'y2="{up(value):.1f}" stroke="{GRID}"/>')
        parts.append(_text(left - 6, up(value) + 4, f"{value:,.6g}", "end", 10))
    taken = -math.inf
    for x in sorted({x for x, _ in points}):
        # Where two would overlap, the point stands without its number.
        if across(x) - taken > 36:
            taken = across(x)
            parts.append(_text(taken, bottom + 18, f"{x:,.0f}" if x < 1e5 and x == int(x) else
                               f"{x:.3g}", "middle", 10))
    for at, (name, one) in enumerate(series.items()):
        colour = COLOURS[at % len(COLOURS)]
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in sorted(one))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3.5" fill="{colour}"/>'
                  for x, y in one]
        parts.append(_text(left + room + 14, top + 16 + 18 * at, name))
        parts.append(f'<rect x="{left + room + 2}" y="{top + 7 + 18 * at}" width="9" height="9" '
                     f'fill="{colour}"/>')
    return _svg(bottom + 56, parts)


def _decades(lowest: float, highest: float) -> list[float]:
    found = [lowest]
    while found[-1] * 10 <= highest:
        found.append(found[-1] * 10)
    return found


def _steps(highest: float) -> list[float]:
    """Round numbers from zero, four to ten of them."""
    decade = 10 ** math.floor(math.log10(highest))
    step = next(part * decade for part in (0.2, 0.5, 1.0) if highest / (part * decade) <= 10)
    step = step / 2 if highest / step < 4 else step
    return [round(step * number, 12) for number in range(int(highest / step) + 1)]
