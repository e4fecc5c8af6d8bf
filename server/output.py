"""How the command line shows what it found: rows as table, json or ndjson, and progress."""

from __future__ import annotations

import base64
import json
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TextIO

FORMATS = ("table", "json", "ndjson")
PROGRESS_SECONDS = 0.2
BAR_WIDTH = 24


def show(rows: Iterable[Mapping[str, Any]], form: str) -> None:
    """Write rows to standard output; json is one array, ndjson one object a line as they come."""
    out = sys.stdout
    if form == "ndjson":
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
            out.flush()
    elif form == "json":
        json.dump(list(rows), out, ensure_ascii=False, indent=2)
        out.write("\n")
    else:
        out.writelines(line + "\n" for line in table(list(rows)))


def table(rows: list[Mapping[str, Any]]) -> Iterable[str]:
    """The lines of a table whose columns are the keys of all rows, in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[cell(row.get(column, "")) for column in columns] for row in rows]
    numeric = [all(_is_number(row.get(column, 0)) for row in rows) for column in columns]
    lines = [columns, *cells] if columns else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        yield "  ".join(parts).rstrip()


def cell(value: Any) -> str:
    """One line of printable text: what a terminal obeys is not passed on to it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def body_fields(body: bytes) -> dict[str, str]:
    """body as text, or body_base64 where it is none."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(body).decode()}


class Progress:
    """A bar with rate and time left on a terminal, nothing elsewhere.

    rich draws it where it is installed; the plain one says the same.
    """

    def __init__(self, title: str, total: int | None, stream: TextIO | None = None) -> None:
        self.title = title
        self.total = total
        self.count = 0
        self._stream = stream or sys.stderr
        self._terminal = self._stream.isatty()
        self._started = self._shown = time.monotonic()
        self._rich: Any = None

    def __enter__(self) -> Self:
        if self._terminal:
            self._rich = rich_bar(self.title, self.total)
            if self._rich:
                self._rich.start()
        return self

    def advance(self, count: int = 1) -> None:
        """count more are done."""
        self.count += count
        if not self._terminal:
            return
        now = time.monotonic()
        if now - self._shown >= PROGRESS_SECONDS:
            self._shown = now
            self._draw(now)

    def _draw(self, now: float) -> None:
        if self._rich:
            rate = self.count / max(now - self._started, 1e-9)
            self._rich.update(self._rich.task_ids[0], completed=self.count, rate=f"{rate:,.0f}/s")
        else:
            line = plain_bar(self.title, self.count, self.total, now - self._started)
            self._stream.write(f"\r\x1b[K{line}")
            self._stream.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal:
            self._draw(time.monotonic())
            if self._rich:
                self._rich.stop()
            else:
                self._stream.write("\n")


def plain_bar(title: str, count: int, total: int | None, seconds: float) -> str:
    """One line: the bar, the rate and the time left."""
    rate = count / seconds if seconds > 0 else 0.0
    if not total:
        return f"{title}  {count:,}  {rate:,.0f}/s"
    filled = BAR_WIDTH * min(count, total) // total
    left = f"{(total - count) / rate:.0f} s left" if rate else "-"
    bar = "#" * filled + "-" * (BAR_WIDTH - filled)
    return f"{title}  [{bar}]  {count:,}/{total:,}  {rate:,.0f}/s  {left}"


def rich_bar(title: str, total: int | None) -> Any:
    """rich's bar with one task, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress
    except ImportError:
        return None
    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    bar.add_task(title, total=total, rate="")
    return bar
