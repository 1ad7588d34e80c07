"""Errors of calibration by bins of the predicted probability."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.base import (
    LEAST_WEIGHT,
    PROBABILITY_SPACES,
    WEIGHTS_TOO_SMALL,
    MetricValues,
    ModelFacts,
    PlainMetric,
    SliceStates,
)
from fastloss.metrics.binning import predicted_means, probability_edges
from fastloss.metrics.ranked import add_bounds
from fastloss.states.base import SliceRuns, StateSpec
from fastloss.states.bins import BinnedSums, BinSums
from fastloss.states.histogram import ScoreHistograms
from fastloss.states.sums import SumColumn
from fastloss_kernels.exact_sum import ExactSums, normalize_words

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BINNINGS = ("width", "mass", "logit")
_MOST_BINS = 10_000
# Bins of equal mass whose sums are held at the same time, at about 400 bytes each.
_BINS_AT_ONCE = 1 << 18
# Bounds from a histogram are sums of rounded products of numbers up to 1, divided by the weight: this is far beyond
# what their rounding takes.
_ROUNDING = 2.0**-50
# Weights are squared for intervals: a mean weight from here on has squares that are numbers.
_LEAST_SQUARED = 2.0**-480
# The 97.5 % point of the normal distribution.
_Z = 1.959963984540054


@dataclass(frozen=True)
class CalibrationBins:
    """Bins of predicted probabilities with what they hold: arrays of shape ``(n_slices, n_bins)``, NaN for nothing.

    Attributes
    ----------
    lower, upper : numpy.ndarray of float64
        Where a bin begins and ends, as probabilities. Of bins of equal mass, the lowest and the highest prediction
        that it may hold.
    n : numpy.ndarray of float64
        The rows; of bins of equal mass of weighted rows they are not known.
    weight, mean_prediction, mean_label : numpy.ndarray of float64
        Σw, Σw·p / Σw and Σw·y / Σw. A bin without rows has no means.
    low, high : numpy.ndarray of float64
        Wilson's interval of the mean label, at 95 %. Of weighted rows, n is Kish's effective number, (Σw)² / Σw².

    References
    ----------
    Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American Statistical
    Association 22, 1927. Kish, Survey sampling, 1965, section 11.7.
    """

    lower: Floats
    upper: Floats
    n: Floats
    weight: Floats
    mean_prediction: Floats
    mean_label: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class _Filled:
    """The bins of all slices, one after the other; of a histogram, Σw·p lies between two sums.

    The middle one is what a value is computed from; all three are one where nothing is open.
    """

    n_bins: int
    label: ExactSums
    weight: ExactSums
    middle: ExactSums
    least: ExactSums
    most: ExactSums
    is_open: bool = False


@dataclass(frozen=True)
class _BinnedError(PlainMetric):
    n_bins: int = 20
    binning: Literal["width", "mass", "logit"] = "width"

    parameters: ClassVar[tuple[str, ...]] = ("n_bins", "binning")
    family: ClassVar[str]
    spaces = PROBABILITY_SPACES

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        if isinstance(self.n_bins, bool) or not isinstance(self.n_bins, int) or not 1 <= self.n_bins <= _MOST_BINS:
            raise ValueError(f"n_bins is {self.n_bins!r}; allowed: a whole number from 1 to {_MOST_BINS:,}.")
        _check_word("binning", self.binning, _BINNINGS)

    @property
    def name(self) -> str:
        """The name with those parameters that are not the default."""
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.family}({', '.join(changed)})" if changed else self.family

    @property
    def places(self) -> tuple[str, int]:
        """Where the bins lie: the binning, and how many there are."""
        return self.binning, self.n_bins

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the sums of each bin, or the histogram that bins of equal mass are read from."""
        return (self._spec(model), *model.weight(model.rows()))

    def _spec(self, model: ModelFacts) -> StateSpec:
        if self.binning == "mass":
            return model.scores
        return BinnedSums(model.rows(), self.binning, self.n_bins, model.weighted)

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Compare the mean prediction of every bin with its mean label."""
        rows = states.model.rows()
        value, low, high = _joined([self._bounded(filled) for filled in self._filled(states)], 3)
        values = MetricValues(value, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        if self.binning == "mass":
            values.explain(np.isinf(states.weight(rows).to_float()), "weights_too_large", undefined=True)
        values.explain(np.isnan(value), WEIGHTS_TOO_SMALL, undefined=True)
        if self.binning == "mass":
            add_bounds(values, low, high)
        return values

    def _bounded(self, filled: _Filled) -> tuple[Floats, Floats, Floats]:
        """Return value, low and high of some slices."""
        of_all = sums_of_runs(filled.weight, self.n_bins)
        value = self._reduce(magnitudes(filled.middle - filled.label), filled, of_all)
        if not filled.is_open:
            return value, value, value
        above, below = filled.least - filled.label, filled.label - filled.most
        none = ExactSums.from_counts(np.zeros(len(above), dtype=np.int64))
        low = self._reduce(_larger(_larger(above, below), none), filled, of_all) - _ROUNDING
        high = self._reduce(_larger(magnitudes(above), magnitudes(below)), filled, of_all) + _ROUNDING
        return value, np.maximum(low, 0.0), high

    def _reduce(self, gaps: ExactSums, filled: _Filled, of_all: ExactSums) -> Floats:
        """Return a value for each slice from Σw·|mean p − mean y| of every bin."""
        raise NotImplementedError

    def _filled(self, states: SliceStates) -> Iterator[_Filled]:
        """Yield the bins of some slices at a time."""
        found = states[self._spec(states.model)]
        if isinstance(found, BinSums):
            sums = found.prediction
            yield _Filled(self.n_bins, found.label, found.weight, sums, sums, sums)
            return
        assert isinstance(found, ScoreHistograms)
        for part in self._parts(found):
            yield _fill(part, self.n_bins, states.model.space)

    def _parts(self, found: ScoreHistograms) -> Iterator[ScoreHistograms]:
        # Each of these slices has all its bins, most of them perhaps empty.
        return found.parts(max(1, _BINS_AT_ONCE // self.n_bins))

    def bins(self, states: SliceStates) -> CalibrationBins:
        """Return the bins of every slice."""
        model, found = states.model, states[self._spec(states.model)]
        columns = []
        for filled in self._filled(states):
            weight = filled.weight.to_float()
            # Bins of equal mass of a weight that overflows cannot be told.
            weight[weight == np.inf] = np.nan if self.binning == "mass" else np.inf
            told = weight >= LEAST_WEIGHT
            means = (np.where(told, sums / filled.weight, np.nan) for sums in (filled.middle, filled.label))
            columns.append((weight, *means))
        weight, mean_prediction, mean_label = _joined(columns, 3)
        n = effective = weight
        if isinstance(found, BinSums):
            edges = probability_edges(self.binning, self.n_bins)
            lower, upper = (np.tile(side, states.n_slices) for side in (edges[:-1], edges[1:]))
            n = found.n.astype(np.float64)
            if model.weighted:
                effective = weight * (found.weight / found.squared_weight)
                # Squares of smaller weights are not numbers enough.
                effective[weight < _LEAST_SQUARED * n] = np.nan
        else:
            lower, upper = _joined([_mass_edges(part, self.n_bins, model.space) for part in self._parts(found)], 2)
            if model.weighted:
                n = effective = np.full(len(weight), np.nan)
        table = (lower, upper, n, weight, mean_prediction, mean_label, *_wilson(mean_label, effective))
        return CalibrationBins(*(column.reshape(states.n_slices, self.n_bins) for column in table))


@dataclass(frozen=True)
class ExpectedCalibrationError(_BinnedError):
    """The mean distance of mean prediction and mean label over bins of the predicted probability, by weight.

    Bins without rows are left out. Sums are exact, so the value is rounded once.

    Attributes
    ----------
    n_bins : int
        How many bins there are.
    binning : {"width", "mass", "logit"}
        Where they lie. "width": ``[i/B, (i + 1)/B)``, the last one closed. "logit": of equal width in the logit from
        −10 to 10, the outer two open, which tells small probabilities apart. "mass": of about equal weight, as far as
        equal scores allow, read from the histogram of scores; a bucket belongs to the bin of its weight's middle. All
        that is open then is the prediction within a bucket, so that the exact value for these bins lies between `low`
        and `high`; they are equal while every score is a bucket of its own.
    norm : {"l1", "l2"}
        The mean of distances, or the square root of the mean of their squares.

    References
    ----------
    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015. Kumar,
    Liang and Ma, Verified uncertainty calibration, NeurIPS 2019, for bins of equal mass and the norm l2.
    """

    norm: Literal["l1", "l2"] = "l1"

    parameters: ClassVar[tuple[str, ...]] = ("n_bins", "binning", "norm")
    family = "expected_calibration_error"
    definition = "Σ over bins of (W_b/W)·|mean p − mean y|"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        super().__post_init__()
        _check_word("norm", self.norm, ("l1", "l2"))

    def _reduce(self, gaps: ExactSums, filled: _Filled, of_all: ExactSums) -> Floats:
        if self.norm == "l1":
            return sums_of_runs(gaps, filled.n_bins) / of_all
        squares = (gaps / filled.weight) ** 2 * (filled.weight / _repeated(of_all, filled.n_bins))
        # The squares of empty bins are NaN.
        listed = np.where(filled.weight.is_zero, 0.0, squares).reshape(-1, filled.n_bins).tolist()
        return np.array([math.sqrt(math.fsum(each)) for each in listed], dtype=np.float64)


@dataclass(frozen=True)
class MaximumCalibrationError(_BinnedError):
    """The largest distance of mean prediction and mean label over bins of the predicted probability.

    Bins without rows are left out; few rows are enough for a bin to count. Bins lie as those of
    `expected_calibration_error`.

    References
    ----------
    Naeini, Cooper and Hauskrecht, Obtaining well calibrated probabilities using Bayesian binning, AAAI 2015.
    """

    family = "maximum_calibration_error"
    definition = "the largest |mean p − mean y| of all bins"

    def _reduce(self, gaps: ExactSums, filled: _Filled, of_all: ExactSums) -> Floats:
        distances = np.where(filled.weight.is_zero, 0.0, gaps / filled.weight)
        # Of other metrics such a bin is next to nothing.
        distances[~filled.weight.is_zero & (filled.weight.to_float() < LEAST_WEIGHT)] = np.nan
        largest: Floats = distances.reshape(-1, filled.n_bins).max(axis=1)
        return largest


def _check_word(name: str, given: object, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        raise ValueError(f"{name} is {given!r}; allowed: {' or '.join(map(repr, allowed))}.")


def _joined(parts: Sequence[tuple[Floats, ...]], n_columns: int) -> list[Floats]:
    """Return columns of all slices from those of some at a time, which may be none."""
    return [np.concatenate([np.empty(0), *(part[column] for part in parts)]) for column in range(n_columns)]


def magnitudes(sums: ExactSums) -> ExactSums:
    """Return the absolute value of each sum."""
    words = sums.words.copy()
    words[_is_negative(sums), : sums.n_limbs] *= -1
    return ExactSums(normalize_words(words), sums.low)


def _larger(first: ExactSums, second: ExactSums) -> ExactSums:
    """Return the larger of two sums, sum by sum."""
    difference = second - first
    words = difference.words.copy()
    words[_is_negative(difference)] = 0
    return first + ExactSums(words, difference.low)


def _is_negative(sums: ExactSums) -> NDArray[np.bool_]:
    negative: NDArray[np.bool_] = sums.words[:, sums.n_limbs - 1] < 0
    return negative


def sums_of_runs(sums: ExactSums, length: int) -> ExactSums:
    """Return the sum of each run of so many sums, exactly."""
    words = sums.words.reshape(-1, length, sums.n_limbs + 3).sum(axis=1)
    return ExactSums(normalize_words(words), sums.low)


def _repeated(sums: ExactSums, times: int) -> ExactSums:
    return sums.take(np.repeat(np.arange(len(sums)), times))


def _equal_mass(found: ScoreHistograms, n_bins: int) -> Integers:
    """Return the bin of every bucket, counted over all slices: that of the middle of its weight."""
    weight = found.masses_as_float()[1]
    bins = np.zeros(len(weight), dtype=np.int64)
    # Each slice by itself, so that its bins depend on no other.
    for s, (first, stop) in enumerate(zip(found.starts[:-1].tolist(), found.starts[1:].tolist(), strict=True)):
        if first == stop:
            continue
        ends = np.cumsum(weight[first:stop])
        if np.isinf(ends[-1]):
            # There is no value of these.
            bins[first:stop] = s * n_bins
            continue
        own = np.floor(n_bins * ((ends - 0.5 * weight[first:stop]) / ends[-1]))
        bins[first:stop] = s * n_bins + np.clip(own, 0, n_bins - 1).astype(np.int64)
    return bins


def _fill(found: ScoreHistograms, n_bins: int, space: str) -> _Filled:
    """Return the bins of equal mass."""
    bins = _equal_mass(found, n_bins)
    positive, weight = found.masses_as_float()
    least, most = _predicted(found, space)
    n_all = (len(found.starts) - 1) * n_bins
    label, total = (_sum_by_bin(terms, bins, n_all) for terms in (positive, weight))
    middle = _sum_by_bin(weight * (0.5 * least + 0.5 * most), bins, n_all)
    if not found.dropped_bits:
        return _Filled(n_bins, label, total, middle, middle, middle)
    lower, upper = (_sum_by_bin(weight * side, bins, n_all) for side in (least, most))
    return _Filled(n_bins, label, total, middle, lower, upper, is_open=True)


def _mass_edges(found: ScoreHistograms, n_bins: int, space: str) -> tuple[Floats, Floats]:
    """Return the lowest and the highest prediction of each bin of equal mass."""
    bins = _equal_mass(found, n_bins)
    least, most = _predicted(found, space)
    lower, upper = (np.full((len(found.starts) - 1) * n_bins, np.nan) for _ in range(2))
    # Buckets ascend, so the last one that is written to a bin is its highest.
    upper[bins] = most
    lower[bins[::-1]] = least[::-1]
    return lower, upper


def _predicted(found: ScoreHistograms, space: str) -> tuple[Floats, Floats]:
    """Return the lowest and the highest probability that each bucket's predictions may stand for."""
    low, high = (predicted_means(side, space) for side in found.score_bounds())
    return np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)


def _sum_by_bin(terms: Floats, bins: Integers, n_bins: int) -> ExactSums:
    """Return exact sums of the buckets' terms, whose bins ascend."""
    column = SumColumn()
    column.resize(n_bins)
    present, first = np.unique(bins, return_index=True)
    column.add(terms, SliceRuns(None, np.append(first, len(terms)).astype(np.int64), present))
    return column.evaluate()


def _wilson(rate: Floats, n: Floats) -> tuple[Floats, Floats]:
    """Return Wilson's interval of a rate of n rows; NaN for none."""
    with np.errstate(all="ignore"):
        scale = 1.0 + _Z * _Z / n
        center = rate + _Z * _Z / (2.0 * n)
        half = _Z * np.sqrt(rate * (1.0 - rate) / n + _Z * _Z / (4.0 * n * n))
        return np.maximum((center - half) / scale, 0.0), np.minimum((center + half) / scale, 1.0)
