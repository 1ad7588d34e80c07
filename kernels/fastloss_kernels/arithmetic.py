"""Numbers kept as an unevaluated sum of two float64, large + small, where one would round away what a loss needs."""

from __future__ import annotations

from fastloss_kernels.elementary import INVERSE_LOG2, LOG2_HIGH, LOG2_LOW, ROUND, exp_tail
from fastloss_kernels.jit import divide, float64_bits, float64_from_bits, fma, formula


@formula
def two_sum(a: float, b: float) -> tuple[float, float]:
    """Compute a + b rounded, and what the rounding lost, exactly (Knuth, TAOCP 2, 4.2.2)."""
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


@formula
def square(large: float, small: float) -> float:
    """Compute (large + small)² within one ULP; what is lost is no number where something overflows, and left out."""
    plain = large * large
    better = plain + fma(2.0 * large, small, fma(large, large, -plain))
    return better if better == better else plain


@formula
def squared_difference(a: float, b: float) -> float:
    """Compute (a − b)² within one ULP."""
    large, small = two_sum(a, -b)
    return square(large, small)


@formula
def exp_parts(x: float) -> tuple[float, float]:
    """Compute eˣ for x ≤ 0 as large + small, to 2⁻⁵⁸ of its size until it is subnormal; the method is `exp`'s."""
    x = -746.0 if x < -746.0 else x
    rounded = fma(x, INVERSE_LOG2, ROUND)
    k = rounded - ROUND
    high = fma(k, -LOG2_HIGH, x)
    r = fma(k, -LOG2_LOW, high)
    rest, lost = two_sum(high, fma(k, -LOG2_LOW, (r * r) * exp_tail(r)))
    large = 1.0 + rest
    small = ((1.0 - large) + rest) + lost
    fields = float64_bits(rounded + 2046.0)
    first_bits = (fields & -2) << 51
    first = float64_from_bits(first_bits)
    second = float64_from_bits((fields << 52) - first_bits)
    return large * first * second, small * first * second


@formula
def sigmoid_parts(x: float) -> tuple[float, float, float, float]:
    """Compute σ(x) and σ(−x), each as large + small, to about 2⁻⁵⁶ of its size until it is subnormal."""
    e, e_small = exp_parts(-abs(x))
    total = 1.0 + e
    total_small = ((1.0 - total) + e) + e_small
    likely = divide(1.0, total)
    likely_small = likely * fma(-likely, total_small, fma(-likely, total, 1.0))
    unlikely = e * likely
    unlikely_small = fma(e, likely, -unlikely) + fma(e, likely_small, e_small * likely)
    right = x > 0.0
    return (
        likely if right else unlikely,
        likely_small if right else unlikely_small,
        unlikely if right else likely,
        unlikely_small if right else likely_small,
    )
