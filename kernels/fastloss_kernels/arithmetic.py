"""Differences and squares that keep the bits which a plain operation would round away."""

from __future__ import annotations

from fastloss_kernels.jit import fma, formula


@formula
def squared_difference(a: float, b: float) -> float:
    """Compute (a − b)² within one ULP.

    The rounding error of the difference (Knuth's two-sum) and of the square (fma) are added back; they are not
    numbers when something overflows, and then the plain square stands.
    """
    difference = a - b
    virtual = a - difference
    error = (a - (difference + virtual)) + (virtual - b)
    square = difference * difference
    correction = fma(2.0 * difference, error, fma(difference, difference, -square))
    better = square + correction
    return better if better == better else square
