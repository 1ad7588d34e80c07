"""Building blocks of NDCG: gains, ranks, ideal gain.

A discount is 1/log(1 + rank) here: the factor log 2 is in the ideal gain too, and cancels. Masked candidates are left
out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from fastloss_kernels.domain import Interval
from fastloss_kernels.double_double import divide_parts, log_of_positive_parts, multiply_parts, two_sum
from fastloss_kernels.elementary import expm1_parts
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.listwise.sums import sum_parts

# gain(label) -> (hi, lo)
Gain = Callable[[float], tuple[float, float]]

LOG2 = 0.6931471805599453
LOG2_SMALL = 2.3190468138462996e-17


@formula
def exp2_gain(y: float) -> tuple[float, float]:
    """Compute 2^y − 1 for y from 0 to 1000 as hi + lo."""
    x, x_lo = multiply_parts(y, LOG2, LOG2_SMALL)
    half, half_lo = expm1_parts(x)
    hi, lo = two_sum(half, half_lo)
    lo = fma(hi + 0.5, x_lo, lo)
    return 2.0 * hi, 2.0 * lo


@formula
def linear_gain(y: float) -> tuple[float, float]:
    """Return the label."""
    return y, 0.0


GAINS: dict[str, Gain] = {"exp2": exp2_gain, "linear": linear_gain}


def label_range_of(gain: str) -> Interval:
    """Return the labels whose gains, and sums of gains, are finite."""
    return Interval(0.0, 1000.0 if gain == "exp2" else 1e300)


@formula
def rank_of(score, k: int) -> float:
    """Return the rank of an unmasked candidate by its score, from 1; of equal ones the first is higher."""
    own = float(score[k])
    above = 0
    for j in range(score.shape[0]):
        x = float(score[j])
        above += 1 if (x > own) | ((x == own) & (j < k)) else 0
    return 1.0 + above


@formula
def position_by_label(score, label, k: int) -> int:
    """Return the position of a candidate by its label, from 0, masked ones last; of equal ones the first is first."""
    own = float(label[k]) if float(score[k]) > float("-inf") else float("-inf")
    before = 0
    for j in range(score.shape[0]):
        y = float(label[j]) if float(score[j]) > float("-inf") else float("-inf")
        before += 1 if (y > own) | ((y == own) & (j < k)) else 0
    return before


@functools.cache
def make_ideal(gain: Gain) -> Callable[..., tuple[float, float]]:
    """Make ``ideal(score, label, scratch, other)``: the gain of the candidates in the order of their labels."""

    @formula
    def ideal(score, label, scratch, other):
        for k in range(score.shape[0]):
            scratch[k] = 0.0
            other[k] = 0.0
            y = float(label[k])
            if (y > 0.0) & (float(score[k]) > float("-inf")):
                hi, lo = gain(y)
                log, log_lo = log_of_positive_parts(2.0 + position_by_label(score, label, k), 0.0)
                part, part_lo = divide_parts(hi, lo, log, log_lo)
                scratch[k] = part
                other[k] = part_lo
        hi, lo = sum_parts(scratch)
        rest, _ = sum_parts(other)
        return two_sum(hi, lo + rest)

    return ideal
