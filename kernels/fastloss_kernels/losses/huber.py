"""Huber loss: squares near, absolute differences far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import square, two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ½d² for |d| ≤ δ and δ·(|d| − δ/2) beyond, d = ŷ − y; the second derivative at the joint is 1.

    What the difference loses in rounding goes along: it decides the joint and counts twice in the square.
    """
    delta = parameters[0]
    difference, lost = two_sum(score, -label)
    distance = abs(difference)
    lost = lost if difference > 0.0 else -lost
    lost = lost if distance < float("inf") else 0.0
    far = (distance > delta) | ((distance == delta) & (lost > 0.0))
    near_value = 2.0 * square(0.5 * distance, 0.5 * lost)
    excess, excess_lost = two_sum(distance, -0.5 * delta)
    excess_lost = excess_lost if distance < float("inf") else 0.0
    far_value = fma(delta, excess, delta * (excess_lost + lost))
    limit = delta if difference > 0.0 else -delta
    value = far_value if far else near_value
    return value, limit if far else difference, 0.0 if far else 1.0


@dataclass(frozen=True)
class Huber(Loss):
    """Half the squared difference of prediction and label up to δ, and its tangent beyond, in squared label units.

    Parameters
    ----------
    delta : float
        δ > 0: the absolute difference where the square ends.
    """

    delta: float = 1.0

    name: ClassVar[str] = "huber"
    aliases: ClassVar[tuple[str, ...]] = ("huber_loss",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    ranges = {"delta": Interval(0.0, float("inf"), low_open=True, high_open=True)}
    is_nonnegative = True
    definition = "½d² if |d| ≤ δ, else δ·(|d| − δ/2), d = ŷ − y; second derivative 1 at |d| = δ"
    source = "Huber, Robust estimation of a location parameter, Annals of Mathematical Statistics 35 (1964)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (δ,)."""
        return (float(self.delta),)
