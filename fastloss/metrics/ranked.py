"""What all metrics share that are read from a histogram of scores."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from fastloss.errors import UsageError
from fastloss.metrics.base import BINARY_LABEL, Floats, Mask, MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.states.base import Integers, StateSpec
from fastloss.states.cumulated import PART_BUCKETS, Cumulated
from fastloss.states.histogram import Buckets, ScoreHistogram, ScoreHistograms
from fastloss_kernels.domain import SPACES, Interval

# Bounds further apart than this leave no value.
WIDEST = 0.01


@dataclass(frozen=True)
class RankedMetric(PlainMetric):
    """A metric of the order of scores, with certain bounds.

    Scores are ranked as they stand in the column. A label y between 0 and 1 makes a row of weight w a positive of
    weight w·y and a negative of weight w·(1 − y).

    The histogram leaves open how the rows of one bucket are ordered, and nothing else, so `low` and `high` are
    certain: the exact value lies between them. While the different scores are few enough to be buckets of their own,
    all three are the exact value.

    Attributes
    ----------
    exact : bool
        Read the log a second time where the histogram leaves something open, and keep every different score of the
        buckets that matter. ROC AUC and Gini do with one pass where rows have no weights and no slices, labels are 0
        and 1, and there are at most 6 rows for each of `most_scores`.
    most_scores : int
        How many of them may be kept, in all slices of a grouping together; each takes about 50 bytes, and a row that
        is kept in one pass 4 (of float32) or 8.
    """

    exact: bool = False
    most_scores: int = 8_000_000

    parameters: ClassVar[tuple[str, ...]] = ("exact", "most_scores")
    # The name without parameters.
    family: ClassVar[str]
    # The parameter that is written behind an @, as in lift@0.1.
    main: ClassVar[str | None] = None
    spaces = tuple(SPACES)
    # Masses are sums of the weights themselves.
    rounds_weights = False

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        if not isinstance(self.exact, bool):
            raise ValueError(f"exact is {self.exact!r}; allowed: true or false.")
        if isinstance(self.most_scores, bool) or not isinstance(self.most_scores, int) or self.most_scores < 1:
            raise ValueError(f"most_scores is {self.most_scores!r}; allowed: a whole number from 1.")

    def check_share(self, name: str) -> None:
        """Refuse a parameter that is no number above 0 and at most 1; whole ones become floats."""
        given = getattr(self, name)
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 < given <= 1.0:
            raise ValueError(f"{name} is {given!r}; allowed: a number above 0 and at most 1.")
        object.__setattr__(self, name, float(given))

    @property
    def name(self) -> str:
        """The name with those parameters that are not the default and can change the value."""
        defaults = {field.name: field.default for field in fields(self)}
        shown = [name for name in self.parameters if name not in ("most_scores", self.main)]
        changed = [f"{name}={getattr(self, name)!r}" for name in shown if getattr(self, name) != defaults[name]]
        head = self.family if self.main is None else f"{self.family}@{getattr(self, self.main)!r}"
        return f"{head}({', '.join(changed)})" if changed else head

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 in every space."""
        return BINARY_LABEL

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the histogram, and the weight that goes with the value."""
        rows = model.rows()
        return (model.scores, *model.weight(rows))

    def open_buckets(self, states: SliceStates) -> Buckets:
        """Return the buckets whose scores an exact value needs: here those that hold both classes."""
        return self.first(states).mixed_buckets()

    def in_one_pass(self, model: ModelFacts, threads: int) -> tuple[StateSpec, ...]:
        """Return the statistics with which an exact value may need no second pass, of a log without slices."""
        return ()

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the scores of the buckets that leave something open, if an exact value is asked for."""
        if not self.exact:
            return ()
        if not self.first(states).dropped_bits:
            return ()
        wanted = self.open_buckets(states)
        if not np.frombuffer(wanted.words, dtype="<i8").any():
            return ()
        rows = states.model.rows()
        # Weights have two digits as a rule.
        return (
            ScoreHistogram(rows, score_bytes=self.most_scores * (48 if states.model.weighted else 32), only=wanted),
        )

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the scores of crowded buckets, with which a second pass brings the bounds together.

        No exact value is asked for then, so a second pass may be left out. All metrics of the histogram share it.
        """
        first = self.first(states)
        if self.exact or not first.dropped_bits or first.crowded is None:
            return ()
        return (ScoreHistogram(states.model.rows(), only=first.crowded),)

    def first(self, states: SliceStates) -> ScoreHistograms:
        """Return the histograms of the first pass."""
        found: ScoreHistograms = states[states.model.scores]
        return found

    def refined(self, states: SliceStates, wanted: tuple[StateSpec, ...]) -> ScoreHistograms | None:
        """Return the scores of the second pass that `refine` wanted, if there was one.

        Raises
        ------
        UsageError
            If they are more than `most_scores`.
        """
        specs = [spec for spec in wanted if spec in states]
        if not specs:
            return None
        found: ScoreHistograms = states[specs[0]]
        if found.dropped_bits:
            raise UsageError(
                f"{self.family}(exact=true) would keep more than {self.most_scores:,} different scores of column "
                f"{states.model.column!r}. Raise most_scores (each takes about 50 bytes), or leave out exact: "
                "low and high then bound the value."
            )
        return found

    def histograms(self, states: SliceStates) -> tuple[ScoreHistograms, bool]:
        """Return what the values are read from, and whether no bucket leaves something open."""
        first = self.first(states)
        if not first.dropped_bits:
            return first, True
        if not self.exact:
            sharper: ScoreHistograms = states.once("sharper histograms", lambda: self._sharpened(states))
            return sharper, False
        wanted = self.refine(states)
        if not wanted:
            return first, True
        refined = self.refined(states, wanted)
        if refined is None:
            return first, False
        (spec,) = wanted
        assert isinstance(spec, ScoreHistogram)
        assert spec.only is not None
        return _combined(first, refined, spec.only, all_are_scores=True), True

    def _sharpened(self, states: SliceStates) -> ScoreHistograms:
        """Return the histograms of the first pass, with scores in place of crowded buckets if there was a second."""
        first = self.first(states)
        for spec in self.sharpen(states):
            if spec in states and not states[spec].dropped_bits:
                assert isinstance(spec, ScoreHistogram)
                assert spec.only is not None
                return _combined(first, states[spec], spec.only, all_are_scores=False)
        return first


@dataclass
class Reading:
    """What a metric reads off the curves of some slices.

    Attributes
    ----------
    value, low, high : ndarray of float64, (n_slices,)
        The values and their bounds.
    reasons : list of (mask, str)
        Where there is no value, and why; the first reason of a slice counts.
    threshold : ndarray of float64 or None
        The threshold that gives the value, NaN where none does.
    left_open : ndarray of float64 or None
        How far apart bounds are for the order of both classes alone; None where they are for nothing else.
    """

    value: Floats
    low: Floats
    high: Floats
    reasons: list[tuple[Mask, str]]
    threshold: Floats | None = None
    left_open: Floats | None = None


class CurveMetric(RankedMetric):
    """A metric that is read off the points of a curve over the thresholds of a score.

    A threshold at a bucket predicts a positive for the rows of that bucket and of all above it.
    """

    @abstractmethod
    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Return the values of some slices; if `exact`, the scores of no bucket matter."""

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets whose scores an exact value needs: here those that hold both classes."""
        return points.mixed

    def open_buckets(self, states: SliceStates) -> Buckets:
        """Return the buckets whose scores an exact value needs, in all slices together."""
        first = self.first(states)
        with np.errstate(all="ignore"):
            marked = [self.open_at(points) for points in _points(states, first)]
        return first.chosen(np.concatenate(marked))

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Read the curve of every slice."""
        rows = states.model.rows()
        histograms, exact = self.histograms(states)
        with np.errstate(all="ignore"):
            readings = [self.read(points, exact=exact) for points in _points(states, histograms)]
        values = MetricValues(np.concatenate([np.empty(0), *(found.value for found in readings)]), rows)
        if not readings:
            return values
        low, high = (np.concatenate([getattr(found, name) for found in readings]) for name in ("low", "high"))
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        for k, (_, reason) in enumerate(readings[0].reasons):
            values.explain(np.concatenate([found.reasons[k][0] for found in readings]), reason, undefined=True)
        add_bounds(values, low, high)
        if readings[0].threshold is not None:
            threshold = np.concatenate([np.empty(0) if r.threshold is None else r.threshold for r in readings])
            values.evidence["threshold"] = threshold
            values.absent["threshold"] = values.undefined | np.isnan(threshold)
        apart = np.concatenate([r.high - r.low if r.left_open is None else r.left_open for r in readings])
        too_close = (apart > WIDEST) & ~values.undefined
        values.explain(too_close, "scores_too_close", undefined=True)
        if "threshold" in values.absent:
            values.absent["threshold"] |= too_close
        return values


def _points(states: SliceStates, histograms: ScoreHistograms) -> Iterable[Cumulated]:
    """Return the points of the curves; those of the first pass are shared where they are one part."""
    if len(histograms.buckets) > PART_BUCKETS or histograms is not states[states.model.scores]:
        return histograms.cumulated()
    points: list[Cumulated] = states.once(ScoreHistogram, lambda: list(histograms.cumulated()))
    return points


def _combined(
    first: ScoreHistograms, refined: ScoreHistograms, only: Buckets, *, all_are_scores: bool
) -> ScoreHistograms:
    """Return histograms that have the scores of a second pass in place of the buckets that it is of.

    The others may be taken for scores, too, where nothing depends on theirs.
    """
    words = np.frombuffer(only.words, dtype="<i8")
    places = first.buckets + (1 << (63 - only.dropped_bits))
    kept = np.flatnonzero((words[places >> 6] >> (places & 63)) & 1 == 0)
    n_slices = len(first.starts) - 1
    parts = (first, kept, first.buckets[kept] << first.dropped_bits), (refined, slice(None), refined.buckets)
    low = min(part.low_digit for part, _, _ in parts)
    n_digits = max(part.low_digit + part.masses.shape[1] // 2 for part, _, _ in parts) - low
    masses = []
    for part, chosen, _ in parts:
        begin, own = part.low_digit - low, part.masses.shape[1] // 2
        found = np.zeros((len(part.buckets[chosen]), 2, n_digits), dtype=np.uint64)
        found[:, :, begin : begin + own] = part.masses[chosen].reshape(-1, 2, own)
        masses.append(found.reshape(-1, 2 * n_digits))
    buckets = np.concatenate([scores for _, _, scores in parts])
    slices = np.concatenate([part.slices[chosen] for part, chosen, _ in parts])
    order = np.lexsort((buckets, slices))
    starts: Integers = np.searchsorted(slices[order], np.arange(n_slices + 1)).astype(np.int64, copy=False)
    are_scores = None
    if not all_are_scores:
        are_scores = np.repeat([False, True], [len(kept), len(refined.buckets)])[order]
    return ScoreHistograms(0, low, starts, buckets[order], np.concatenate(masses)[order], are_scores)


def add_bounds(values: MetricValues, low: Floats, high: Floats) -> None:
    """Add `low` and `high` as evidence, absent where the value is undefined by now."""
    if len(values.value):
        values.evidence |= {"low": low, "high": high}
        values.absent |= {"low": values.undefined.copy(), "high": values.undefined.copy()}


def bounded_quotient(certain: int, open_: int, whole: int) -> tuple[float, float, float]:
    """Return value, low and high of a numerator of at least `certain` and at most ``certain + 2 * open_``.

    The value is that of the midpoint, rounded to nearest; the bounds are the same number if nothing is open, and else
    rounded outward. All are NaN if `whole` is 0.
    """
    if whole == 0:
        return math.nan, math.nan, math.nan
    value = (certain + open_) / whole
    if open_ == 0:
        return value, value, value
    return value, _rounded(certain, whole, -math.inf), _rounded(certain + 2 * open_, whole, math.inf)


def _rounded(numerator: int, denominator: int, toward: float) -> float:
    """Return a quotient rounded down or up."""
    nearest = numerator / denominator
    n, d = nearest.as_integer_ratio()
    error = n * denominator - numerator * d
    beyond = error > 0 if toward < 0 else error < 0
    return math.nextafter(nearest, toward) if beyond else nearest
