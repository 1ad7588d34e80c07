"""Counts of rows by slice."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, Named, RowSet, SliceRuns, grown
from fastloss_kernels.cpu import slices

# NumPy adds this many to repeated positions in less time than it takes to load a kernel.
_FEW = 1024
# In so few runs, flags are counted in a third of the time that it takes to look for them.
_FEW_RUNS = 64


@dataclass(frozen=True)
class Count:
    """How many rows of each slice have some property.

    Attributes
    ----------
    rows : RowSet
        The rows that are looked at.
    counted : Named
        The property.
    """

    rows: RowSet
    counted: Named

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"count of {self.counted.name}"

    @property
    def bytes_per_slice(self) -> int:
        """How many bytes a slice takes."""
        return 8

    def identity(self) -> CountColumn:
        """Return a column without slices."""
        return CountColumn()


class CountColumn:
    """Counts of many slices.

    Attributes
    ----------
    counts : numpy.ndarray of int64, shape (capacity,)
        The first `n_slices` are in use.
    """

    def __init__(self) -> None:
        self.counts: Integers = np.zeros(0, dtype=np.int64)
        self.n_slices = 0

    @property
    def nbytes(self) -> int:
        """How many bytes the counts take."""
        return self.counts.nbytes

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        if n_slices > len(self.counts):
            self.counts = grown(self.counts, self.n_slices, n_slices)
        self.n_slices = max(self.n_slices, n_slices)

    def add(self, numbers: NDArray[Any], runs: SliceRuns) -> None:
        """Add a number for each row, flags or integers ``(n_rows,)``, to the slice of the row."""
        if numbers.dtype == np.bool_:
            self._add_flags(numbers, runs)
            return
        if runs.starts is None:
            self._add(numbers, runs.positions)
            return
        running = np.append(0, np.cumsum(numbers if runs.order is None else numbers[runs.order], dtype=np.int64))
        self._add(np.diff(running[runs.starts]), runs.positions)

    def _add_flags(self, flags: NDArray[np.bool_], runs: SliceRuns) -> None:
        # Few rows are flagged as a rule: to look for them takes a fraction of the time of summing.
        if runs.starts is None:
            self._count(runs.positions[np.flatnonzero(flags)])
            return
        ordered = flags if runs.order is None else flags[runs.order]
        if len(runs.positions) <= _FEW_RUNS:
            starts = runs.starts.tolist()
            counts = [np.count_nonzero(ordered[a:b]) for a, b in itertools.pairwise(starts)]
            self._add(np.array(counts, dtype=np.int64), runs.positions)
        else:
            self._add(np.diff(np.searchsorted(np.flatnonzero(ordered), runs.starts)), runs.positions)

    def add_lengths(self, runs: SliceRuns) -> None:
        """Count every row."""
        if runs.starts is not None:
            self._add(np.diff(runs.starts), runs.positions)
        else:
            self._count(runs.positions)

    def _count(self, positions: Integers) -> None:
        if len(positions) <= _FEW:
            np.add.at(self.counts, positions, 1)
        else:
            slices.make_count_rows()(positions, self.counts)

    def _add(self, numbers: NDArray[Any], positions: Integers) -> None:
        if len(positions) <= _FEW:
            np.add.at(self.counts, positions, numbers)
        else:
            slices.make_add_counts()(numbers.astype(np.int64, copy=False), positions, self.counts)

    def merge(self, other: CountColumn, positions: Integers) -> None:
        """Add slice i of another column to the slice ``positions[i]``."""
        self._add(other.counts[: other.n_slices], positions)

    def normalize(self) -> None:
        """Do nothing: a count has one form."""

    def evaluate(self) -> Integers:
        """Return the counts, int64 ``(n_slices,)``; they share the column's memory."""
        return self.counts[: self.n_slices]

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return ``counts``, int64 ``(n_slices,)``."""
        return {"counts": self.counts[: self.n_slices]}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields, in memory of its own."""
        counts = fields["counts"]
        column = cls()
        column.counts = grown(counts.astype(np.int64, copy=False), len(counts), len(counts))
        column.n_slices = len(counts)
        return column
