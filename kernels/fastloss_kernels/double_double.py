"""Numbers kept as an unevaluated sum of two float64, large + small, where one would round away what a loss needs."""

from __future__ import annotations

from fastloss_kernels.elementary import (
    EXPONENT_BITS,
    INVERSE_LOG2,
    LOG2_HIGH,
    LOG2_LOW,
    ONE_LESS_SQRT_HALF_BITS,
    ROUND,
    SIGNIFICAND_BITS,
    SQRT_HALF_BITS,
    TWO_52,
    TWO_52_BITS,
    exp_tail,
    log1p_unit_tail,
    log_parts,
    log_tail,
    positive_log_parts,
)
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
    """Compute eˣ for x ≤ 1000 as large + small, to 2⁻⁵⁸ of its size until it is subnormal; the method is `exp`'s."""
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


@formula
def multiply_parts(a: float, b: float, b_small: float) -> tuple[float, float]:
    """Compute a·(b + b_small) as large + small."""
    large = a * b
    return large, fma(a, b_small, fma(a, b, -large))


@formula
def product_parts(a: float, a_small: float, b: float, b_small: float) -> tuple[float, float]:
    """Compute (a + a_small)·(b + b_small) as large + small."""
    large, small = multiply_parts(a, b, b_small)
    return large, fma(a_small, b, small)


@formula
def divide_parts(a: float, a_small: float, b: float, b_small: float) -> tuple[float, float]:
    """Compute (a + a_small)/(b + b_small) as large + small."""
    large = divide(a, b)
    return large, divide(fma(-large, b_small, fma(-large, b, a) + a_small), b)


@formula
def rounded_sum(large: float, small: float) -> float:
    """Compute large + small; what is small is no number where something overflowed, and left out."""
    total = large + small
    return total if total == total else large


@formula
def log1p_unit_parts(t: float, t_small: float) -> tuple[float, float]:
    """Compute log(1 + t + t_small) for 0 ≤ t ≤ 1 as large + small, to about 2⁻⁵⁶; the method is `log1p_unit`'s."""
    upper = t > 0.5
    halved = fma(t, 0.5, -0.5)
    f = halved if upper else t
    k = 1.0 if upper else 0.0
    s = divide(f, 2.0 + f)
    # (1 − s)² is 1/(1 + f) to within 6 %.
    rest = t_small * fma(s, s - 2.0, 1.0) * (0.5 if upper else 1.0)
    large, small = log_parts(k, f, s, log1p_unit_tail(s * s), rest)
    return two_sum(large, small)


@formula
def log_of_positive_parts(x: float, x_small: float) -> tuple[float, float]:
    """Compute log(x + x_small) for 0 < x < ∞ as large + small, large rounded and small what that lost."""
    large, small = positive_log_parts(x)
    return two_sum(large, small + divide(x_small, x))


@formula
def power_parts(log_large: float, log_small: float, exponent: float) -> tuple[float, float]:
    """Compute xʸ for 0 < x ≤ 1 from log x as large + small, for y ≥ 0; the result is large + small too."""
    large, small = multiply_parts(exponent, log_large, log_small)
    deep = large < -800.0
    large = -800.0 if deep else large
    small = 0.0 if deep else small
    power, power_small = exp_parts(large)
    return power, fma(power, small, power_small)


@formula
def scaled_exp_parts(a: float, x: float, x_small: float) -> tuple[float, float]:
    """Compute a·exp(x + x_small) for a ≥ 0 as large + small; 0 for a = 0, even where the exponential is infinite.

    By the square of exp(x/2), so that it overflows and underflows only where the product does.
    """
    outside = abs(x) > 2000.0
    bound = 1000.0 if x > 0.0 else -1000.0
    half = bound if outside else 0.5 * x
    half_small = 0.0 if outside else 0.5 * x_small
    root, root_small = exp_parts(half)
    root_small = fma(root, half_small, root_small)
    once, once_small = multiply_parts(a, root, root_small)
    large, small = multiply_parts(once, root, root_small)
    small = fma(once_small, root, small)
    # What an infinite product lost is no number.
    small = small if large < float("inf") else 0.0
    return 0.0 if a == 0.0 else large, 0.0 if a == 0.0 else small


@formula
def log_ratio_parts(
    a: float, a_small: float, b: float, b_small: float, difference: float, difference_small: float
) -> tuple[float, float]:
    """Compute log(a/b) for positive a and b and their known difference a − b, all as large + small.

    Notes
    -----
    Where a is within a quarter of b it is log(1 + f) with f = (a − b)/b, of which nothing cancels; elsewhere log q
    with q = a/b. Powers of two keep q from overflow and underflow for a and b from 2⁻⁵³ on.
    """
    near = abs(difference) <= 0.25 * b
    a_scale = 2.0**-512 if a > 2.0**512 else 1.0
    b_scale = 2.0**-512 if b > 2.0**512 else 1.0
    shift = (512.0 if a > 2.0**512 else 0.0) - (512.0 if b > 2.0**512 else 0.0)
    far_a = a * a_scale
    far_a_small = a_small * a_scale
    top = difference if near else far_a
    top_small = difference_small if near else far_a_small
    scale = 1.0 if near else b_scale
    q, q_small = divide_parts(top, top_small, b * scale, b_small * scale)
    bits = float64_bits(1.0 if near else q) + ONE_LESS_SQRT_HALF_BITS
    field = float64_from_bits(((bits & EXPONENT_BITS) >> 52) | TWO_52_BITS)
    shift = 0.0 if near else shift
    k = field - (TWO_52 + 1023.0) + shift
    reduced = float64_from_bits((bits & SIGNIFICAND_BITS) + SQRT_HALF_BITS) - 1.0
    f = q if near else reduced
    s = divide(f, 2.0 + f)
    ratio = 1.0 + q
    ratio = ratio if near else q
    rest = divide(q_small, ratio)
    large, small = log_parts(k, f, s, log_tail(s * s), rest)
    large, small = two_sum(large, small)
    # The bits of NaN and of infinity spell a number.
    regular = abs(q) < float("inf")
    return large if regular else q, small if regular else 0.0
