"""Results, kept as small JSON: a file for each work, size and delay, a row for each peer's setting.

A row grows by a round at a time and is written at once, so that what is cut short is worth
something and can be gone on with. A peer that gave no figures has a row that says why.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
Row = dict[str, Any]


def commit() -> str:
    """The commit of the work tree, if it is one."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT,
                          check=False)
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Where and beside what something is measured."""
    return {"when": time.strftime("%Y-%m-%d %H:%M"), "cpus": os.cpu_count(),
            "kernel": platform.release(), "commit": commit(),
            "load_average": round(os.getloadavg()[0], 1)}


def median(row: Row, figure: str) -> float | None:
    """The median of the rounds in which nothing failed."""
    values = [one[figure] for one in row["rounds"] if figure in one and not one["errors"]]
    return statistics.median(values) if values else None


def _others(one: dict[str, Any]) -> float:
    return float(one.get("others_share", 0.0))


def quiet(row: Row, most: float) -> int:
    """How many rounds of a row there are beside which others took at most such a share."""
    return sum(_others(one) <= most for one in row["rounds"])


def write(path: Path, told: dict[str, Any]) -> None:
    """All or nothing: who is interrupted while he writes loses no earlier round. A line a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_suffix(".new")
    head = json.dumps({name: value for name, value in told.items() if name != "rows"})
    lines = ",\n".join(json.dumps(row) for row in told["rows"])
    made.write_text(f'{head[:-1]}, "rows": [\n{lines}\n]}}\n')
    made.replace(path)


class Kept:
    """The rows of one work, one size and one delay."""

    def __init__(self, folder: Path, work: str, size: int, delay_ms: float) -> None:
        slower = f"-{delay_ms:g}ms" if delay_ms else ""
        self.path = folder / f"{work.replace(' ', '-')}-{size}{slower}.json"
        self.same = {"work": work, "size": size, "delay_ms": delay_ms}
        told = json.loads(self.path.read_text()) if self.path.exists() else {}
        self.rows: list[Row] = told.get("rows", [])

    def row(self, peer: str, setting: str) -> Row | None:
        return next((row for row in self.rows
                     if (row["peer"], row["setting"]) == (peer, setting)), None)

    def begin(self, peer: str, setting: str, durable: bool, go_on: bool) -> Row:
        """The row to add to: an earlier one only to go on with, and ours only of this commit."""
        row = self.row(peer, setting)
        now = commit()
        if row and go_on and (not peer.startswith("penstock") or row["commit"] == now):
            return row
        if row:
            self.rows.remove(row)
        row = {"peer": peer, "setting": setting, "durable": durable, "commit": now, **self.same,
               "rounds": []}
        self.rows.append(row)
        return row

    def add(self, row: Row, figures: dict[str, float], most: int | None = None) -> None:
        """Of more than so many rounds the one that was disturbed most goes."""
        rounds = row["rounds"]
        rounds.append({**figures, "when": time.strftime("%Y-%m-%d %H:%M")})
        if most is not None and len(rounds) > most:
            rounds.remove(max(rounds, key=_others))
        row.pop("missing", None)
        self.save()

    def miss(self, row: Row, why: str) -> None:
        """Say why there is no figure; those of other rounds stay."""
        row["missing"] = why
        self.save()

    def save(self) -> None:
        self.rows.sort(key=lambda row: (not row["durable"], row["peer"], row["setting"]))
        write(self.path, {**machine(), "rows": self.rows})
