"""The ledger: how many rows were read, and why each row that was not used was left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.states.causes import BAD_CAUSES, Cause


class Place(NamedTuple):
    """Where the rows of a batch stand.

    Attributes
    ----------
    origin : str
        The file, as the user knows it.
    row_group : int or None
        The row group; None for a stream.
    first_row : int
        The first row that was read; rows count from 0 in a row group, and in a stream from its beginning.
    kept : callable, or None
        Returns the position of each row from there on, int64 ``(n_rows,)``; None if no row was left out by a filter.
    """

    origin: str
    row_group: int | None
    first_row: int
    kept: Callable[[], NDArray[np.int64]] | None = None

    def row(self, position: int) -> int:
        """Return where a row of the batch stands."""
        return self.first_row + (position if self.kept is None else int(self.kept()[position]))

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows of the batch stand."""
        return self.first_row + (positions if self.kept is None else self.kept()[positions])


class Location(NamedTuple):
    """Where a row stands, and the number found there."""

    origin: str
    row_group: int | None
    row: int
    value: float | None

    @property
    def order(self) -> tuple[str, int, int, bool, float]:
        """The key that locations are sorted by: two streams may have one name, and differ in the number alone."""
        number = 0.0 if self.value is None or self.value != self.value else self.value
        return self.origin, -1 if self.row_group is None else self.row_group, self.row, self.value is None, number

    def describe(self) -> str:
        """Say the place in words."""
        part = "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.origin}{part}, row {self.row}"


@dataclass
class Ledger:
    """Counts of rows: read, left out by a filter, dropped for a cause.

    Merging adds them and keeps the first location of each cause, by file, row group and row.
    """

    n_read: int = 0
    dropped: dict[Cause, int] = field(default_factory=dict)
    first: dict[Cause, Location] = field(default_factory=dict)
    n_filtered: int = 0

    def drop(self, cause: Cause, count: int, location: Location) -> None:
        """Count rows left out for one cause, the first of them at `location`."""
        self.dropped[cause] = self.dropped.get(cause, 0) + count
        known = self.first.get(cause)
        if known is None or location.order < known.order:
            self.first[cause] = location

    def merge(self, other: Ledger) -> None:
        """Add another ledger to this one. The other stays as it is."""
        self.n_read += other.n_read
        self.n_filtered += other.n_filtered
        for cause, count in other.dropped.items():
            self.drop(cause, count, other.first[cause])

    def bad(self) -> dict[Cause, int]:
        """Return the bad rows by cause."""
        return {cause: count for cause, count in self.dropped.items() if cause.name in BAD_CAUSES}
