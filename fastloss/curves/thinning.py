"""Thinning of curves: some of their points, and how much area can lie between those and the whole curve.

Points are dealt out by bins of equal width on an axis along the curve. The axis is at first the length of the curve,
then, in a few rounds, half of that and half what the points of the last round left open: more points go to where the
curve bends. Of each bin the first point is kept, and the last before a gap of empty bins, so that a jump keeps both of
its ends. Every slice keeps the points of its best round. All steps are arithmetic on arrays of all slices together.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
# Of the points that are kept, how much area lies between the curve and what they draw, for the step to each point.
Errors = Callable[[Mask], Floats]

FEWEST_POINTS = 3
_ROUNDS = 4
# Steps of an axis.
_AXIS = 1 << 40
# Rounding of coordinates, products and their sums.
_ROUNDING = 1e-14


def thin(starts: Integers, lengths: Floats, errors: Errors, points: int, power: float) -> tuple[Mask, Floats]:
    """Return which points to keep, and for each slice a bound of the area that this leaves open.

    Parameters
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where the points of each slice begin.
    lengths : ndarray of float64, (n_points,)
        The length of the curve between each point and the one before it in its slice.
    errors : callable
        The area between the whole curve and the points of a mask, for the step to each point.
    points : int
        The most points of each slice, at least 3.
    power : float
        By which power of a part's error it gets points: 1/3 where the error falls as the square of their number, 1/2
        where it falls as their number.
    """
    n_points = np.diff(starts)
    slice_of = np.repeat(np.arange(len(n_points)), n_points)
    is_end = np.zeros(len(slice_of), dtype=np.bool_)
    is_end[starts[:-1][n_points > 0]] = True
    is_end[starts[1:][n_points > 0] - 1] = True
    kept = np.ones(len(slice_of), dtype=np.bool_)
    left = np.zeros(len(n_points))
    large = n_points > points
    if not large.any():
        return kept, left
    least = np.full(len(n_points), np.inf)
    lengths = _in_shares(lengths, starts, slice_of)
    axis = lengths
    for _ in range(_ROUNDS):
        chosen = _first_of_bins(axis, starts, slice_of, is_end, points - 1) | ~large[slice_of]
        error = errors(chosen)
        total = _sums(error, starts)
        better = total < least
        least = np.where(better, total, least)
        kept = np.where(better[slice_of], chosen, kept)
        # The error of each part between two points, spread over it as its length is.
        part = _parts(chosen)
        of_part = np.bincount(part, weights=error) ** power
        length_of_part = np.bincount(part, weights=lengths)
        density = np.divide(of_part, length_of_part, out=np.zeros_like(of_part), where=length_of_part > 0)
        axis = 0.5 * lengths + 0.5 * _in_shares(density[part] * lengths, starts, slice_of)
    left[large] = least[large] * (1 + 1e-9) + _ROUNDING
    return kept, left


def chord_errors(x: Floats, y: Floats, kept: Mask) -> Floats:
    """Return the area between a line that never falls and the straight line between the points that are kept.

    It is that of the step to each point, at most; slices lie one after the other, each with both ends kept.
    """
    ends = np.flatnonzero(kept)
    part = _parts(kept)
    last, first = ends[part], np.concatenate(([0], ends[:-1]))[part]
    width, height = x[last] - x[first], y[last] - y[first]
    beside = np.abs((x - x[first]) * height - (y - y[first]) * width)
    # The point before lies on the line where it is the first of the part.
    before = np.concatenate(([0.0], beside[:-1]))
    along = np.diff(x, prepend=x[:1]) * width + np.diff(y, prepend=y[:1]) * height
    square = width * width + height * height
    area = np.divide(along * (beside + before), 2.0 * square, out=np.zeros_like(x), where=square > 0)
    found: Floats = np.maximum(area, 0.0)
    return found


def step_errors(widths: Floats, y: Floats, kept: Mask) -> Floats:
    """Return the area between steps of these widths and those that the points that are kept draw with their own y."""
    last = np.flatnonzero(kept)[_parts(kept)]
    return np.asarray(widths * np.abs(y - y[last]))


def _parts(kept: Mask) -> Integers:
    """Return for each point the number of its part, which ends at a point that is kept."""
    parts: Integers = np.cumsum(kept) - kept
    return parts


def _first_of_bins(axis: Floats, starts: Integers, slice_of: Integers, is_end: Mask, n_bins: int) -> Mask:
    """Return the first point of each bin of an axis, the last before a gap, and both ends of every slice."""
    # In integers, what is chosen of a slice does not depend on the slices beside it.
    summed = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(np.rint(axis * _AXIS).astype(np.int64))))
    bins = np.minimum((summed[1:] - summed[starts[:-1]][slice_of]) * n_bins // _AXIS, n_bins - 1)
    step = np.diff(bins, prepend=0)
    chosen: Mask = is_end | (step > 0)
    chosen[:-1] |= step[1:] > 1
    return chosen


def _in_shares(lengths: Floats, starts: Integers, slice_of: Integers) -> Floats:
    """Return lengths as shares of those of their slice."""
    total = _sums(lengths, starts)
    total[total == 0] = 1.0
    return np.asarray(lengths / total[slice_of])


def _sums(values: Floats, starts: Integers) -> Floats:
    """Return the sum of each slice."""
    found = np.zeros(len(starts) - 1)
    filled = starts[:-1] < starts[1:]
    if filled.any():
        found[filled] = np.add.reduceat(values, starts[:-1][filled])
    return found
