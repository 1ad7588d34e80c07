"""The ledger: how many rows were read, and why each row that was not used was left out."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.states.causes import BAD_CAUSES, Cause


class Parts(NamedTuple):
    """Row groups that are read one after the other, as if they were one.

    Attributes
    ----------
    names : tuple of (str, int or None)
        File and row group of each.
    firsts : numpy.ndarray of int64
        Where the rows of each begin.
    ranks : numpy.ndarray of int64
        The position of each among all of them, sorted by file and row group.
    """

    names: tuple[tuple[str, int | None], ...]
    firsts: NDArray[np.int64]
    ranks: NDArray[np.int64]

    @classmethod
    def of(cls, names: Sequence[tuple[str, int | None]], n_rows: Sequence[int]) -> Parts:
        """Return the parts of these names, which have so many rows each."""
        ranks = np.empty(len(names), dtype=np.int64)
        ranks[sorted(range(len(names)), key=lambda part: _order(*names[part]))] = np.arange(len(names))
        return cls(tuple(names), np.cumsum([0, *n_rows[:-1]], dtype=np.int64), ranks)


class GroupNames(NamedTuple):
    """What the groups of a batch are called.

    Attributes
    ----------
    keys : numpy.ndarray of int64 or uint64, shape (n_groups,)
        Numbers that are the same for a group in every batch, by which the first of several is found: their keys.
    describe : callable
        Returns the name of the group at a position, such as "user_id = 17".
    """

    keys: NDArray[Any]
    describe: Callable[[int], str]


class Place(NamedTuple):
    """Where the rows of a batch stand.

    Attributes
    ----------
    origin : str
        The file, as the user knows it.
    row_group : int or None
        The row group; None for a stream.
    first_row : int
        The first row that was read; rows count from 0 in a row group, and in a stream from its beginning. Groups
        stand nowhere: −1.
    kept : callable, or None
        Returns the position of each row from there on, int64 ``(n_rows,)``; None if no row was left out by a filter.
    parts : Parts, optional
        The row groups that rows count through, where several were joined; `origin` and `row_group` are the first.
    names : GroupNames, optional
        What each row is called, where rows are groups whose keys are known.
    """

    origin: str
    row_group: int | None
    first_row: int
    kept: Callable[[], NDArray[np.int64]] | None = None
    parts: Parts | None = None
    names: GroupNames | None = None

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where rows of the batch stand."""
        return self.first_row + (positions if self.kept is None else self.kept()[positions])

    def location(self, position: int, value: float | None = None) -> Location:
        """Return the file, the row group and the row of a row of the batch, with the number found there."""
        if self.first_row < 0:
            group = None
            if self.names is not None:
                group = int(self.names.keys[position]), partial(self.names.describe, position)
            return Location(self.origin, None, -1, value, group)
        row = self.first_row + (position if self.kept is None else int(self.kept()[position]))
        if self.parts is None:
            return Location(self.origin, self.row_group, row, value)
        # Of several that begin at one row, all but the last are empty.
        part = bisect_right(self.parts.firsts, row) - 1
        return Location(*self.parts.names[part], row - int(self.parts.firsts[part]), value)

    def first(self, marked: NDArray[np.bool_]) -> int:
        """Return the position of the marked row that is first by file, row group and row; at least one is marked.

        Of groups with names, it is that of the least key.
        """
        if self.names is not None:
            positions = np.flatnonzero(marked)
            return int(positions[self.names.keys[positions].argmin()])
        if self.parts is None:
            return int(marked.argmax())
        positions = np.flatnonzero(marked)
        part = np.searchsorted(self.parts.firsts, self.rows(positions), side="right") - 1
        return int(positions[self.parts.ranks[part].argmin()])


class Location(NamedTuple):
    """Where a row stands, and the number found there. A group stands nowhere: its row is −1.

    `group` has a number by which a group is known, and what returns its name, where that is known.
    """

    origin: str
    row_group: int | None
    row: int
    value: float | None
    group: tuple[int, Callable[[], str]] | None = None

    @property
    def order(self) -> tuple[str, int, int, int, bool, float]:
        """The key that locations are sorted by: two streams may have one name, and differ in the number alone."""
        number = 0.0 if self.value is None or self.value != self.value else self.value
        key = 0 if self.group is None else self.group[0]
        return *_order(self.origin, self.row_group), self.row, key, self.value is None, number

    def describe(self) -> str:
        """Say the place in words."""
        if self.row < 0:
            return self.origin if self.group is None else self.group[1]()
        part = "" if self.row_group is None else f", row group {self.row_group}"
        return f"{self.origin}{part}, row {self.row}"


def _order(origin: str, row_group: int | None) -> tuple[str, int]:
    return origin, -1 if row_group is None else row_group


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
