"""Cumulative masses of histograms of scores: what lies at or above each bucket, summed exactly and rounded once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.states.base import Integers
from fastloss.states.histogram import ScoreHistograms

Floats = NDArray[np.float64]
_Limbs = NDArray[np.int64]

# Masses span 1e±308; more than this exponent is scaled down, so that none is infinite.
_MOST_BITS = 960


class CumulativeMasses(NamedTuple):
    """Masses at or above the buckets of many slices.

    Attributes
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where each slice's buckets begin.
    buckets : ndarray of int64, (n_buckets,)
        For each place its bucket in the histograms; in each slice the highest scores come first.
    positive, negative : ndarray of float64, (n_buckets,)
        The mass of each class in this bucket and those before it, in a unit that is the same for all and cancels.
    """

    starts: Integers
    buckets: Integers
    positive: Floats
    negative: Floats


def cumulative_masses(histograms: ScoreHistograms) -> CumulativeMasses:
    """Return the masses of both classes from the highest score of each slice down.

    Sums, and the difference of weight and positive mass, are exact integers; as floats they are within an ulp.
    """
    starts, n_buckets = histograms.starts, len(histograms.buckets)
    n_limbs = histograms.masses.shape[1]
    buckets = np.repeat(starts[1:] - 1, np.diff(starts)) - (
        np.arange(n_buckets) - np.repeat(starts[:-1], np.diff(starts))
    )
    limbs = np.ascontiguousarray(histograms.masses).astype("<u8", copy=False).view("<u4")
    # As many 32-bit limbs as a state can have buckets stay below 2**63.
    sums = np.zeros((n_buckets + 1, 2 * n_limbs), dtype=np.int64)
    np.cumsum(limbs[buckets], axis=0, out=sums[1:])
    sums = sums[1:] - np.repeat(sums[starts[:-1]], np.diff(starts), axis=0)
    positive, weight = sums[:, :n_limbs], sums[:, n_limbs:]
    return CumulativeMasses(starts, buckets, _rounded(positive), _rounded(weight - positive))


def _rounded(limbs: _Limbs) -> Floats:
    """Return numbers of limbs of 32 bits, the lowest first, which may be larger, or below 0, in a common unit."""
    n_limbs = limbs.shape[1]
    carry = np.zeros(len(limbs), dtype=np.int64)
    digits = []
    for k in range(n_limbs):
        carry = limbs[:, k] + carry
        digits.append(carry & 0xFFFF_FFFF)
        carry >>= 32
    digits.append(carry)
    scale = min(0, _MOST_BITS - 32 * n_limbs)
    found = np.zeros(len(limbs))
    for k, digit in enumerate(digits):
        found += np.ldexp(digit.astype(np.float64), 32 * k + scale)
    return found
