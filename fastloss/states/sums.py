"""Exact sums of terms by cell: the state behind every metric that is a quotient of sums.

A cell is one combination of slice keys. Each cell keeps, for every model, how many rows it used, and for every term
one exact accumulator (`fastloss_kernels.exact_sum`), so that merging is associative and commutative to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, Named, RowSet, SliceRuns, grown
from fastloss_kernels.cpu import slices
from fastloss_kernels.exact_sum import (
    ACCUMULATOR_WORDS,
    ADDITIONS_BEFORE_CARRY,
    LIMBS,
    ExactSum,
    ExactSums,
    normalize_words,
)

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


# Seven limbs and three counts; most losses need five.
_TYPICAL_WORDS = 10
# The window of terms of about 1; a window is never shorter.
_UNIT_WINDOW = (32, 35)
_NO_ORDER: Integers = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Sum:
    """The exact sum of a quantity over the rows of each slice.

    Attributes
    ----------
    rows : RowSet
        The rows that are summed.
    quantity : Named
        What is summed.
    """

    rows: RowSet
    quantity: Named

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"sum of {self.quantity.name}"

    @property
    def bytes_per_slice(self) -> int:
        """About how many bytes a slice takes; more if the quantity spans more than 200 binary orders of magnitude."""
        return 8 * _TYPICAL_WORDS

    def identity(self) -> SumColumn:
        """Return a column without slices."""
        return SumColumn()


class SumColumn:
    """Exact sums of many slices, all in one window of limbs that widens as terms ask for it.

    Attributes
    ----------
    words : numpy.ndarray of int64, shape (capacity, n_limbs + 3)
        Accumulators (`fastloss_kernels.exact_sum`), the first `n_slices` of them in use.
    low : int
        The first limb of the window.
    """

    def __init__(self) -> None:
        self.words: Integers = np.zeros((0, 3), dtype=np.int64)
        self.low = 0
        self.n_slices = 0
        # How often something below 2^33 may have been added to digits since they were normalized, all slices together.
        self._additions = 0

    @property
    def n_limbs(self) -> int:
        """How many limbs the window has."""
        return int(self.words.shape[1]) - 3

    @property
    def nbytes(self) -> int:
        """How many bytes the accumulators take."""
        return self.words.nbytes

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        if n_slices > len(self.words):
            self.words = grown(self.words, self.n_slices, n_slices)
        self.n_slices = max(self.n_slices, n_slices)

    def add(self, terms: NDArray[np.float64], runs: SliceRuns) -> None:
        """Add each term, float64 ``(n_rows,)``, to the slice of its row."""
        low, stop = slices.make_limbs_of()(terms)
        if stop == 0:
            # Zeros, NaN and infinities fit any window, but for one without limbs.
            low, stop = (self.low, self.low + self.n_limbs) if self.n_limbs else _UNIT_WINDOW
        self._widen(low, stop)
        self._count_additions(len(terms))
        if runs.starts is None:
            slices.make_add_by_row()(terms, runs.positions, self.words, self.low)
        else:
            order = _NO_ORDER if runs.order is None else runs.order
            slices.make_add_by_run()(terms, order, runs.starts, runs.positions, self.words, self.low)

    def only_accumulator(self) -> Integers:
        """Return the full accumulator of the only slice, for a loop that sums terms as it computes them.

        Whoever adds to it calls `normalize` at least once in 2^28 terms.
        """
        assert self.n_slices == 1
        self._widen(0, LIMBS)
        self._count_additions(1)
        return np.asarray(self.words[0])

    def merge(self, other: SumColumn, positions: Integers) -> None:
        """Add slice i of another column to the slice ``positions[i]``."""
        if not other.n_slices:
            return
        if other.n_limbs:
            self._widen(other.low, other.low + other.n_limbs)
        self._count_additions(other._additions + other.n_slices)
        shift = other.low - self.low if other.n_limbs else 0
        slices.make_merge_words()(self.words, other.words[: other.n_slices], positions, shift)

    def normalize(self) -> None:
        """Carry every digit but the last into [0, 2^32)."""
        if self._additions:
            normalize_words(self.words[: self.n_slices])
            self._additions = 0

    def evaluate(self) -> ExactSums:
        """Return the sums, `n_slices` of them; they share the column's memory."""
        self.normalize()
        return ExactSums(self.words[: self.n_slices], self.low)

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return ``words``, int64 ``(n_slices, n_limbs + 3)``, normalized, and ``low``, int64 ``(1,)``."""
        self.normalize()
        return {"words": self.words[: self.n_slices], "low": np.array([self.low], dtype=np.int64)}

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields, in memory of its own."""
        words = fields["words"]
        column = cls()
        column.words = grown(words.astype(np.int64, copy=False), len(words), len(words))
        column.low = int(fields["low"][0])
        column.n_slices = len(words)
        return column

    def _widen(self, low: int, stop: int) -> None:
        if self.n_limbs:
            low, stop = min(low, self.low), max(stop, self.low + self.n_limbs)
        if (low, stop - low) == (self.low, self.n_limbs):
            return
        words = grown(np.zeros((0, stop - low + 3), dtype=np.int64), 0, len(self.words))
        used, old = words[: self.n_slices], self.n_limbs
        if old:
            used[:, self.low - low : self.low - low + old] = self.words[: self.n_slices, :old]
        used[:, stop - low :] = self.words[: self.n_slices, old:]
        self.words, self.low = words, low
        # The last digit of the old window may be longer than one inside a window.
        normalize_words(used)
        self._additions = 0

    def _count_additions(self, count: int) -> None:
        if self._additions + count > ADDITIONS_BEFORE_CARRY:
            self.normalize()
        self._additions += count
