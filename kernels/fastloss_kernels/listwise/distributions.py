"""Building blocks of divergences: logarithms of quotients, and a softmax in double-double."""

from __future__ import annotations

from fastloss_kernels.double_double import divide_parts, log_ratio_parts, multiply_parts, two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.listwise.sums import exponential_parts

# Of two numbers from 2^-1074 to 2, multiplied by it, no quotient overflows that `log_ratio_parts` forms.
LIFT = 2.0**600


@formula
def log_quotient_parts(a: float, a_lo: float, b: float, b_lo: float) -> tuple[float, float]:
    """Compute log(a/b) of two probabilities, each hi + lo, as hi + lo; NaN where one is 0."""
    difference, lost = two_sum(a, -b)
    return log_ratio_parts(
        a * LIFT, a_lo * LIFT, b * LIFT, b_lo * LIFT, difference * LIFT, (lost + (a_lo - b_lo)) * LIFT
    )


@formula
def softmax_parts(score, highest: float, top: int, out, out_lo) -> tuple[float, float, float]:
    """Fill `out` and `out_lo` with probabilities as hi + lo, 0 at `top` and where masked.

    Returns the probability at `top` as hi + lo, and that of all others together.
    """
    rest, rest_lo = exponential_parts(score, highest, top, out, out_lo)
    total, lost = two_sum(1.0, rest)
    likely, likely_lo = divide_parts(1.0, 0.0, total, lost + rest_lo)
    for j in range(score.shape[0]):
        p, p_lo = multiply_parts(float(out[j]), likely, likely_lo)
        out[j], out_lo[j] = two_sum(p, fma(float(out_lo[j]), likely, p_lo))
    return likely, likely_lo, (rest + rest_lo) * likely
