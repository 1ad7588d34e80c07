"""Expectile loss: the loss whose minimum is an expectile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import square, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate τ·(ŷ − y)² for ŷ < y and (1 − τ)·(ŷ − y)² from there on."""
    below, above = parameters
    difference, lost = two_sum(score, -label)
    weight = below if difference < 0.0 else above
    slope = 2.0 * weight * difference
    return 4.0 * weight * square(0.5 * difference, 0.5 * lost), slope, 2.0 * weight


@dataclass(frozen=True)
class Expectile(Loss):
    """Squared difference of prediction and label, weighted τ below the label and 1 − τ above, in squared label units.

    Parameters
    ----------
    expectile : float
        τ in (0, 1): the expectile of the label that minimises the loss; ½ is the mean, of half the squared error.
    """

    expectile: float = 0.5

    name: ClassVar[str] = "expectile"
    aliases: ClassVar[tuple[str, ...]] = ("expectile_loss",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    ranges = {"expectile": Interval(0.0, 1.0, low_open=True, high_open=True)}
    is_nonnegative = True
    definition = "τ·(ŷ − y)² if ŷ < y, else (1 − τ)·(ŷ − y)²; second derivative 2·(1 − τ) at ŷ = y"
    source = "Newey and Powell, Asymmetric least squares estimation and testing, Econometrica 55 (1987)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (τ, 1 − τ)."""
        return (float(self.expectile), 1.0 - self.expectile)
