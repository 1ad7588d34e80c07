"""Exact sums of terms by cell: the state behind every metric that is a quotient of sums.

A cell is one combination of slice keys. Each cell keeps, for every model, how many rows it used, and for every term
one exact accumulator (`fastloss_kernels.exact_sum`), so that merging is associative and commutative to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum

CellKey = tuple[Any, ...]
# Cells merged at a time: adding them all would hold a copy of the other state.
_SLAB = 256


class CellSums:
    """Row counts and exact sums by cell.

    Parameters
    ----------
    n_counts, n_terms : int
        How many counts and how many sums each cell keeps.
    """

    def __init__(self, n_counts: int, n_terms: int) -> None:
        self.cells: dict[CellKey, int] = {}
        self.counts: NDArray[np.int64] = np.zeros((1, n_counts), dtype=np.int64)
        self.words: NDArray[np.int64] = np.zeros((1, n_terms, ACCUMULATOR_WORDS), dtype=np.int64)

    def rows_of(self, keys: Sequence[CellKey]) -> NDArray[np.int64]:
        """Return the row of each cell in `counts` and `words`, making room for new cells."""
        cells = self.cells
        rows = np.array([cells.setdefault(key, len(cells)) for key in keys], dtype=np.int64)
        if len(cells) > len(self.counts):
            capacity = max(len(cells), len(self.counts) * 3 // 2 + 8)
            self.counts = _grown(self.counts, capacity)
            self.words = _grown(self.words, capacity)
        return rows

    def absorb(self, other: CellSums) -> None:
        """Add another state to this one; the other stays as it is."""
        if not other.cells:
            return
        rows = self.rows_of(list(other.cells))
        for start in range(0, len(rows), _SLAB):
            slab = slice(start, min(start + _SLAB, len(rows)))
            self.counts[rows[slab]] += other.counts[slab]
            self.words[rows[slab]] += other.words[slab]

    def count(self, key: CellKey, number: int) -> int:
        """Return one of a cell's counts; zero for a cell never seen."""
        return int(self.counts[self.cells[key], number]) if key in self.cells else 0

    def total(self, key: CellKey, term: int) -> ExactSum:
        """Return the exact sum of a term over a cell; zero for a cell never seen."""
        return ExactSum.from_words(self.words[self.cells[key], term]) if key in self.cells else ExactSum()


def _grown(array: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    larger = np.zeros((capacity, *array.shape[1:]), dtype=np.int64)
    larger[: len(array)] = array
    return larger
