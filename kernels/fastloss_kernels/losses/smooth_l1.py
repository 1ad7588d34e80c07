"""Smooth L1 loss: the Huber loss in units of the label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import divide_parts, rounded_sum, two_sum
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate d²/(2β) for |d| < β and |d| − β/2 beyond, d = ŷ − y; the second derivative at the joint is 0.

    The square is d·(d/β), which overflows only where the result does. For β = 0 it is |d|, its subgradient at 0 is 0.
    """
    beta = parameters[0]
    difference, lost = two_sum(score, -label)
    distance = abs(difference)
    lost = lost if difference > 0.0 else -lost
    lost = lost if distance < float("inf") else 0.0
    near = (distance < beta) | ((distance == beta) & (lost < 0.0))
    ratio, ratio_lo = divide_parts(distance, lost, beta, 0.0)
    near_value = 0.5 * fma(distance, ratio, fma(distance, ratio_lo, lost * ratio))
    excess, excess_lost = two_sum(distance, -0.5 * beta)
    far_value = rounded_sum(excess, excess_lost + lost)
    value = near_value if near else far_value
    sign = (1.0 if difference > 0.0 else 0.0) - (1.0 if difference < 0.0 else 0.0)
    sign = sign if difference == difference else difference
    gradient = divide(difference, beta)
    hessian = divide(1.0, beta)
    return value, gradient if near else sign, hessian if near else 0.0


@dataclass(frozen=True)
class SmoothL1(Loss):
    """Absolute difference of prediction and label, rounded off by a parabola below β, in units of the label.

    Parameters
    ----------
    beta : float
        β ≥ 0: the absolute difference where the parabola ends; 0 is the absolute error.
    """

    beta: float = 1.0

    name: ClassVar[str] = "smooth_l1"
    aliases: ClassVar[tuple[str, ...]] = ("smooth_l1_loss",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    ranges = {"beta": Interval(0.0, float("inf"), high_open=True)}
    is_nonnegative = True
    definition = "d²/(2β) if |d| < β, else |d| − β/2, d = ŷ − y; second derivative 0 at |d| = β"
    source = "Girshick, Fast R-CNN, ICCV (2015), eq. 3"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (β,)."""
        return (float(self.beta),)
