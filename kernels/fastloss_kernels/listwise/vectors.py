"""Building blocks of norms: scales that keep squares within range, and scalar products in double-double."""

from __future__ import annotations

from fastloss_kernels.double_double import two_sum
from fastloss_kernels.jit import float64_bits, float64_from_bits, fma, formula
from fastloss_kernels.listwise.sums import EXPONENT_FIELD, sum_parts

LOWEST_FIELD = 1 << 52
HIGHEST_FIELD = 2046 << 52


@formula
def power_of_two_of(largest: float) -> float:
    """Return the power of two that scales a magnitude to between 1 and 2, or nearly.

    A subnormal one stays below 1, the largest binade stays below 4, and 0 stays 0.
    """
    field = max(float64_bits(largest) & EXPONENT_FIELD, LOWEST_FIELD)
    return float64_from_bits(max(HIGHEST_FIELD - field, LOWEST_FIELD))


@formula
def power_of_two_below(vector, score) -> float:
    """Return the power of two that scales a vector's largest unmasked element to about 1."""
    largest = 0
    for j in range(vector.shape[0]):
        bits = float64_bits(abs(float(vector[j])))
        largest = max(largest, bits if score[j] == score[j] else 0)
    return power_of_two_of(float64_from_bits(largest))


@formula
def dot_parts(a, a_scale: float, b, b_scale: float, score, scratch, scratch_lo) -> tuple[float, float]:
    """Compute the scalar product of two scaled vectors over unmasked candidates as hi + lo, hi rounded."""
    for j in range(score.shape[0]):
        x = float(a[j]) * a_scale
        y = float(b[j]) * b_scale
        product = x * y
        lost = fma(x, y, -product)
        here = score[j] == score[j]
        scratch[j] = product if here else 0.0
        scratch_lo[j] = lost if here else 0.0
    hi, lo = sum_parts(scratch)
    low, lower = sum_parts(scratch_lo)
    return two_sum(hi, lo + (low + lower))
