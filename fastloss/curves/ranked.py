"""ROC, precision-recall and gain curves of histograms of scores.

A point of a curve is a threshold: the rows with this score or a higher one are taken. While the different scores are
few enough to be buckets of their own, the curve is exact. Beyond that it has no point inside of a bucket, and what
area it may enclose there, in whatever order the bucket's rows stand, is part of the stated error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fastloss.curves.points import CurvePoints, Floats, Integers
from fastloss.curves.thinning import Errors, chord_errors, step_errors, thin
from fastloss.states.cumulative import CumulativeMasses, cumulative_masses
from fastloss.states.histogram import ScoreHistograms

# Rounding of the areas of buckets and their sum.
_ROUNDING = 1e-14
# So many buckets are worked on at a time.
_BUCKETS = 1 << 20


@dataclass(frozen=True)
class _Curves:
    """All points of the curves of many slices.

    Attributes
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where the points of each slice begin.
    columns : mapping of str to ndarray of float64, (n_points,)
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
    columns: Mapping[str, Floats]
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
    sizes = np.diff(histograms.starts)[slices]
    # Many slices are worked on in parts, so that the memory is bounded.
    ends = np.flatnonzero(np.diff(np.cumsum(sizes) // _BUCKETS)) + 1
    parts = [_some_curves(kind, _selected(histograms, part), points) for part in np.split(slices, ends)]
    first = np.concatenate(([0], ends))
    errors = [part.area_error for part in parts if part.area_error is not None]
    return CurvePoints(
        np.concatenate([part.slices + at for part, at in zip(parts, first, strict=True)]),
        {name: np.concatenate([part.columns[name] for part in parts]) for name in parts[0].columns},
        np.concatenate([part.reasons for part in parts]),
        np.concatenate(errors),
    )


def _some_curves(kind: str, histograms: ScoreHistograms, points: int | None) -> CurvePoints:
    n_slices = len(histograms.starts) - 1
    masses = cumulative_masses(histograms)
    positive, negative = (_last(mass, masses.starts) for mass in (masses.positive, masses.negative))
    make, needs_negative = RANKED_CURVES[kind]
    has_rows = np.diff(histograms.starts) > 0
    is_defined = has_rows & (positive > 0) & ((negative > 0) | (not needs_negative))
    defined = np.flatnonzero(is_defined)
    if len(defined) < n_slices:
        histograms = _selected(histograms, defined)
        masses = cumulative_masses(histograms)
    lowest, _ = histograms.score_bounds()
    curves = make(masses, lowest[masses.buckets])
    kept, errors = np.ones(len(curves.lengths), dtype=np.bool_), np.zeros(len(defined))
    if points is not None:
        kept, errors = thin(curves.starts, curves.lengths, curves.errors, points, curves.power)
    if histograms.dropped_bits and len(defined):
        errors = errors + np.add.reduceat(curves.inside, curves.starts[:-1]) * (1 + 1e-9) + _ROUNDING
    of_slice = np.repeat(defined, np.diff(curves.starts))[kept]
    without = np.flatnonzero(~is_defined)
    slices = np.concatenate((of_slice, without))
    order = np.argsort(slices, kind="stable")
    area_error = np.full(n_slices, np.nan)
    area_error[defined] = errors
    missing = np.full(len(without), np.nan)
    return CurvePoints(
        slices[order],
        {name: np.concatenate((column[kept], missing))[order] for name, column in curves.columns.items()},
        np.where(is_defined, 0, np.where(has_rows, 2, 1)),
        area_error,
    )


def _roc(masses: CumulativeMasses, scores: Floats) -> _Curves:
    starts = _with_origins(masses.starts)
    x = _from_origin(_shares(masses.negative, masses.starts), masses.starts)
    y = _from_origin(_shares(masses.positive, masses.starts), masses.starts)
    threshold = _from_origin(scores, masses.starts, np.nan)
    columns = {"threshold": threshold, "false_positive_rate": x, "true_positive_rate": y}
    width, height = _steps(x, starts), _steps(y, starts)
    # All of a bucket's positives may stand above its negatives, or below: a triangle on either side.
    return _Curves(starts, columns, width + height, _chords(x, y), 1 / 3, width * height / 2)


def _gain(masses: CumulativeMasses, scores: Floats) -> _Curves:
    starts = _with_origins(masses.starts)
    taken = masses.positive + masses.negative
    x = _from_origin(_shares(taken, masses.starts), masses.starts)
    y = _from_origin(_shares(masses.positive, masses.starts), masses.starts)
    threshold = _from_origin(scores, masses.starts, np.nan)
    lift = np.divide(y, x, out=np.full_like(x, np.nan), where=x > 0)
    columns = {"threshold": threshold, "weight_share": x, "positive_share": y, "lift": lift}
    whole = np.repeat(_last(taken, masses.starts), np.diff(starts))
    negative = _steps(_from_origin(masses.negative, masses.starts), starts) / whole
    width, height = _steps(x, starts), _steps(y, starts)
    return _Curves(starts, columns, width + height, _chords(x, y), 1 / 3, height * negative / 2)


def _precision_recall(masses: CumulativeMasses, scores: Floats) -> _Curves:
    starts = masses.starts
    taken = masses.positive + masses.negative
    recall, precision = _shares(masses.positive, starts), masses.positive / taken
    columns = {"threshold": scores, "recall": recall, "precision": precision}
    width = _steps(recall, starts)
    # The precision inside of a bucket is lowest where its negatives stand above its positives.
    above, below = (mass - _steps(mass, starts) for mass in (masses.positive, masses.negative))
    all_above = above + masses.negative
    least = np.divide(above, all_above, out=np.ones_like(above), where=all_above > 0)
    at_most = masses.positive + below
    most = np.divide(masses.positive, at_most, out=np.zeros_like(above), where=at_most > 0)
    inside = width * np.maximum(most - precision, precision - least)
    return _Curves(starts, columns, width, lambda kept: step_errors(width, precision, kept), 1 / 2, inside)


# How a curve is made, and whether it needs a negative.
RANKED_CURVES: Mapping[str, tuple[Callable[[CumulativeMasses, Floats], _Curves], bool]] = {
    "roc": (_roc, True),
    "precision_recall": (_precision_recall, False),
    "gain": (_gain, False),
}


def _chords(x: Floats, y: Floats) -> Errors:
    return lambda kept: chord_errors(x, y, kept)


def _selected(histograms: ScoreHistograms, slices: Integers) -> ScoreHistograms:
    """Return the histograms of some slices, in this order."""
    sizes = np.diff(histograms.starts)[slices]
    starts = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(sizes)))
    places = np.arange(starts[-1]) + np.repeat(histograms.starts[:-1][slices] - starts[:-1], sizes)
    return replace(histograms, starts=starts, buckets=histograms.buckets[places], masses=histograms.masses[places])


def _last(values: NDArray[np.float64], starts: Integers) -> Floats:
    """Return the last value of each slice, 0 where it has none."""
    found = np.zeros(len(starts) - 1)
    filled = starts[:-1] < starts[1:]
    found[filled] = values[starts[1:][filled] - 1]
    return found


def _shares(values: Floats, starts: Integers) -> Floats:
    """Return cumulative values as shares of the last of their slice."""
    return np.asarray(values / np.repeat(_last(values, starts), np.diff(starts)))


def _with_origins(starts: Integers) -> Integers:
    """Return where slices begin that have one more point each."""
    return starts + np.arange(len(starts))


def _from_origin(values: Floats, starts: Integers, origin: float = 0.0) -> Floats:
    """Put one more point before those of each slice."""
    return np.insert(values, starts[:-1], origin)


def _steps(values: Floats, starts: Integers) -> Floats:
    """Return how far each value lies from the one before it in its slice, the first from 0."""
    found = np.diff(values, prepend=0.0)
    filled = starts[:-1] < starts[1:]
    found[starts[:-1][filled]] = values[starts[:-1][filled]]
    return found
