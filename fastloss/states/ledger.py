"""The ledger: how many rows were read, and why each row that was not used was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Location(NamedTuple):
    """Where a row stands, ordered as the log is read; rows count from 0 inside their row group."""

    task: int
    row: int
    origin: str
    row_group: int | None
    value: float | None

    def describe(self) -> str:
        """Say the place in words."""
        part = "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.origin}{part}, row {self.row}"


class Cause(NamedTuple):
    """Why a row was left out, the column that made it so, and what that column was read as."""

    name: str
    column: str
    role: str


# A bad row stops the evaluation unless the user chose to drop it; other causes are counted and skipped.
BAD_CAUSES = (
    "nan",
    "outside_domain",
    "negative_weight",
    "infinite_weight",
    "different_lengths",
    "two_infinite_predictions",
    "list_too_long",
)


@dataclass
class Ledger:
    """Counts of rows; merging adds them and keeps the first location of each cause."""

    n_read: int = 0
    dropped: dict[Cause, int] = field(default_factory=dict)
    first: dict[Cause, Location] = field(default_factory=dict)

    def drop(self, cause: Cause, count: int, location: Location) -> None:
        """Count rows left out for one cause, the first of them at `location`."""
        self.dropped[cause] = self.dropped.get(cause, 0) + count
        known = self.first.get(cause)
        if known is None or location[:2] < known[:2]:
            self.first[cause] = location

    def absorb(self, other: Ledger) -> None:
        """Add another ledger to this one."""
        self.n_read += other.n_read
        for cause, count in other.dropped.items():
            self.drop(cause, count, other.first[cause])
