"""The masses at and above every bucket of histograms: the points of curves over the thresholds of a score.

Masses are exact integers, and so are their sums; each number here is one of them, rounded once to float64. Units are
powers of two that differ between slices and cancel in quotients.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers, SliceRuns
from fastloss.states.sums import FEW_SLICES, SumColumn

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]

# The buckets of slices that are cumulated together: with all its points, a bucket takes about 200 bytes for a moment.
PART_BUCKETS = 1 << 20
_LIMB_MASK = 0xFFFF_FFFF
# What the weight of a slice is scaled to, so that masses far below it are numbers too.
_WHOLE_BITS = 900
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Masses:
    """Positive mass, negative mass, and their sum, the weight."""

    positive: Floats
    negative: Floats
    weight: Floats


@dataclass(frozen=True)
class Cumulated:
    """The points of the curves of some slices: what a threshold at each bucket gives.

    Attributes
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where each slice's buckets begin.
    slices : ndarray of int64, (n_buckets,)
        The slice of each bucket.
    thresholds : ndarray of float64, (n_buckets,)
        The lowest score that each bucket may hold; ascending in each slice.
    inside, above, reached : Masses of (n_buckets,)
        Those of the bucket, of the buckets above it in its slice, and of both together.
    whole : Masses of (n_slices,)
        Those of each slice.
    unit : float
        The mass of a row where each is a whole positive or negative of weight 1; 0 where that is not known.
    are_scores : ndarray of bool, (n_buckets,)
        Which buckets are known to be one score each, though others are not.
    """

    starts: Integers
    slices: Integers
    thresholds: Floats
    inside: Masses
    above: Masses
    reached: Masses
    whole: Masses
    unit: float
    are_scores: Mask

    @property
    def n_slices(self) -> int:
        """How many slices there are."""
        return len(self.starts) - 1

    @property
    def mixed(self) -> Mask:
        """The buckets that hold both classes, and may hold them at different scores."""
        mixed: Mask = (self.inside.positive > 0.0) & (self.inside.negative > 0.0) & ~self.are_scores
        return mixed

    def total(self, terms: Floats) -> Floats:
        """Return the sum of a finite term of each bucket by slice, rounded once."""
        if self.n_slices > FEW_SLICES:
            column = SumColumn()
            column.resize(self.n_slices)
            column.add(terms, SliceRuns(None, self.starts, np.arange(self.n_slices)))
            return column.evaluate().to_float()
        # The same digits, and nothing to compile.
        sums = [_exact_sum(terms[begin:end]) for begin, end in pairwise(self.starts.tolist())]
        return np.array(sums, dtype=np.float64)

    def largest(self, values: Floats, empty: float) -> Floats:
        """Return the largest value by slice, `empty` for slices without buckets."""
        return self._reduced(np.maximum, values, empty)

    def smallest(self, values: Floats, empty: float) -> Floats:
        """Return the smallest value by slice, `empty` for slices without buckets."""
        return self._reduced(np.minimum, values, empty)

    def lowest(self, marked: Mask) -> Integers:
        """Return the lowest marked bucket of each slice, −1 where none is marked."""
        found = np.full(self.n_slices, -1, dtype=np.int64)
        at = np.flatnonzero(marked)[::-1]
        found[self.slices[at]] = at
        return found

    def highest(self, marked: Mask) -> Integers:
        """Return the highest marked bucket of each slice, −1 where none is marked."""
        found = np.full(self.n_slices, -1, dtype=np.int64)
        at = np.flatnonzero(marked)
        found[self.slices[at]] = at
        return found

    def thresholds_at(self, places: Integers) -> Floats:
        """Return the thresholds at these buckets, NaN at −1."""
        found = np.full(len(places), np.nan)
        there = places >= 0
        found[there] = self.thresholds[places[there]]
        return found

    def _reduced(self, reduction: np.ufunc, values: Floats, empty: float) -> Floats:
        found = np.full(self.n_slices, empty)
        filled = np.diff(self.starts) > 0
        if filled.any():
            found[filled] = reduction.reduceat(values, self.starts[:-1][filled])
        return found


def cumulate(
    starts: Integers, thresholds: Floats, masses: Words, unit: float, are_scores: Mask | None = None
) -> Cumulated:
    """Cumulate masses of buckets, uint64 ``(n_buckets, 2 * n_digits)``, from the highest of each slice down."""
    starts = starts - starts[0]
    n_slices = len(starts) - 1
    slices = np.repeat(np.arange(n_slices), np.diff(starts))
    n_digits = masses.shape[1] // 2
    positive: NDArray[Any] = masses[:, 0] if n_digits == 1 else _limbs(masses[:, :n_digits])
    weight: NDArray[Any] = masses[:, 1] if n_digits == 1 else _limbs(masses[:, n_digits:])
    ends = starts[1:][slices]
    scale: Integers | None = None
    found: list[tuple[Floats, Floats, Floats]] = []
    for own in (weight, positive, weight - positive):
        sums = np.zeros((*own.shape[:-1], own.shape[-1] + 1), dtype=own.dtype)
        np.cumsum(own, axis=-1, out=sums[..., 1:])
        whole = sums[..., starts[1:]] - sums[..., starts[:-1]]
        reached = sums[..., ends] - sums[..., :-1]
        if n_digits > 2 and scale is None:
            scale = _WHOLE_BITS - _n_bits(_carried(whole))
        scales = None if scale is None else scale[slices]
        found.append((_floats(own.copy(), scales), _floats(reached, scales), _floats(whole, scale)))
    inside, to, whole_masses = (
        Masses(positive=found[1][k], negative=found[2][k], weight=found[0][k]) for k in range(3)
    )
    above = Masses(*(_above(each, starts) for each in (to.positive, to.negative, to.weight)))
    if are_scores is None:
        are_scores = np.zeros(len(slices), dtype=np.bool_)
    return Cumulated(starts, slices, thresholds, inside, above, to, whole_masses, unit, are_scores)


def _floats(numbers: NDArray[Any], scale: Integers | None) -> Floats:
    """Round integers of one word or of limbs, whose memory is used up, to float64; times 2^scale if it is given."""
    if numbers.ndim == 1:
        return numbers.astype(np.float64)
    limbs = _carried(numbers)
    return _rounded_short(limbs) if scale is None else _rounded(limbs, scale)


def parts_of(starts: Integers, most_buckets: int = PART_BUCKETS) -> Iterator[tuple[int, int]]:
    """Yield ranges of slices of so many buckets, or of one slice that has more."""
    first, n_slices = 0, len(starts) - 1
    while first < n_slices:
        stop = int(np.searchsorted(starts, starts[first] + most_buckets, side="right")) - 1
        stop = min(max(stop, first + 1), n_slices)
        yield first, stop
        first = stop


def _above(reached: Floats, starts: Integers) -> Floats:
    """Return what is reached by the next bucket of the same slice, 0 at the highest."""
    above = np.zeros(len(reached))
    above[:-1] = reached[1:]
    last = starts[1:][np.diff(starts) > 0] - 1
    above[last] = 0.0
    return above


def _exact_sum(terms: Floats) -> float:
    terms = terms[terms != 0.0]
    return math.fsum(chain.from_iterable(terms[at : at + _CHUNK].tolist() for at in range(0, len(terms), _CHUNK)))


def _limbs(digits: Words) -> Integers:
    """Return the limbs of 32 bits of numbers, the lowest first: int64 ``(n_limbs, n)``, with one above that is 0."""
    n, n_digits = digits.shape
    limbs = np.zeros((2 * n_digits + 1, n), dtype=np.int64)
    limbs[:-1:2] = (digits & np.uint64(_LIMB_MASK)).T
    limbs[1:-1:2] = (digits >> np.uint64(32)).T
    return limbs


def _carried(limbs: Integers) -> Integers:
    """Propagate carries, and borrows of limbs below 0, in place."""
    for k in range(len(limbs) - 1):
        limbs[k + 1] += limbs[k] >> 32
        limbs[k] &= _LIMB_MASK
    return limbs


def _n_bits(limbs: Integers) -> Integers:
    """Return how many bits numbers of limbs have."""
    top = _top(limbs)
    leading = np.take_along_axis(limbs, top[np.newaxis], axis=0)[0].astype(np.float64)
    bits: Integers = 32 * top + np.frexp(leading)[1]
    return bits


def _top(limbs: Integers) -> Integers:
    """Return the highest limb that is not 0, or 0."""
    top: Integers = len(limbs) - 1 - np.argmax((limbs != 0)[::-1], axis=0)
    return np.where(limbs.any(axis=0), top, 0)


def _rounded_short(limbs: Integers) -> Floats:
    """Return numbers of four limbs, and a fifth that is 0, rounded to nearest."""
    low, high = ((limbs[k + 1].view(np.uint64) << np.uint64(32)) | limbs[k].view(np.uint64) for k in (0, 2))
    # Rounded to float64 the high word may have a bit more than it has: then 63 bits are left, which are enough.
    n_bits = np.frexp(high.astype(np.float64))[1].astype(np.uint64)
    n_bits = np.minimum(n_bits, np.uint64(64))
    missing = np.uint64(64) - n_bits
    # A shift by 64 is undefined; two by halves of it are not.
    half, half_bits = missing >> np.uint64(1), n_bits >> np.uint64(1)
    leading = (high << half << (missing - half)) | (low >> half_bits >> (n_bits - half_bits))
    beyond = (low << half << (missing - half)) != 0
    leading |= beyond.astype(np.uint64)
    found: Floats = np.ldexp(leading.astype(np.float64), n_bits.astype(np.int32))
    return np.where(high == 0, low.astype(np.float64), found)


def _rounded(limbs: Integers, scale: Integers) -> Floats:
    """Return numbers of limbs times 2^scale, rounded to nearest."""
    top = _top(limbs)

    def limb(below: int) -> Words:
        found = np.take_along_axis(limbs, np.maximum(top - below, 0)[np.newaxis], axis=0)[0]
        return np.where(top >= below, found, 0).astype(np.uint64)

    first, second, third = limb(0), limb(1), limb(2)
    missing = (32 - np.frexp(first.astype(np.float64))[1]).astype(np.uint64)
    # The leading 64 bits, and a last one that stands for all that are beyond: enough to round a float64.
    leading = ((first << np.uint64(32) | second) << missing) | (third >> (np.uint64(32) - missing))
    beyond = ((third << missing) & np.uint64(_LIMB_MASK)) != 0
    beyond |= np.argmax(limbs != 0, axis=0) < top - 2
    leading |= beyond.astype(np.uint64)
    exponent = scale + 32 * (top - 1) - missing.astype(np.int64)
    found: Floats = np.ldexp(leading.astype(np.float64), exponent.astype(np.int32))
    return found
