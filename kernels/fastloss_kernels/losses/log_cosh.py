"""Logarithm of the hyperbolic cosine of an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.double_double import (
    divide_parts,
    exp_parts,
    log1p_unit_parts,
    rounded_sum,
    two_sum,
)
from fastloss_kernels.elementary import LOG2_HIGH, LOG2_LOW, expm1_parts
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate log cosh a, a = |ŷ − y|, with p = e^−a: as log1p((1 − p)²/(2p)) near 0, where nothing cancels.

    From a = 1 on it is a − log 2 + log1p(p²). The derivatives are (1 − p²)/(1 + p²) and (2p/(1 + p²))².
    """
    difference, lost = two_sum(score, -label)
    distance = abs(difference)
    lost = lost if difference > 0.0 else -lost
    lost = lost if distance < float("inf") else 0.0
    p, p_lo = exp_parts(-distance)
    p_lo = fma(-p, lost, p_lo)
    bounded = -1.0 if distance > 1.0 else -distance
    half, half_lo = expm1_parts(bounded)
    half, half_lo = two_sum(half, half_lo)
    half_lo = fma(-0.5 * p, lost, half_lo)
    half_square = half * half
    half_square_lo = fma(half, half, -half_square) + 2.0 * half * half_lo
    rounded_p = p + p_lo
    p_square = p * p
    p_square_lo = fma(2.0 * p, p_lo, fma(p, p, -p_square))

    near = distance < 1.0
    near_p = p if near else 1.0
    near_p_lo = p_lo if near else 0.0
    u, u_lo = divide_parts(2.0 * half_square, 2.0 * half_square_lo, near_p, near_p_lo)
    t = u if near else p_square
    t_lo = u_lo if near else p_square_lo
    hi, lo = log1p_unit_parts(t, t_lo)

    denominator = 1.0 + p_square
    # Rounded once, since the second derivative squares it.
    inverse = divide(1.0, denominator)
    denominator_lost = ((1.0 - denominator) + p_square) + p_square_lo
    inverse = fma(inverse, fma(-inverse, denominator_lost, fma(-inverse, denominator, 1.0)), inverse)
    # 1 − p² = (1 − p)·(1 + p), and 1 − p = −expm1(−a) keeps its digits near 0.
    near_sine = -2.0 * (half + half_lo) * (1.0 + rounded_p)
    far_sine = 1.0 - p_square
    sine = near_sine if near else far_sine
    slope = sine * inverse
    secant = 2.0 * fma(p, inverse, p_lo * inverse)

    linear, linear_lost = two_sum(distance, -LOG2_HIGH)
    far, far_lost = two_sum(linear, hi)
    # An infinite distance makes both of these NaN, and is all there is.
    far_lo = linear_lost + far_lost - LOG2_LOW + lo
    total = hi if near else far
    far_lo += lost
    total_lo = lo if near else far_lo
    value = rounded_sum(total, total_lo)
    return value, slope if difference > 0.0 else -slope, secant * secant


@dataclass(frozen=True)
class LogCosh(Loss):
    """Logarithm of the hyperbolic cosine of ŷ − y, in units of the label: ½(ŷ − y)² near, |ŷ − y| − log 2 far."""

    name: ClassVar[str] = "log_cosh"
    aliases: ClassVar[tuple[str, ...]] = ("logcosh",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    is_nonnegative = True
    definition = "log cosh(ŷ − y)"
    source = "Green, Bayesian reconstructions from emission tomography data, IEEE Trans. Medical Imaging 9 (1990)"
