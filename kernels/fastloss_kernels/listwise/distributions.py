"""What divergences of two distributions are made of: logarithms of quotients, and a softmax in two parts."""

from __future__ import annotations

from fastloss_kernels.double_double import divide_parts, log_ratio_parts, multiply_parts, two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.listwise.sums import exponential_parts

# Of two numbers from 2^-1074 to 2, multiplied by it, no quotient overflows that `log_ratio_parts` forms.
LIFT = 2.0**600


@formula
def log_quotient_parts(a: float, a_small: float, b: float, b_small: float) -> tuple[float, float]:
    """Compute log(a/b) of two probabilities, each large + small, as large + small; no number where one is 0."""
    difference, lost = two_sum(a, -b)
    return log_ratio_parts(
        a * LIFT, a_small * LIFT, b * LIFT, b_small * LIFT, difference * LIFT, (lost + (a_small - b_small)) * LIFT
    )


@formula
def softmax_parts(score, highest: float, top: int, out, out_small) -> tuple[float, float, float]:
    """Fill `out` and `out_small` with probabilities as large + small, 0 at `top` and where masked.

    Returns the probability at `top` as large + small, and that of all others together.
    """
    rest, rest_small = exponential_parts(score, highest, top, out, out_small)
    total, lost = two_sum(1.0, rest)
    likely, likely_small = divide_parts(1.0, 0.0, total, lost + rest_small)
    for j in range(score.shape[0]):
        p, p_small = multiply_parts(float(out[j]), likely, likely_small)
        out[j], out_small[j] = two_sum(p, fma(float(out_small[j]), likely, p_small))
    return likely, likely_small, (rest + rest_small) * likely
