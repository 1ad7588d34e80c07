"""Double-double arithmetic: a number kept as the unevaluated sum hi + lo of two float64.

Used where one float64 would round away what a loss needs. The result of a function ending in `_parts` is (hi, lo); an
argument `x_lo` is the low word of `x`.
"""

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
def square(hi: float, lo: float) -> float:
    """Compute (hi + lo)² within one ULP; lo is NaN after an overflow and is then ignored."""
    plain = hi * hi
    better = plain + fma(2.0 * hi, lo, fma(hi, hi, -plain))
    return better if better == better else plain


@formula
def squared_difference(a: float, b: float) -> float:
    """Compute (a − b)² within one ULP."""
    hi, lo = two_sum(a, -b)
    return square(hi, lo)


@formula
def exp_parts(x: float) -> tuple[float, float]:
    """Compute eˣ for x ≤ 1000 as hi + lo, to 2⁻⁵⁸ of its size until it is subnormal; the method is `exp`'s."""
    x = -746.0 if x < -746.0 else x
    rounded = fma(x, INVERSE_LOG2, ROUND)
    k = rounded - ROUND
    high = fma(k, -LOG2_HIGH, x)
    r = fma(k, -LOG2_LOW, high)
    rest, lost = two_sum(high, fma(k, -LOG2_LOW, (r * r) * exp_tail(r)))
    hi = 1.0 + rest
    lo = ((1.0 - hi) + rest) + lost
    fields = float64_bits(rounded + 2046.0)
    first_bits = (fields & -2) << 51
    first = float64_from_bits(first_bits)
    second = float64_from_bits((fields << 52) - first_bits)
    return hi * first * second, lo * first * second


@formula
def sigmoid_parts(x: float) -> tuple[float, float, float, float]:
    """Compute σ(x) and σ(−x), each as hi + lo, to about 2⁻⁵⁶ of its size until it is subnormal."""
    e, e_lo = exp_parts(-abs(x))
    total = 1.0 + e
    total_lo = ((1.0 - total) + e) + e_lo
    likely = divide(1.0, total)
    likely_lo = likely * fma(-likely, total_lo, fma(-likely, total, 1.0))
    unlikely = e * likely
    unlikely_lo = fma(e, likely, -unlikely) + fma(e, likely_lo, e_lo * likely)
    right = x > 0.0
    return (
        likely if right else unlikely,
        likely_lo if right else unlikely_lo,
        unlikely if right else likely,
        unlikely_lo if right else likely_lo,
    )


@formula
def multiply_parts(a: float, b: float, b_lo: float) -> tuple[float, float]:
    """Compute a·(b + b_lo) as hi + lo."""
    hi = a * b
    return hi, fma(a, b_lo, fma(a, b, -hi))


@formula
def product_parts(a: float, a_lo: float, b: float, b_lo: float) -> tuple[float, float]:
    """Compute (a + a_lo)·(b + b_lo) as hi + lo."""
    hi, lo = multiply_parts(a, b, b_lo)
    return hi, fma(a_lo, b, lo)


@formula
def divide_parts(a: float, a_lo: float, b: float, b_lo: float) -> tuple[float, float]:
    """Compute (a + a_lo)/(b + b_lo) as hi + lo."""
    hi = divide(a, b)
    return hi, divide(fma(-hi, b_lo, fma(-hi, b, a) + a_lo), b)


@formula
def rounded_sum(hi: float, lo: float) -> float:
    """Compute hi + lo; lo is NaN after an overflow and is then ignored."""
    total = hi + lo
    return total if total == total else hi


@formula
def log1p_unit_parts(t: float, t_lo: float) -> tuple[float, float]:
    """Compute log(1 + t + t_lo) for 0 ≤ t ≤ 1 as hi + lo, to about 2⁻⁵⁶; the method is `log1p_unit`'s."""
    upper = t > 0.5
    halved = fma(t, 0.5, -0.5)
    f = halved if upper else t
    k = 1.0 if upper else 0.0
    s = divide(f, 2.0 + f)
    # (1 − s)² is 1/(1 + f) to within 6 %.
    rest = t_lo * fma(s, s - 2.0, 1.0) * (0.5 if upper else 1.0)
    hi, lo = log_parts(k, f, s, log1p_unit_tail(s * s), rest)
    return two_sum(hi, lo)


@formula
def log_of_positive_parts(x: float, x_lo: float) -> tuple[float, float]:
    """Compute log(x + x_lo) for 0 < x < ∞ as hi + lo, hi rounded and lo what that lost."""
    hi, lo = positive_log_parts(x)
    return two_sum(hi, lo + divide(x_lo, x))


@formula
def power_parts(log_hi: float, log_lo: float, exponent: float) -> tuple[float, float]:
    """Compute xʸ for 0 < x ≤ 1 from log x as hi + lo, for y ≥ 0; the result is hi + lo too."""
    hi, lo = multiply_parts(exponent, log_hi, log_lo)
    deep = hi < -800.0
    hi = -800.0 if deep else hi
    lo = 0.0 if deep else lo
    power, power_lo = exp_parts(hi)
    return power, fma(power, lo, power_lo)


@formula
def scaled_exp_parts(a: float, x: float, x_lo: float) -> tuple[float, float]:
    """Compute a·exp(x + x_lo) for a ≥ 0 as hi + lo; 0 for a = 0, even where the exponential is infinite.

    By the square of exp(x/2), so that it overflows and underflows only where the product does.
    """
    outside = abs(x) > 2000.0
    bound = 1000.0 if x > 0.0 else -1000.0
    half = bound if outside else 0.5 * x
    half_lo = 0.0 if outside else 0.5 * x_lo
    root, root_lo = exp_parts(half)
    root_lo = fma(root, half_lo, root_lo)
    once, once_lo = multiply_parts(a, root, root_lo)
    hi, lo = multiply_parts(once, root, root_lo)
    lo = fma(once_lo, root, lo)
    # The low word of an infinite product is NaN.
    lo = lo if hi < float("inf") else 0.0
    return 0.0 if a == 0.0 else hi, 0.0 if a == 0.0 else lo


@formula
def log_ratio_parts(
    a: float, a_lo: float, b: float, b_lo: float, difference: float, difference_lo: float
) -> tuple[float, float]:
    """Compute log(a/b) for positive a and b and their known difference a − b, all as hi + lo.

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
    far_a_lo = a_lo * a_scale
    top = difference if near else far_a
    top_lo = difference_lo if near else far_a_lo
    scale = 1.0 if near else b_scale
    q, q_lo = divide_parts(top, top_lo, b * scale, b_lo * scale)
    bits = float64_bits(1.0 if near else q) + ONE_LESS_SQRT_HALF_BITS
    field = float64_from_bits(((bits & EXPONENT_BITS) >> 52) | TWO_52_BITS)
    shift = 0.0 if near else shift
    k = field - (TWO_52 + 1023.0) + shift
    reduced = float64_from_bits((bits & SIGNIFICAND_BITS) + SQRT_HALF_BITS) - 1.0
    f = q if near else reduced
    s = divide(f, 2.0 + f)
    ratio = 1.0 + q
    ratio = ratio if near else q
    rest = divide(q_lo, ratio)
    hi, lo = log_parts(k, f, s, log_tail(s * s), rest)
    hi, lo = two_sum(hi, lo)
    # The bits of NaN and of infinity spell a number.
    regular = abs(q) < float("inf")
    return hi if regular else q, lo if regular else 0.0
