"""ROC, precision-recall and gain curves of histograms of scores.

A point of a curve is a threshold: the rows with this score or a higher one are taken. While the different scores are
few enough to be buckets of their own, the curve is exact. Beyond that it has no point inside of a bucket, and what
area it may enclose there, in whatever order the bucket's rows stand, is part of the stated error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fastloss.curves.points import REASONS, CurvePoints, Floats, Integers
from fastloss.curves.thinning import Errors, chord_errors, step_errors, thin
from fastloss.states.cumulated import Cumulated, Masses
from fastloss.states.histogram import ScoreHistograms

# Rounding of the areas of buckets and their sum.
_ROUNDING = 1e-14


class _Thresholds(NamedTuple):
    """Every threshold of some slices, the highest of each first.

    `starts` says where each slice begins. `inside`, `above` and `reached` are of the bucket, of those above it, and of
    both; `whole` is of its slice. `unit` is the mass of a row, 0 where that is not known.
    """

    starts: Integers
    scores: Floats
    inside: Masses
    above: Masses
    reached: Masses
    whole: Masses
    unit: float


@dataclass(frozen=True)
class _Curves:
    """All points of the curves of many slices.

    Attributes
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where the points of each slice begin.
    values : tuple of ndarray of float64, (n_points,)
        The coordinates.
    lengths : ndarray of float64, (n_points,)
        How long the curve is between each point and the one before it.
    errors : callable
        What points leave open, for the step to each point.
    power : float
        By which power of the error parts get points.
    inside : ndarray of float64, (n_points,)
        The area that the curve may enclose inside of the bucket before each point.
    """

    starts: Integers
    values: tuple[Floats, ...]
    lengths: Floats
    errors: Errors
    power: float
    inside: Floats


def ranked_curves(kind: str, histograms: ScoreHistograms, slices: Integers, points: int | None) -> CurvePoints:
    """Return the curves of some slices, each of at most so many points, or of all of them.

    Parameters
    ----------
    kind : str
        One of `RANKED_CURVES`.
    histograms : ScoreHistograms
        The scores.
    slices : ndarray of int64
        Which slices.
    points : int or None
        The most points of each curve; None for all.
    """
    selected = _selected(histograms, slices)
    parts, first = [], 0
    for part in selected.cumulated():
        found = _some_curves(kind, part, points, may_hide=selected.dropped_bits > 0)
        parts.append(replace(found, slices=found.slices + first))
        first += part.n_slices
    names, none = RANKED_CURVES[kind].columns, np.empty(0)
    return CurvePoints(
        np.concatenate([np.empty(0, dtype=np.int64), *(part.slices for part in parts)]),
        {name: np.concatenate([none, *(part.columns[name] for part in parts)]) for name in names},
        np.concatenate([np.empty(0, dtype=np.int64), *(part.reasons for part in parts)]),
        np.concatenate([none, *(part.area_error for part in parts if part.area_error is not None)]),
    )


def _some_curves(kind: str, masses: Cumulated, points: int | None, *, may_hide: bool) -> CurvePoints:
    curve, whole = RANKED_CURVES[kind], masses.whole
    reasons = np.zeros(masses.n_slices, dtype=np.int64)
    if curve.needs_negative:
        reasons[(whole.positive == 0) | (whole.negative == 0)] = REASONS.index("one_class")
    reasons[(whole.positive == 0) & (not curve.needs_negative)] = REASONS.index("no_positive")
    reasons[np.diff(masses.starts) == 0] = REASONS.index("no_rows")
    defined = np.flatnonzero(reasons == 0)
    curves = curve.make(_falling(masses, defined))
    kept, errors = np.ones(len(curves.lengths), dtype=np.bool_), np.zeros(len(defined))
    if points is not None:
        kept, errors = thin(curves.starts, curves.lengths, curves.errors, points, curves.power)
    if may_hide and len(defined):
        hidden = np.add.reduceat(curves.inside, curves.starts[:-1])
        errors = errors + np.where(hidden > 0, hidden * (1 + 1e-9) + _ROUNDING, 0.0)
    of_slice = np.repeat(defined, np.diff(curves.starts))[kept]
    without = np.flatnonzero(reasons)
    slices = np.concatenate((of_slice, without))
    order = np.argsort(slices, kind="stable")
    area_error = np.full(masses.n_slices, np.nan)
    area_error[defined] = errors
    missing = np.full(len(without), np.nan)
    return CurvePoints(
        slices[order],
        {
            name: np.concatenate((values[kept], missing))[order]
            for name, values in zip(curve.columns, curves.values, strict=True)
        },
        reasons,
        area_error,
    )


def _falling(masses: Cumulated, slices: Integers) -> _Thresholds:
    """Return the thresholds of some slices from the highest score down."""
    sizes = np.diff(masses.starts)[slices]
    starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
    places = np.repeat(masses.starts[1:][slices] - 1 + starts[:-1], sizes) - np.arange(starts[-1])
    inside, above, reached = (
        Masses(each.positive[places], each.negative[places], each.weight[places])
        for each in (masses.inside, masses.above, masses.reached)
    )
    of, whole = masses.slices[places], masses.whole
    repeated = Masses(whole.positive[of], whole.negative[of], whole.weight[of])
    return _Thresholds(starts, masses.thresholds[places], inside, above, reached, repeated, masses.unit)


def _roc(found: _Thresholds) -> _Curves:
    starts, reached, whole = found.starts, found.reached, found.whole
    x = _from_origin(reached.negative / whole.negative, starts)
    y = _from_origin(reached.positive / whole.positive, starts)
    width = _from_origin(found.inside.negative / whole.negative, starts)
    height = _from_origin(found.inside.positive / whole.positive, starts)
    values = (_from_origin(found.scores, starts, np.nan), x, y)
    # All of a bucket's positives may stand above its negatives, or below: a triangle on either side.
    return _Curves(_with_origins(starts), values, width + height, _chords(x, y), 1 / 3, width * height / 2)


def _gain(found: _Thresholds) -> _Curves:
    starts, reached, whole = found.starts, found.reached, found.whole
    x = _from_origin(reached.weight / whole.weight, starts)
    y = _from_origin(reached.positive / whole.positive, starts)
    width = _from_origin(found.inside.weight / whole.weight, starts)
    height = _from_origin(found.inside.positive / whole.positive, starts)
    of_negatives = _from_origin(found.inside.negative / whole.weight, starts)
    lift = np.divide(y, x, out=np.full_like(x, np.nan), where=x > 0)
    values = (_from_origin(found.scores, starts, np.nan), x, y, lift)
    return _Curves(_with_origins(starts), values, width + height, _chords(x, y), 1 / 3, height * of_negatives / 2)


def _precision_recall(found: _Thresholds) -> _Curves:
    inside, above, reached = found.inside, found.above, found.reached
    recall, precision = reached.positive / found.whole.positive, reached.positive / reached.weight
    width = inside.positive / found.whole.positive
    # Inside of a bucket, precision is lowest at its first positive where all its negatives stand above that, and
    # highest at its last where they stand below.
    first = above.positive + np.minimum(found.unit, inside.positive)
    least, most = _share(first, reached.negative), _share(reached.positive, above.negative)
    hidden = width * np.maximum(np.maximum(most - precision, precision - least), 0.0)
    values = (found.scores, recall, precision)
    return _Curves(found.starts, values, width, lambda kept: step_errors(width, precision, kept), 1 / 2, hidden)


class _Kind(NamedTuple):
    """How a kind of curve is made, the names of its coordinates, and whether it needs a negative."""

    make: Callable[[_Thresholds], _Curves]
    columns: tuple[str, ...]
    needs_negative: bool


RANKED_CURVES: Mapping[str, _Kind] = {
    "roc": _Kind(_roc, ("threshold", "false_positive_rate", "true_positive_rate"), True),
    "precision_recall": _Kind(_precision_recall, ("threshold", "recall", "precision"), False),
    "gain": _Kind(_gain, ("threshold", "weight_share", "positive_share", "lift"), False),
}


def _chords(x: Floats, y: Floats) -> Errors:
    return lambda kept: chord_errors(x, y, kept)


def _share(positive: Floats, negative: Floats) -> Floats:
    """Return the share of the positives, 1 of nothing."""
    both = positive + negative
    return np.divide(positive, both, out=np.ones_like(both), where=both > 0)


def _selected(histograms: ScoreHistograms, slices: Integers) -> ScoreHistograms:
    """Return the histograms of some slices, in this order."""
    sizes = np.diff(histograms.starts)[slices]
    starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
    places = np.arange(starts[-1]) + np.repeat(histograms.starts[:-1][slices] - starts[:-1], sizes)
    return replace(histograms, starts=starts, buckets=histograms.buckets[places], masses=histograms.masses[places])


def _with_origins(starts: Integers) -> Integers:
    """Return where slices begin that have one more point each."""
    return starts + np.arange(len(starts))


def _from_origin(values: Floats, starts: Integers, origin: float = 0.0) -> Floats:
    """Put one more point before those of each slice."""
    return np.insert(values, starts[:-1], origin)
