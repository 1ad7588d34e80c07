"""Exact sums by bins of the prediction: the state behind errors of calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, RowSet, SliceRuns
from fastloss.states.counts import CountColumn
from fastloss.states.sums import SumColumn
from fastloss_kernels.cpu import bins as loops
from fastloss_kernels.exact_sum import ExactSums

Floats = NDArray[np.float64]

_NO_ORDER: Integers = np.empty(0, dtype=np.int64)
_NO_WEIGHTS: Floats = np.empty(0)


@dataclass(frozen=True)
class BinnedSums:
    """Count, weight, label and prediction of the rows in each bin of the predicted probability, exactly.

    Attributes
    ----------
    rows : RowSet
        The rows that it takes.
    binning : str
        How the bins lie: "width" or "logit".
    n_bins : int
        How many there are.
    weighted : bool
        Whether rows have weights; the sum of squared weights is then kept too.
    """

    rows: RowSet
    binning: str
    n_bins: int
    weighted: bool

    @property
    def name(self) -> str:
        """The name in state files."""
        return f"{self.n_bins} bins by {self.binning}"

    @property
    def bytes_per_slice(self) -> int:
        """About how many bytes a slice takes."""
        return self.n_bins * (8 + 80 * (4 if self.weighted else 2))

    def identity(self) -> BinnedSumsColumn:
        """Return a column without slices."""
        return BinnedSumsColumn(self.n_bins, self.weighted)


@dataclass(frozen=True)
class Edges:
    """The edges of bins, for predictions of one space.

    Attributes
    ----------
    inner : numpy.ndarray of float64, shape (n_bins + 1,)
        The edges, of which the outer two are −∞ and ∞.
    scale, offset : float
        ``key * scale + offset`` is 0, 1, ... where bins begin.
    of_scores : bool
        Whether they are edges of the logits in the column; else of predicted probabilities.
    by_odds : bool
        Whether scale and offset are of the logits of these probabilities.
    """

    inner: Floats
    scale: float
    offset: float
    of_scores: bool
    by_odds: bool = False


@dataclass(frozen=True)
class BinSums:
    """What bins hold, those of slice s from ``s · n_bins`` on.

    Attributes
    ----------
    n_bins : int
        How many bins a slice has.
    n : numpy.ndarray of int64, shape (n_slices · n_bins,)
        The rows.
    label, prediction, weight : ExactSums
        Σw·y, Σw·p and Σw.
    squared_weight : ExactSums
        Σw².
    """

    n_bins: int
    n: Integers
    label: ExactSums
    prediction: ExactSums
    weight: ExactSums
    squared_weight: ExactSums


class BinnedSumsColumn:
    """The bins of many slices: columns of counts and sums whose slices are the bins of slices."""

    def __init__(self, n_bins: int, weighted: bool) -> None:
        self.n_slices = 0
        self._n_bins = n_bins
        self._weighted = weighted
        self._counts = CountColumn()
        # Label and prediction, and weight and squared weight where there are weights.
        self._sums = [SumColumn() for _ in range(4 if weighted else 2)]

    @property
    def nbytes(self) -> int:
        """How many bytes counts and sums take."""
        return self._counts.nbytes + sum(column.nbytes for column in self._sums)

    def resize(self, n_slices: int) -> None:
        """Have at least `n_slices` slices."""
        self.n_slices = max(self.n_slices, n_slices)
        self._counts.resize(self.n_slices * self._n_bins)
        for column in self._sums:
            column.resize(self.n_slices * self._n_bins)

    def add_rows(
        self,
        prediction: Floats,
        label: Floats,
        weight: Floats | None,
        keys: Floats,
        edges: Edges,
        runs: SliceRuns,
    ) -> None:
        """Add each row to the bin of its slice that `edges` tell for its key, float64 ``(n_rows,)``.

        Labels and predictions lie in [0, 1], weights above 0.
        """
        if not len(label):
            return
        exponent = math.frexp(1.0 if weight is None else float(weight.max()))[1]
        fits = loops.LOWEST_EXPONENT_OF_WEIGHTS <= exponent <= loops.HIGHEST_EXPONENT
        if runs.starts is None or not fits:
            self._add_each(prediction, label, weight, keys, edges, runs)
            return
        windows = [loops.window_of(exponent)] * 3 + [loops.window_of(2 * exponent)]
        # Two parts of a term are added.
        words = [c.accumulators(*w, 2 * len(label)) for c, w in zip(self._sums, windows, strict=False)]
        lows = [column.low for column in self._sums]
        late = np.empty((len(label), 2), dtype=np.int64)
        weights = _NO_WEIGHTS if weight is None else weight
        order = _NO_ORDER if runs.order is None else runs.order
        arrays: list[NDArray[Any]] = [prediction, label, weights, keys, edges.inner]
        runs_of: list[NDArray[Any]] = [order, runs.starts, runs.positions]
        n_late = loops.make_add_to_bins()(
            *map(_read_only, arrays), edges.scale, edges.offset, edges.by_odds, *map(_read_only, runs_of), exponent,
            self._counts.counts, *(words if self._weighted else [*words, *words]), np.array([*lows, *lows][:4]), late,
        )  # fmt: skip
        if n_late:
            rows, bins = late[:n_late].T
            terms = _terms(prediction[rows], label[rows], None if weight is None else weight[rows])
            for column, values, power in zip(self._sums, terms, (1, 1, 1, 2), strict=False):
                column.add(loops.left_of(values, power * exponent), SliceRuns(None, None, np.ascontiguousarray(bins)))

    def _add_each(
        self,
        prediction: Floats,
        label: Floats,
        weight: Floats | None,
        keys: Floats,
        edges: Edges,
        runs: SliceRuns,
    ) -> None:
        """Add each row by itself: the way for many slices, and for weights of any size."""
        bins = np.empty(len(keys), dtype=np.int32)
        loops.make_find_bins()(
            _read_only(keys), _read_only(edges.inner), edges.scale, edges.offset, edges.by_odds, bins
        )
        order = slice(None) if runs.order is None else runs.order
        positions = runs.positions if runs.starts is None else np.repeat(runs.positions, np.diff(runs.starts))
        own = SliceRuns(None, None, positions * self._n_bins + bins[order])
        self._counts.add_lengths(own)
        for column, values in zip(self._sums, _terms(prediction, label, weight), strict=True):
            column.add(values[order], own)

    def merge(self, other: BinnedSumsColumn, positions: Integers) -> None:
        """Add slice i of another column to the slice ``positions[i]``."""
        own = (positions[:, np.newaxis] * self._n_bins + np.arange(self._n_bins)).reshape(-1)
        self._counts.merge(other._counts, own)
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            mine.merge(theirs, own)

    def normalize(self) -> None:
        """Bring the sums into the form that is read and stored."""
        for column in self._sums:
            column.normalize()

    def evaluate(self) -> BinSums:
        """Return counts and sums; they share the column's memory."""
        n = self._counts.evaluate()
        label, prediction, *weights = (column.evaluate() for column in self._sums)
        weight, squares = weights or [ExactSums.from_counts(n)] * 2
        return BinSums(self._n_bins, n, label, prediction, weight, squares)

    def fields(self) -> dict[str, NDArray[Any]]:
        """Return `form`, int64 ``(2,)``: the bins of a slice, and whether rows have weights; and those of the parts.

        ``counts`` is as `CountColumn` has it, ``label_words``, ``label_low`` and so on as `SumColumn` has them, their
        slices being the bins of slices.
        """
        fields = {"form": np.array([self._n_bins, self._weighted], dtype=np.int64), **self._counts.fields()}
        for name, column in zip(_NAMES, self._sums, strict=False):
            fields |= {f"{name}_{field}": array for field, array in column.fields().items()}
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, NDArray[Any]]) -> Self:
        """Return the column that has these fields."""
        n_bins, weighted = fields["form"].tolist()
        column = cls(n_bins, bool(weighted))
        column._counts = CountColumn.from_fields(fields)
        column._sums = [
            SumColumn.from_fields({field: fields[f"{name}_{field}"] for field in ("words", "low")})
            for name, _ in zip(_NAMES, column._sums, strict=False)
        ]
        if any(part.n_slices != column._counts.n_slices for part in column._sums) or column._counts.n_slices % n_bins:
            raise ValueError("the bins of counts and sums are not the same")
        column.n_slices = column._counts.n_slices // n_bins
        return column


_NAMES = ("label", "prediction", "weight", "squared_weight")


def _terms(prediction: Floats, label: Floats, weight: Floats | None) -> list[Floats]:
    """Return what is summed of each row, in the order of the columns."""
    if weight is None:
        return [label, prediction]
    return [label * weight, prediction * weight, weight, weight * weight]


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return a view of the one kind that loops are compiled for."""
    view = array.view()
    view.flags.writeable = False
    return view
