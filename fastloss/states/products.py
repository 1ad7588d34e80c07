"""Exact sums of products of features with a loss's derivatives: what a linear layer over features would learn from.

With the residual r = w·gradient and the curvature c = w·hessian of a row, and its features x, of which x₀ = 1 is the
bias, these are the sums of r·xⱼ, (r·xⱼ)², r·(r·xⱼ) and (c·xⱼ)·xₖ. Each term is a float64 rounded as these brackets
say, and each sum is exact.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, Named, RowSet
from fastloss_kernels.exact_sum import (
    ACCUMULATOR_WORDS,
    ADDITIONS_BEFORE_CARRY,
    ExactSum,
    ExactSums,
    normalize_words,
)

Floats = NDArray[np.float64]

# Sums of a column keep six digits of its variation where that is this many bits below its size, as squares.
VARIES_BITS = 30
# Of more columns than this, curvatures of pairs are not kept: their number grows with the square.
MOST_PAIRED_COLUMNS = 64


@dataclass(frozen=True)
class FeatureProducts:
    """The sums of products of features, of all rows together.

    Attributes
    ----------
    rows : RowSet
        The rows that are summed.
    quantity : Named
        The derivatives and the features.
    widths : tuple of int
        How many columns each feature has: 1 for numbers, 0 for lists, whose length the log tells.
    diagonal : bool
        Whether to leave out the curvatures of pairs of features.
    offsets : tuple of float
        What is subtracted from the numbers of each column; empty if nothing is.
    """

    rows: RowSet
    quantity: Named
    widths: tuple[int, ...]
    diagonal: bool = False
    offsets: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"products of {self.quantity.name}" + (f" less {self.offsets}" if self.offsets else "")

    @property
    def bytes_per_slice(self) -> int:
        """Nothing: slices have no sums of their own."""
        return 0

    @property
    def most_bytes(self) -> int:
        """The bytes of the sums, if no feature is a list."""
        n_columns = 1 + len(self.widths)
        return len(factors_of(n_columns, _is_paired(n_columns, self.diagonal))) * 8 * ACCUMULATOR_WORDS

    def identity(self) -> FeatureProductsColumn:
        """Return the sums of no rows."""
        return FeatureProductsColumn(self.widths, diagonal=self.diagonal)


@dataclass(frozen=True)
class FeatureProductSums:
    """What the sums evaluate to.

    Attributes
    ----------
    widths : numpy.ndarray of int64, shape (n_features,)
        How many columns each feature has: 1 for numbers, the lists' length for lists.
    n_null : numpy.ndarray of int64, shape (n_columns - 1,)
        How many rows lack the number of each feature's column, which counted as 0.
    lowest, highest : numpy.ndarray of float64, shape (n_columns - 1,)
        The least and the greatest number of each feature's column, zeros for nulls among them.
    is_paired : bool
        Whether curvatures of pairs of features are known.
    sums : ExactSums
        The sums.
    """

    widths: Integers
    n_null: Integers
    lowest: Floats
    highest: Floats
    is_paired: bool
    sums: ExactSums

    @property
    def n_columns(self) -> int:
        """How many columns there are, the bias among them."""
        return 1 + int(self.widths.sum())

    def offsets(self) -> tuple[float, ...]:
        """Return the mean of each column that varies too little beside it, 0 for others; nothing if all vary enough.

        Means are weighted by the curvature, and sums of numbers less their mean keep the digits that these lose.
        """
        found = [self._offset(column) for column in range(1, self.n_columns)]
        return tuple(found) if any(found) else ()

    def _offset(self, column: int) -> float:
        sums = [self.curvature(*pair) for pair in ((0, 0), (0, column), (column, column))]
        bias, crossed, squares = (found.units for found in sums)
        if (
            not all(found.is_finite for found in sums)
            or bias <= 0
            or self.lowest[column - 1] == self.highest[column - 1]
        ):
            return 0.0
        left = squares * bias - crossed * crossed
        return crossed / bias if abs(left) << VARIES_BITS < squares * bias else 0.0

    def gradient(self, column: int) -> ExactSum:
        """Return Σ r·x; the column 0 is the bias, then come those of each feature."""
        return self._sum(2 * self.n_columns + column, 0)

    def square(self, column: int) -> ExactSum:
        """Return Σ (r·x)²."""
        return self._sum(2 * self.n_columns + column, 2 * self.n_columns + column)

    def square_with_bias(self, column: int) -> ExactSum:
        """Return Σ r·(r·x)."""
        return self._sum(2 * self.n_columns, 2 * self.n_columns + column)

    def curvature(self, column: int, other: int) -> ExactSum:
        """Return Σ c·x·x of two columns; where pairs are not kept, of one, or of one and the bias."""
        first, second = min(column, other), max(column, other)
        return self._sum(self.n_columns + first, second)

    def _sum(self, *factors: int) -> ExactSum:
        return self.sums[_positions(self.n_columns, self.is_paired)[factors]]


class FeatureProductsColumn:
    """Sums of products of features of all rows; slices have none.

    Attributes
    ----------
    widths : numpy.ndarray of int64, shape (n_features,)
        How many columns each feature has; 0 as long as none of its lists was seen.
    n_null : numpy.ndarray of int64, shape (n_features,)
        How many rows lack the feature.
    n_null_places : numpy.ndarray of int64, shape (n_columns - 1,)
        How many lists lack the number at a place.
    extremes : numpy.ndarray of float64, shape (2, n_columns - 1)
        The least and the greatest number of each feature's column; +inf and -inf where none was seen.
    conflict : tuple of int, or None
        A feature with lists of two lengths, and these; the sums then mean nothing.
    accumulators : numpy.ndarray of int64, shape (n_sums, ACCUMULATOR_WORDS)
        The sums, in the order of `factors_of`.
    """

    def __init__(self, widths: Sequence[int], *, diagonal: bool = False) -> None:
        self.widths: Integers = np.array(widths, dtype=np.int64)
        self.n_null: Integers = np.zeros(len(widths), dtype=np.int64)
        self.n_null_places: Integers = np.zeros(sum(widths), dtype=np.int64)
        self.extremes = _no_extremes(sum(widths))
        self.conflict: tuple[int, int, int] | None = None
        self.diagonal = diagonal
        self.accumulators: Integers = np.zeros((0, ACCUMULATOR_WORDS), dtype=np.int64)
        self.n_slices = 0
        self._additions = 0

    @property
    def n_columns(self) -> int:
        """How many columns there are, the bias among them."""
        return 1 + int(self.widths.sum())

    @property
    def is_paired(self) -> bool:
        """Whether curvatures of pairs of features are kept."""
        return _is_paired(self.n_columns, self.diagonal)

    @property
    def nbytes(self) -> int:
        """How many bytes the sums take."""
        return self.accumulators.nbytes

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        self.n_slices = max(self.n_slices, n_slices)

    def prepare(self, widths: Sequence[int], n_rows: int) -> tuple[Integers, Integers]:
        """Have room for features of these widths, and return factors and accumulators for a loop over `n_rows` rows.

        A width of 0 says that no list of the feature was seen. Where `conflict` arises, nothing may be added.
        """
        self._widen(np.asarray(widths, dtype=np.int64))
        self._count_additions(n_rows)
        return factors_of(self.n_columns, self.is_paired), self.accumulators

    def observe(self, place: int, values: NDArray[Any], n_null: int) -> None:
        """Note the numbers of a column, counted from the first feature's, and how many of its lists lack theirs."""
        self.n_null_places[place] += n_null
        if len(values):
            # Zeros lose their sign, since which of two comes first would decide it.
            self.extremes[0, place] = min(self.extremes[0, place], float(values.min()) + 0.0)
            self.extremes[1, place] = max(self.extremes[1, place], float(values.max()) + 0.0)

    def merge(self, other: FeatureProductsColumn, positions: Integers) -> None:
        """Add the sums of another column."""
        self.n_null += other.n_null
        if other.conflict is not None:
            self.conflict = min(self.conflict, other.conflict) if self.conflict else other.conflict
        self._widen(other.widths)
        if self.conflict is not None or not len(other.accumulators):
            return
        present = _places(other.widths, self.widths)
        self.n_null_places[present] += other.n_null_places
        self.extremes[0, present] = np.minimum(self.extremes[0, present], other.extremes[0])
        self.extremes[1, present] = np.maximum(self.extremes[1, present], other.extremes[1])
        self._count_additions(other._additions + 1)
        theirs = _placed(other.accumulators, other.widths, other.is_paired, self.widths, self.is_paired)
        self.accumulators += theirs

    def normalize(self) -> None:
        """Carry every digit but the last into [0, 2^32), and have sums of features whose lists were never seen."""
        self._widen(self.widths)
        self._carry()

    def evaluate(self) -> FeatureProductSums:
        """Return the sums; they share the column's memory."""
        self.normalize()
        n_null = np.repeat(self.n_null, self.widths) + self.n_null_places
        # A null counts as 0, also where no list of a batch was there to hold it.
        lowest = np.where(n_null > 0, np.minimum(self.extremes[0], 0.0), self.extremes[0])
        highest = np.where(n_null > 0, np.maximum(self.extremes[1], 0.0), self.extremes[1])
        sums = ExactSums(self.accumulators)
        return FeatureProductSums(self.widths, n_null, lowest, highest, self.is_paired, sums)

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return the attributes by their names, and ``shape``: slices, and 1 if diagonal."""
        self.normalize()
        return {
            "accumulators": self.accumulators,
            "widths": self.widths,
            "n_null": self.n_null,
            "n_null_places": self.n_null_places,
            "extremes": self.extremes,
            "conflict": np.array(self.conflict or (), dtype=np.int64),
            "shape": np.array([self.n_slices, self.diagonal], dtype=np.int64),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields, in memory of its own."""
        column = cls(fields["widths"].tolist(), diagonal=bool(fields["shape"][1]))
        column.n_null = fields["n_null"].copy()
        column.n_null_places = fields["n_null_places"].copy()
        column.extremes = fields["extremes"].copy()
        column.accumulators = fields["accumulators"].copy()
        if len(fields["conflict"]):
            feature, low, high = fields["conflict"].tolist()
            column.conflict = feature, low, high
        column.n_slices = int(fields["shape"][0])
        return column

    def _widen(self, widths: Integers) -> None:
        different = np.flatnonzero((widths != self.widths) & (widths > 0) & (self.widths > 0))
        if len(different):
            feature = int(different[0])
            low, high = sorted((int(widths[feature]), int(self.widths[feature])))
            found = feature, low, high
            self.conflict = min(self.conflict, found) if self.conflict else found
            return
        wider = np.maximum(self.widths, widths)
        if len(self.accumulators) and (wider == self.widths).all():
            return
        n_columns = 1 + int(wider.sum())
        is_paired = _is_paired(n_columns, self.diagonal)
        if len(self.accumulators):
            self.accumulators = _placed(self.accumulators, self.widths, self.is_paired, wider, is_paired)
        else:
            n_sums = len(factors_of(n_columns, is_paired))
            self.accumulators = np.zeros((n_sums, ACCUMULATOR_WORDS), dtype=np.int64)
        n_null_places, extremes = self.n_null_places, self.extremes
        self.n_null_places, self.extremes = np.zeros(n_columns - 1, dtype=np.int64), _no_extremes(n_columns - 1)
        present = _places(self.widths, wider)
        self.n_null_places[present], self.extremes[:, present] = n_null_places, extremes
        self.widths = wider

    def _carry(self) -> None:
        if self._additions:
            normalize_words(self.accumulators)
            self._additions = 0

    def _count_additions(self, count: int) -> None:
        if self._additions + count > ADDITIONS_BEFORE_CARRY:
            self._carry()
        self._additions += count


@functools.cache
def factors_of(n_columns: int, is_paired: bool) -> Integers:
    """Return the two factors of each sum's terms, int64 ``(n_sums, 2)``.

    Columns of factors are numbered from 0: the features' columns, then curvature times each, then residual times each.
    """
    columns = range(n_columns)
    curved, residual = n_columns, 2 * n_columns
    gradients = [(residual + j, 0) for j in columns]
    squares = [(residual + j, residual + j) for j in columns]
    with_bias = [(residual, residual + j) for j in columns[1:]]
    if is_paired:
        curvatures = [(curved + j, k) for j in columns for k in columns[j:]]
    else:
        curvatures = [(curved, j) for j in columns] + [(curved + j, j) for j in columns[1:]]
    return np.array([*gradients, *squares, *with_bias, *curvatures], dtype=np.int64)


@functools.cache
def _positions(n_columns: int, is_paired: bool) -> Mapping[tuple[int, ...], int]:
    return {tuple(pair): number for number, pair in enumerate(factors_of(n_columns, is_paired).tolist())}


def _no_extremes(n_columns: int) -> Floats:
    return np.array([[np.inf], [-np.inf]]).repeat(n_columns, axis=1)


def _places(widths: Integers, wider: Integers) -> Integers:
    """Return where the columns of features stand among those of features some of which have more columns."""
    firsts = np.cumsum(wider) - wider
    found = [np.arange(first, first + width) for first, width in zip(firsts, widths, strict=True)]
    return np.concatenate([np.zeros(0), *found]).astype(np.int64)


def _is_paired(n_columns: int, diagonal: bool) -> bool:
    return not diagonal and n_columns - 1 <= MOST_PAIRED_COLUMNS


def _placed(
    accumulators: Integers, widths: Integers, is_paired: bool, wider: Integers, stays_paired: bool
) -> Integers:
    """Return the sums of features as those of features some of which have more columns, zeros in these."""
    if (widths == wider).all():
        return accumulators
    column_of = np.append(0, 1 + _places(widths, wider))
    old, new = len(column_of), 1 + int(wider.sum())
    kind, column = np.divmod(factors_of(old, is_paired), old)
    positions = _positions(new, stays_paired)
    placed = np.zeros((len(positions), ACCUMULATOR_WORDS), dtype=np.int64)
    for number, pair in enumerate((kind * new + column_of[column]).tolist()):
        # Without pairs, theirs are left out.
        if tuple(pair) in positions:
            placed[positions[tuple(pair)]] = accumulators[number]
    return placed
