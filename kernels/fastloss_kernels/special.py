"""Elementary functions that only custom losses need, made as those of `elementary`."""

from __future__ import annotations

from typing import Final

from fastloss_kernels.double_double import exp_parts, multiply_parts, rounded_sum, two_sum
from fastloss_kernels.elementary import (
    INFINITY,
    NAN,
    SIGN_BIT,
    TWO_52,
    exp,
    expm1,
    log,
    positive_log_parts,
)
from fastloss_kernels.jit import divide, float64_bits, float64_from_bits, fma, formula

# From here on every float64 is an even integer.
ODD_INTEGERS_END: Final = 9007199254740992.0
# Beyond it e^−x is no longer seen beside eˣ.
TAIL_FROM: Final = 40.0
HALF_E: Final = 1.3591409142295225
# Where the asymptotic series of ψ and ψ′ begin: their first omitted terms are below 2⁻⁵⁶ there.
SERIES_FROM: Final = 10.0


@formula
def power(x: float, y: float) -> float:
    """Compute xʸ, to 2 ULP for |y| ≤ 8 and to |y|/4 ULP beyond; zeros, infinities and NaN as IEEE 754 has them.

    Notes
    -----
    exp(y·log |x|) with the logarithm and its product with y as hi + lo. A negative x takes integers y alone,
    whose parity is the sign.
    """
    magnitude = abs(x)
    regular = (magnitude > 0.0) & (magnitude < INFINITY)
    log_hi, log_lo = positive_log_parts(magnitude if regular else 1.0)
    log_hi, log_lo = two_sum(log_hi, log_lo)
    hi, lo = multiply_parts(y, log_hi, log_lo)
    within = abs(hi) < 800.0
    bound = 800.0 if hi > 0.0 else -800.0
    root, root_lo = exp_parts(hi if within else bound)
    value = rounded_sum(root, fma(root, lo if within else 0.0, root_lo))
    at_zero = 0.0 if y > 0.0 else INFINITY
    at_infinity = INFINITY if y > 0.0 else 0.0
    at_end = at_zero if magnitude == 0.0 else at_infinity
    value = value if regular else at_end
    size = abs(y)
    half = 0.5 * size
    # A sum with 2⁵² rounds to an integer.
    is_integer = ((size + TWO_52) - TWO_52 == size) | (size >= TWO_52)
    is_odd = is_integer & ((half + TWO_52) - TWO_52 != half) & (size < ODD_INTEGERS_END)
    below = float64_bits(x) < 0
    value = -value if is_odd & below else value
    value = NAN if below & regular & (not is_integer) else value
    value = value if (x == x) & (y == y) else NAN
    one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (size == INFINITY))
    return 1.0 if one else value


@formula
def sinh(x: float) -> float:
    """Compute the hyperbolic sine for every x, to 3 ULP; odd to the bit, the sign of zero included."""
    magnitude = abs(x)
    grown = expm1(magnitude)
    near = 0.5 * (grown + divide(grown, grown + 1.0))
    value = exp(magnitude - 1.0) * HALF_E if magnitude > TAIL_FROM else near
    return float64_from_bits(float64_bits(value) | (float64_bits(x) & SIGN_BIT))


@formula
def cosh(x: float) -> float:
    """Compute the hyperbolic cosine for every x, to 3 ULP."""
    magnitude = abs(x)
    grown = exp(magnitude)
    near = fma(0.5, grown, divide(0.5, grown))
    return exp(magnitude - 1.0) * HALF_E if magnitude > TAIL_FROM else near


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
