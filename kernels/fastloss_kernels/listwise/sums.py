"""Building blocks of listwise formulas: order-independent sums, the maximum, softmax exponentials.

A list reaches a formula as slices of float64 arrays, one element a candidate. A score that is NaN marks a masked
candidate; so does −∞ in spaces where it stands for the probability 0.
"""

from __future__ import annotations

from fastloss_kernels.double_double import exp_parts, two_sum
from fastloss_kernels.elementary import exp_of_parts
from fastloss_kernels.jit import exact_add, float64_bits, float64_from_bits, fma, formula

LOWEST_KEY = -(2**63)
MAGNITUDE_BITS = 0x7FFF_FFFF_FFFF_FFFF
EXPONENT_FIELD = 0x7FF0_0000_0000_0000
# Terms of 2^1000 and more, infinities and NaN are added as they come.
LARGE_EXPONENT_FIELD = (1000 + 1023) << 52
# The sum of so many multiples of 2⁻³¹ of the largest term is exact.
LONGEST_SUM = 1 << 20


@formula
def highest_score(score) -> float:
    """Return the largest number of a list, −∞ where there is none: NaN is passed over.

    Over bit patterns in the order of the numbers, since a maximum of integers is a vector instruction.
    """
    best = LOWEST_KEY
    for j in range(score.shape[0]):
        x = float(score[j])
        bits = float64_bits(x)
        key = bits ^ ((bits >> 63) & MAGNITUDE_BITS)
        key = key if x > float("-inf") else LOWEST_KEY
        best = max(best, key)
    found = float64_from_bits(best ^ ((best >> 63) & MAGNITUDE_BITS))
    return float("-inf") if best == LOWEST_KEY else found


@formula
def first_position(score, x: float) -> int:
    """Return where a list first holds a number; its length where it does not."""
    n = score.shape[0]
    position = n
    for j in range(n):
        position = min(position, j if score[j] == x else n)
    return position


@formula
def split(x: float, scale: float) -> tuple[float, float]:
    """Split a term below twice `scale` at 2⁻³¹ and 2⁻⁶² of it, so that a sum of each part is exact."""
    first_split = scale * (1.5 * 2.0**21)
    second_split = scale * (1.5 * 2.0**-10)
    first = (x + first_split) - first_split
    return first, ((x - first) + second_split) - second_split


@formula
def sum_of_block(terms) -> tuple[float, float]:
    """Compute the sum of at most `LONGEST_SUM` terms as hi + lo, in any order the same.

    Each term is split at 2⁻³¹ and at 2⁻⁶² of the largest one, so that both sums are exact; what is left is dropped.
    """
    largest = 0
    for j in range(terms.shape[0]):
        largest = max(largest, float64_bits(abs(float(terms[j]))))
    hi = 0.0
    lo = 0.0
    if largest >= LARGE_EXPONENT_FIELD:
        for j in range(terms.shape[0]):
            hi += float(terms[j])
        return hi, lo
    scale = float64_from_bits(largest & EXPONENT_FIELD)
    for j in range(terms.shape[0]):
        first, second = split(float(terms[j]), scale)
        hi = exact_add(hi, first)
        lo = exact_add(lo, second)
    return two_sum(hi, lo)


@formula
def sum_parts(terms) -> tuple[float, float]:
    """Compute the sum of a list as hi + lo."""
    n = terms.shape[0]
    if n <= LONGEST_SUM:
        return sum_of_block(terms)
    hi = 0.0
    lo = 0.0
    for start in range(0, n, LONGEST_SUM):
        block, block_lo = sum_of_block(terms[start : min(start + LONGEST_SUM, n)])
        hi, lost = two_sum(hi, block)
        lo += lost + block_lo
    return hi, lo


@formula
def accumulate(totals, lost, k: int, term: float) -> None:
    """Add a term to one of many running sums, and what the addition loses to its place in `lost`."""
    total, low = two_sum(float(totals[k]), term)
    totals[k] = total
    lost[k] = float(lost[k]) + low


@formula
def exponential_parts(score, highest: float, top: int, out, out_lo) -> tuple[float, float]:
    """Fill `out` and `out_lo` with e^(s − highest) as hi + lo, 0 at `top` and where masked.

    Returns their sum as hi + lo, to 2⁻⁵⁶: more digits than `exponentials` gives.
    """
    for j in range(score.shape[0]):
        difference, lost = two_sum(float(score[j]), -highest)
        e, e_lo = exp_parts(difference)
        e_lo = fma(e, lost, e_lo)
        here = (difference > -746.0) & (j != top)
        out[j] = e if here else 0.0
        out_lo[j] = e_lo if here else 0.0
    hi, lo = sum_parts(out)
    low, lower = sum_parts(out_lo)
    return two_sum(hi, lo + (low + lower))


@formula
def exponentials(score, highest: float, top: int, out) -> tuple[float, float]:
    """Fill `out` with e^(s − highest), 0 at `top` and where masked; return their sum as hi + lo.

    The highest candidate stays out of the sum, so that log1p of it keeps a tail's digits; its exponential is 1. What
    the difference loses in rounding goes on with it: far from the highest score it would be many units.
    """
    for j in range(score.shape[0]):
        x = float(score[j])
        difference, lost = two_sum(x, -highest)
        e = exp_of_parts(difference, lost)
        e = e if difference > -800.0 else 0.0
        out[j] = 0.0 if j == top else e
    return sum_parts(out)
