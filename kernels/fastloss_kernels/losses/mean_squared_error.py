"""Mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.double_double import squared_difference
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (ŷ − y)²."""
    return squared_difference(score, label), 2.0 * (score - label), 2.0


@dataclass(frozen=True)
class MeanSquaredError(Loss):
    """Squared difference of prediction and label, in squared units of the label."""

    name: ClassVar[str] = "mean_squared_error"
    aliases: ClassVar[tuple[str, ...]] = ("mse",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    is_nonnegative = True
    definition = "(ŷ − y)²"
    source = "Gauss, Theoria combinationis observationum (1821)"
