"""Building blocks of pairwise losses: sums over the pairs of a list, a winner with the higher label and a loser.

Every winner is met with every loser once. Sums run over one side in vectors: a first pass bounds the terms, so that
all are split alike and added exactly in any order, as in `sums.sum_of_block`, but without an array to hold them.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable

from fastloss_kernels.domain import ListRow
from fastloss_kernels.double_double import rounded_sum, two_sum
from fastloss_kernels.jit import divide, exact_add, float64_bits, float64_from_bits, formula
from fastloss_kernels.listwise.sums import EXPONENT_FIELD, LONGEST_SUM, LOWEST_KEY, MAGNITUDE_BITS, split

# pair(difference, lost, parameters) -> (value, step, slope, curvature) by s_loser − s_winner = difference + lost. The
# derivative is step + slope, step 0 or 1, so that the ones in sums of both signs cancel exactly. The value does not
# fall as the difference rises; the magnitudes of slope and curvature do not rise with the difference's.
Pair = Callable[..., tuple[float, float, float, float]]

# A term of an infinite difference is taken at the largest finite one, and that the sum is infinite is seen apart.
LARGEST_DIFFERENCE = sys.float_info.max
# Beyond such scores terms are scaled down by so much, for their sums to stay finite.
LARGE_SCORE = 2.0**900
SHRINK = 2.0**-100
# As many candidates as exact sums allow.
MOST_PAIRS = LONGEST_SUM * (LONGEST_SUM - 1) // 2
DEFAULT_MOST_PAIRS = 10_000_000


def longest_list_of_pairs(max_pairs: int) -> int:
    """Return the largest n with n·(n − 1)/2 pairs at most `max_pairs`."""
    return (1 + math.isqrt(1 + 8 * max_pairs)) // 2


@formula
def fill_nan(gradient, hessian, derivatives) -> float:
    """Return NaN for a list that is too long, and fill its derivatives with it."""
    if derivatives:
        for j in range(gradient.shape[0]):
            gradient[j] = float("nan")
            hessian[j] = float("nan")
    return float("nan")


@formula
def lowest_label(score, label) -> tuple[float, float]:
    """Return the lowest label of an unmasked candidate, and what terms are to be multiplied by."""
    lowest = float("inf")
    out_of_scale = False
    for j in range(score.shape[0]):
        x = float(score[j])
        y = float(label[j]) if x > float("-inf") else float("inf")
        lowest = y if y < lowest else lowest
        out_of_scale |= (abs(x) > LARGE_SCORE) & (abs(x) < float("inf"))
    return lowest, SHRINK if out_of_scale else 1.0


@formula
def loses_to_infinity(score, label, parameters):
    """Tell whether a loser's score is infinite, and with it the loss of a pair."""
    infinite_label = float("inf")
    highest = float("-inf")
    for j in range(score.shape[0]):
        x = float(score[j])
        y = float(label[j])
        infinite_label = y if x == float("inf") else infinite_label
        highest = y if (x > float("-inf")) & (y > highest) else highest
    return infinite_label < highest


@formula
def floor_power_of_two(x: float) -> float:
    """Return the power of two at or below x ≥ 0, 0 where x is subnormal."""
    return float64_from_bits(float64_bits(x) & EXPONENT_FIELD)


@formula
def difference_parts(a: float, b: float) -> tuple[float, float]:
    """Compute a − b as hi + lo; infinity as the largest float64."""
    hi, lo = two_sum(a, -b)
    infinite = hi == float("inf")
    return LARGEST_DIFFERENCE if infinite else hi, lo if abs(hi) < float("inf") else 0.0


@functools.cache
def make_wins(pair: Pair) -> Callable[..., tuple[float, float, float, float, float]]:
    """Make ``wins(score, label, k, factor, parameters)``: sums over the pairs that candidate k wins.

    Returns the number of pairs, the sum of values, times the factor, that of derivatives by the losers as hi + lo,
    and that of curvatures.
    """

    @formula
    def wins(score, label, k, factor, parameters):
        own = float(score[k])
        own_label = float(label[k])
        worst_key = LOWEST_KEY
        nearest = MAGNITUDE_BITS
        count = 0
        for j in range(score.shape[0]):
            x = float(score[j])
            y = float(label[j])
            difference = x - own
            met = (y < own_label) & (x > float("-inf"))
            bits = float64_bits(difference)
            key = bits ^ ((bits >> 63) & MAGNITUDE_BITS)
            worst_key = max(worst_key, key if met else LOWEST_KEY)
            nearest = min(nearest, bits & MAGNITUDE_BITS if met else MAGNITUDE_BITS)
            count += 1 if met else 0
        if count == 0:
            return 0.0, 0.0, 0.0, 0.0, 0.0
        # One float64 beyond, for what the differences lost.
        worst_key += 1
        worst = float64_from_bits(worst_key ^ ((worst_key >> 63) & MAGNITUDE_BITS))
        infinite = not worst < float("inf")
        worst = worst if worst < LARGEST_DIFFERENCE else LARGEST_DIFFERENCE
        value_scale = floor_power_of_two(pair(worst, 0.0, parameters)[0] * factor)
        _, _, slope, curvature = pair(float64_from_bits(max(nearest - 1, 0)), 0.0, parameters)
        slope_scale = floor_power_of_two(abs(slope))
        curvature_scale = floor_power_of_two(curvature)
        value = 0.0
        value_lo = 0.0
        steps = 0.0
        slope = 0.0
        slope_lo = 0.0
        curvature = 0.0
        curvature_lo = 0.0
        for j in range(score.shape[0]):
            x = float(score[j])
            y = float(label[j])
            met = (y < own_label) & (x > float("-inf"))
            difference, lost = difference_parts(x, own)
            v, step, g, h = pair(difference, lost, parameters)
            hi, lo = split(v * factor if met else 0.0, value_scale)
            value = exact_add(value, hi)
            value_lo = exact_add(value_lo, lo)
            steps = exact_add(steps, step if met else 0.0)
            hi, lo = split(g if met else 0.0, slope_scale)
            slope = exact_add(slope, hi)
            slope_lo = exact_add(slope_lo, lo)
            hi, lo = split(h if met else 0.0, curvature_scale)
            curvature = exact_add(curvature, hi)
            curvature_lo = exact_add(curvature_lo, lo)
        total = float("inf") if infinite else value + value_lo
        slope, lost = two_sum(slope, slope_lo)
        steps, slope = two_sum(steps, slope)
        return float(count), total, steps, slope + lost, curvature + curvature_lo

    return wins


@functools.cache
def make_gather(pair: Pair) -> Callable[..., None]:
    """Make the addition of one winner's pairs to its losers' derivatives, kept as hi + lo each."""

    @formula
    def gather(own, own_label, score, label, parameters, slopes, slopes_lo, curvatures, curvatures_lo):
        for j in range(score.shape[0]):
            x = float(score[j])
            met = (float(label[j]) < own_label) & (x > float("-inf"))
            difference, lost = difference_parts(x, own)
            _, step, g, h = pair(difference, lost, parameters)
            slope, step_lost = two_sum(float(slopes[j]), step if met else 0.0)
            slope, slope_lost = two_sum(slope, g if met else 0.0)
            curvature, curvature_lost = two_sum(float(curvatures[j]), h if met else 0.0)
            slopes[j] = slope
            slopes_lo[j] = float(slopes_lo[j]) + (step_lost + slope_lost)
            curvatures[j] = curvature
            curvatures_lo[j] = float(curvatures_lo[j]) + curvature_lost

    return gather


@functools.cache
def make_pairwise_row(pair: Pair) -> ListRow:
    """Make the mean of a function of pairs over all pairs of a list.

    Parameters are the largest number of candidates, and then what the pair's function reads. A longer list has NaN.

    Notes
    -----
    A winner's derivatives are sums over its losers, and a loser's over its winners. The second are gathered for all
    losers at once, winner by winner, with what each addition loses kept beside them. So lists of few winners, which
    are most lists, cost no more than those.
    """
    wins = make_wins(pair)
    gather = make_gather(pair)

    @formula
    def row(score, label, parameters, scratch, gradient, hessian, derivatives):
        n = score.shape[0]
        if n > parameters[0]:
            return fill_nan(gradient, hessian, derivatives)
        lowest, factor = lowest_label(score, label)
        gradient_lost = scratch[0, :n]
        hessian_lost = scratch[1, :n]
        total = 0.0
        total_lo = 0.0
        pairs = 0.0
        for k in range(n):
            slope = 0.0
            slope_lo = 0.0
            curvature = 0.0
            if (float(label[k]) > lowest) & (float(score[k]) > float("-inf")):
                count, value, slope, slope_lo, curvature = wins(score, label, k, factor, parameters)
                pairs += count
                total, lost = two_sum(total, value)
                total_lo += lost
            if derivatives:
                gradient[k] = -slope
                gradient_lost[k] = -slope_lo
                hessian[k] = curvature
                hessian_lost[k] = 0.0
        if derivatives:
            for i in range(n):
                if (float(label[i]) > lowest) & (float(score[i]) > float("-inf")):
                    gather(
                        float(score[i]),
                        float(label[i]),
                        score,
                        label,
                        parameters,
                        gradient,
                        gradient_lost,
                        hessian,
                        hessian_lost,
                    )
            for k in range(n):
                gradient[k] = divide(float(gradient[k]) + float(gradient_lost[k]), pairs)
                hessian[k] = divide(float(hessian[k]) + float(hessian_lost[k]), pairs)
        return divide(divide(rounded_sum(total, total_lo), pairs), factor)

    return row
