"""Pseudo-Huber loss: a smooth curve between squares near and absolute differences far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import divide_parts, multiply_parts, square, two_sum
from fastloss_kernels.jit import divide, fma, formula, square_root
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate s²·(√(1 + (d/s)²) − 1) as d·(s·d/(h + s)) with h = √(s² + d²), in which nothing cancels; d = ŷ − y.

    Where a square would overflow or underflow, d and s are scaled by a power of two first: the loss is homogeneous of
    degree two. Every step carries its rounding along, since hessian = (s/h)³ triples a relative error.
    """
    slope = parameters[0]
    difference, lost = two_sum(score, -label)
    lost = lost if abs(difference) < float("inf") else 0.0
    size = slope if slope > abs(difference) else abs(difference)
    scale = 1.0
    scale = 2.0**-540 if size > 2.0**500 else scale
    scale = 2.0**540 if size < 2.0**-500 else scale
    unscale = 1.0
    unscale = 2.0**540 if size > 2.0**500 else unscale
    unscale = 2.0**-540 if size < 2.0**-500 else unscale
    # An infinite difference is put in again at the end.
    infinite = abs(difference) == float("inf")
    d = 1.0 if infinite else difference * scale
    d_lo = lost * scale
    s = slope * scale

    d_square = d * d
    s_square = s * s
    total, total_lost = two_sum(d_square, s_square)
    total_lost += fma(d, d, -d_square) + fma(s, s, -s_square) + 2.0 * d * d_lo
    h = square_root(total)
    h_lo = divide(fma(-h, h, total) + total_lost, 2.0 * h)
    bottom, bottom_lost = two_sum(h, s)
    top, top_lo = multiply_parts(s, d, d_lo)
    ratio, ratio_lo = divide_parts(top, top_lo, bottom, bottom_lost + h_lo)
    value = fma(d, ratio, fma(d, ratio_lo, d_lo * ratio)) * unscale * unscale
    gradient = divide(top, h) * unscale
    cosine, cosine_lo = divide_parts(s, 0.0, h, h_lo)
    hessian = square(cosine, cosine_lo) * (cosine + cosine_lo)
    limit = slope if difference > 0.0 else -slope
    value = float("inf") if infinite else value
    return value, limit if infinite else gradient, 0.0 if infinite else hessian


@dataclass(frozen=True)
class PseudoHuber(Loss):
    """A smooth loss like half the squared difference below s and like s times the absolute one above.

    In squared units of the label.

    Parameters
    ----------
    slope : float
        s from 1e-100 to 1e100: the slope far from the label.
    """

    slope: float = 1.0

    name: ClassVar[str] = "pseudo_huber"
    aliases: ClassVar[tuple[str, ...]] = ("pseudo_huber_loss",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    # Wider would let the other number underflow when one is scaled.
    ranges = {"slope": Interval(1e-100, 1e100)}
    is_nonnegative = True
    definition = "s²·(√(1 + (d/s)²) − 1), d = ŷ − y"
    source = "Hartley and Zisserman, Multiple View Geometry (2003), appendix A6.8; Charbonnier et al., ICIP (1994)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (s,)."""
        return (float(self.slope),)
