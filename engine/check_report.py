"""What check tells: problems, notes and counts, and how they read."""

from __future__ import annotations

from dataclasses import dataclass, field

PROBLEMS_KEPT = 1000


@dataclass
class Report:
    """What check found. problems is empty when every promised byte is right."""

    path: str
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    segments: int = 0
    frames: int = 0
    records: int = 0
    messages: int = 0
    bytes: int = 0
    queues: int = 0
    entries: int = 0
    checkpoints: int = 0
    cold_files: int = 0
    left_out: int = 0
    live: bool = False
    seconds: float = 0.0

    def problem(self, text: str) -> None:
        """Add a problem; a limit keeps a ruined store from filling the memory."""
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(text)
        else:
            self.left_out += 1

    def lines(self) -> list[str]:
        """The report as text, the verdict last."""
        rate = self.records / self.seconds if self.seconds else 0.0
        found = [
            f"{self.path}: {self.segments} segments, {self.frames:,} frames, "
            f"{self.records:,} records, {self.messages:,} messages in {self.queues:,} queues, "
            f"{self.bytes:,} bytes",
            f"{self.entries:,} index entries compared, {self.checkpoints} checkpoints; "
            f"{self.seconds:.1f} s, {rate:,.0f} records/s",
        ]
        if self.cold_files:
            found.append(f"{self.cold_files:,} cold files, each record of which was judged")
        found += [f"note: {text}" for text in self.notes]
        found += [f"PROBLEM: {text}" for text in self.problems]
        if self.left_out:
            found.append(f"PROBLEM: {self.left_out:,} more")
        count = len(self.problems) + self.left_out
        return [*found, f"{count:,} problems" if count else "no problems"]
