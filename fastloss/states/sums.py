"""Exact sums by slice: the state behind every metric that is a quotient of sums.

Each slice has one exact accumulator (`fastloss_kernels.exact_sum`), so that merging is associative and commutative to
the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, Named, RowSet, SliceRuns, grown
from fastloss_kernels.cpu import slices
from fastloss_kernels.exact_sum import ADDITIONS_BEFORE_CARRY, LIMBS, ExactSums, normalize_words

# Seven limbs and three counts; most losses need five.
_TYPICAL_WORDS = 10
# Of so few slices the full window takes no memory to speak of.
FEW_SLICES = 256
_ALL_ONES = 0xFFFF_FFFF
# The window of terms of about 1; a window is never shorter.
_UNIT_WINDOW = (32, 35)
# Terms wait while there are this many a slice: at 12 bytes each, they take less than accumulators.
_MOST_WAITING = 2
# With three counts, eight words.
_LINE_LIMBS = 5
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

    While there are few terms a slice, terms wait beside their positions and no accumulators are made: the state of a
    task whose rows nearly all belong to different slices is smaller than its accumulators would be, and each of its
    terms is added once, to the accumulators that it is merged into.

    Attributes
    ----------
    words : numpy.ndarray of int64, shape (capacity, n_limbs + 3)
        Accumulators (`fastloss_kernels.exact_sum`). Some of the `n_slices` may have none yet; their sum is 0.
    low : int
        The first limb of the window.
    """

    def __init__(self) -> None:
        self.words: Integers = np.zeros((0, 3), dtype=np.int64)
        self.low = 0
        self.n_slices = 0
        # How often something below 2^33 may have been added to digits since they were normalized, all slices together.
        self._additions = 0
        self._waiting: list[_Waiting] = []
        self._n_waiting = 0

    @property
    def n_limbs(self) -> int:
        """How many limbs the window has."""
        return int(self.words.shape[1]) - 3

    @property
    def nbytes(self) -> int:
        """How many bytes accumulators and waiting terms take."""
        return self.words.nbytes + sum(part.terms.nbytes + part.positions.nbytes for part in self._waiting)

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        self.n_slices = max(self.n_slices, n_slices)

    def add(self, terms: NDArray[np.float64], runs: SliceRuns) -> None:
        """Add each term, float64 ``(n_rows,)``, to the slice of its row; neither array is kept."""
        if runs.starts is not None:
            if self.n_slices <= FEW_SLICES:
                # Every window at once: looking at each term first would cost more than the memory is worth.
                self._have(0, LIMBS)
            else:
                self._have(*slices.make_limbs_of()(terms))
            self._count_additions(len(terms))
            order = _NO_ORDER if runs.order is None else runs.order
            slices.make_add_by_run()(terms, order, runs.starts, runs.positions, self.words, self.low)
            return
        low, stop = slices.make_limbs_of()(terms)
        part = _Waiting(terms, runs.positions.astype(np.int32), low, stop)
        if self._n_waiting + len(terms) <= _MOST_WAITING * self.n_slices:
            self._waiting.append(part._replace(terms=terms.copy()))
            self._n_waiting += len(terms)
            return
        self._add_waiting()
        self._add_part(part, None)

    def only_accumulator(self, n_terms: int) -> Integers:
        """Return the full accumulator of the only slice, for a loop that is about to add `n_terms` terms to it."""
        assert self.n_slices == 1
        return np.asarray(self.accumulators(0, LIMBS, n_terms)[0])

    def accumulators(self, low: int, stop: int, n_terms: int) -> Integers:
        """Return the accumulators of all slices, for a loop that is about to add `n_terms` terms to them.

        Their window, from `self.low` on, holds the limbs [low, stop) at least.
        """
        self._have(low, stop)
        self._count_additions(n_terms)
        return self.words

    def merge(self, other: SumColumn, positions: Integers) -> None:
        """Add slice i of another column to the slice ``positions[i]``."""
        self._add_waiting()
        if other.n_limbs == LIMBS and self.n_slices > FEW_SLICES:
            other = other._copy()
            other.normalize()
        words = other.words[: other.n_slices]
        if len(words) and other.n_limbs:
            self._have(other.low, other.low + other.n_limbs)
            self._count_additions(other._additions + len(words))
            slices.make_merge_words()(self.words, words, positions[: len(words)], other.low - self.low)
        for part in other._waiting:
            self._add_part(part, positions)

    def normalize(self) -> None:
        """Have an accumulator for every slice, and carry every digit but the last into [0, 2^32)."""
        self._add_waiting()
        self._have(LIMBS, 0)
        self._carry()
        if self.n_limbs == LIMBS:
            self._trim()

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

    def _add_waiting(self) -> None:
        waiting, self._waiting, self._n_waiting = self._waiting, [], 0
        for part in waiting:
            self._add_part(part, None)

    def _add_part(self, part: _Waiting, positions: Integers | None) -> None:
        """Add terms to the slices at their positions, or at ``positions`` of these."""
        self._have(part.low, part.stop)
        self._count_additions(len(part.terms))
        taken = part.positions if positions is None else positions.astype(np.int32)[part.positions]
        slices.make_add_by_row()(part.terms, taken, self.words, self.low)

    def _have(self, low: int, stop: int) -> None:
        """Have an accumulator for every slice, with at least the limbs [low, stop)."""
        old = self.n_limbs
        if stop == 0 and not old:
            # Zeros, NaN and infinities fit any window that has limbs.
            low, stop = _UNIT_WINDOW
        elif stop == 0:
            low, stop = self.low, self.low + old
        elif old:
            low, stop = min(low, self.low), max(stop, self.low + old)
        if (low, stop - low) != (self.low, old) and stop - low == _LINE_LIMBS - 1 and low:
            # One limb more makes an accumulator a cache line of 64 bytes, and room for smaller terms.
            low -= 1
        if (low, stop - low) == (self.low, old):
            if self.n_slices > len(self.words):
                self.words = grown(self.words, len(self.words), self.n_slices)
            return
        self._carry()
        n_used = min(self.n_slices, len(self.words))
        n_wanted = max(self.n_slices, len(self.words))
        words = grown(np.zeros((0, stop - low + 3), dtype=np.int64), 0, n_wanted)
        if old:
            words[:n_used, self.low - low : self.low - low + old] = self.words[:n_used, :old]
            words[:n_used, stop - low :] = self.words[:n_used, old:]
            # The last digit of the old window may be longer than one inside a window.
            normalize_words(words[:n_used])
        self.words, self.low = words, low

    def _copy(self) -> SumColumn:
        copy = SumColumn()
        copy.words, copy.low, copy.n_slices = self.words.copy(), self.low, self.n_slices
        copy._additions, copy._waiting, copy._n_waiting = self._additions, list(self._waiting), self._n_waiting
        return copy

    def _trim(self) -> None:
        """Leave out the limbs at both ends of the full window that hold nothing."""
        words = self.words[: self.n_slices]
        digits = words[:, :LIMBS]
        is_digit = (digits != 0) & (digits != _ALL_ONES)
        is_digit[:, -1] &= digits[:, -1] != -1
        used = np.flatnonzero(is_digit.any(axis=0))
        if not len(used):
            return
        # What lies above is the sign: zeros, or ones with a last digit of -1.
        low, stop = min(int(used[0]), _UNIT_WINDOW[0]), max(int(used[-1]) + 2, _UNIT_WINDOW[1])
        nonzero = np.flatnonzero((digits != 0).any(axis=0))
        low = min(low, int(nonzero[0]))
        if stop >= LIMBS:
            return
        kept = np.ascontiguousarray(np.concatenate([digits[:, low:stop], words[:, LIMBS:]], axis=1))
        negative = words[:, LIMBS - 1] < 0
        kept[negative, stop - low - 1] -= 1 << 32
        self.words, self.low = kept, low

    def _carry(self) -> None:
        if self._additions:
            normalize_words(self.words[: self.n_slices])
            self._additions = 0

    def _count_additions(self, count: int) -> None:
        if self._additions + count > ADDITIONS_BEFORE_CARRY:
            self._carry()
        self._additions += count


class _Waiting(NamedTuple):
    """Terms that are yet to be added to the slices at `positions`, int32, and the limbs that they need."""

    terms: NDArray[np.float64]
    positions: NDArray[np.int32]
    low: int
    stop: int
