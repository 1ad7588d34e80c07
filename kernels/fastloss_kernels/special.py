"""Elementary functions that the shipped losses do without and own losses may need; made as those of `elementary`."""

from __future__ import annotations

from typing import Final

from fastloss_kernels.arithmetic import exp_parts, multiply_parts, rounded_sum, two_sum
from fastloss_kernels.elementary import INFINITY, NAN, ROUND, log, positive_log_parts
from fastloss_kernels.jit import divide, fma, formula

# From here on a float64 that is an integer no longer reaches the digit that `ROUND` rounds to.
INTEGERS_END: Final = 2251799813685248.0
# Where the asymptotic series of ψ and ψ′ begin: their first omitted terms are below 2⁻⁵⁶ there.
SERIES_FROM: Final = 10.0


@formula
def power(x: float, y: float) -> float:
    """Compute xʸ, to 2 ULP for |y| ≤ 8 and to |y|/4 ULP beyond; 1 for y = 0, and NaN for x < 0 unless y is an integer.

    Notes
    -----
    exp(y·log |x|) with the logarithm and its product with y as large + small. A negative x takes integers y up to 2⁵¹
    with their sign, and all larger ones as even. −0 counts as 0.
    """
    magnitude = abs(x)
    regular = (magnitude > 0.0) & (magnitude < INFINITY)
    log_large, log_small = positive_log_parts(magnitude if regular else 1.0)
    log_large, log_small = two_sum(log_large, log_small)
    large, small = multiply_parts(y, log_large, log_small)
    within = abs(large) < 800.0
    bound = 800.0 if large > 0.0 else -800.0
    root, root_small = exp_parts(large if within else bound)
    value = rounded_sum(root, fma(root, small if within else 0.0, root_small))
    at_zero = 0.0 if y > 0.0 else INFINITY
    at_infinity = INFINITY if y > 0.0 else 0.0
    at_end = at_zero if magnitude == 0.0 else at_infinity
    value = value if regular else at_end
    small_enough = abs(y) < INTEGERS_END
    half = 0.5 * y
    is_integer = ((y + ROUND) - ROUND == y) | (not small_enough)
    is_odd = ((half + ROUND) - ROUND != half) & small_enough
    signed = -value if is_odd else value
    signed = signed if is_integer else NAN
    value = signed if x < 0.0 else value
    value = value if (x == x) & (y == y) else NAN
    return 1.0 if (y == 0.0) & (x == x) else value


@formula
def digamma(x: float) -> float:
    """Compute ψ(x), the derivative of log Γ, for x > 0, to 2⁻⁴⁹ of the larger of 1 and |ψ|; −∞ at 0, NaN below.

    Notes
    -----
    ψ(x) = ψ(x + 1) − 1/x until x ≥ 10, then the asymptotic series (Abramowitz and Stegun, 6.3.18).
    """
    total = 0.0
    argument = x
    for _ in range(10):
        low = argument < SERIES_FROM
        term = divide(1.0, argument)
        total = total - (term if low else 0.0)
        argument = argument + (1.0 if low else 0.0)
    inverse = divide(1.0, argument)
    z = inverse * inverse
    q = fma(-1.0 / 12.0, z, 691.0 / 32760.0)
    q = fma(q, z, -1.0 / 132.0)
    q = fma(q, z, 1.0 / 240.0)
    q = fma(q, z, -1.0 / 252.0)
    q = fma(q, z, 1.0 / 120.0)
    q = fma(q, z, -1.0 / 12.0)
    value = total + (log(argument) + fma(q, z, -0.5 * inverse))
    value = value if x != 0.0 else -INFINITY
    return NAN if x < 0.0 else value


@formula
def trigamma(x: float) -> float:
    """Compute ψ′(x), the second derivative of log Γ, for x > 0, to 8 ULP; ∞ at 0, NaN below.

    Notes
    -----
    ψ′(x) = ψ′(x + 1) + 1/x² until x ≥ 10, then the asymptotic series (Abramowitz and Stegun, 6.4.12).
    """
    total = 0.0
    argument = x
    for _ in range(10):
        low = argument < SERIES_FROM
        term = divide(1.0, argument)
        total = total + (term * term if low else 0.0)
        argument = argument + (1.0 if low else 0.0)
    inverse = divide(1.0, argument)
    z = inverse * inverse
    q = fma(7.0 / 6.0, z, -691.0 / 2730.0)
    q = fma(q, z, 5.0 / 66.0)
    q = fma(q, z, -1.0 / 30.0)
    q = fma(q, z, 1.0 / 42.0)
    q = fma(q, z, -1.0 / 30.0)
    q = fma(q, z, 1.0 / 6.0)
    value = total + fma(inverse * z, q, fma(0.5, z, inverse))
    return NAN if x < 0.0 else value
