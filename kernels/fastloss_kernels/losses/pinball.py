"""Pinball loss: the loss whose minimum is a quantile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate q·(y − ŷ) for ŷ < y and (1 − q)·(ŷ − y) above; at ŷ = y the subgradient is 0."""
    below, above = parameters
    difference = score - label
    low = -below * difference
    high = above * difference
    value = low if difference < 0.0 else high
    gradient = -below if difference < 0.0 else above
    # Zero, or NaN.
    gradient = gradient if abs(difference) > 0.0 else difference
    return value, gradient, 0.0


@dataclass(frozen=True)
class Pinball(Loss):
    """Absolute difference of prediction and label, weighted q below the label and 1 − q above, in units of the label.

    Parameters
    ----------
    quantile : float
        q in (0, 1): the quantile of the label that minimises the loss.
    """

    quantile: float = 0.5

    name: ClassVar[str] = "pinball"
    aliases: ClassVar[tuple[str, ...]] = ("quantile", "pinball_loss", "quantile_loss", "mean_pinball_loss")
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    hessian = "zero"
    ranges = {"quantile": Interval(0.0, 1.0, low_open=True, high_open=True)}
    is_nonnegative = True
    definition = "q·(y − ŷ) if ŷ < y, else (1 − q)·(ŷ − y); subgradient 0 at ŷ = y"
    source = "Koenker and Bassett, Regression quantiles, Econometrica 46 (1978)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (q, 1 − q)."""
        return (float(self.quantile), 1.0 - self.quantile)
