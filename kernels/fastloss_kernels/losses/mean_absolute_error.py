"""Mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate |ŷ − y|; at ŷ = y the subgradient is 0."""
    difference = score - label
    sign = (1.0 if difference > 0.0 else 0.0) - (1.0 if difference < 0.0 else 0.0)
    # A difference that is NaN has no sign; adding it to zero times itself would not vectorise better.
    gradient = sign if difference == difference else difference
    return abs(difference), gradient, 0.0


@dataclass(frozen=True)
class MeanAbsoluteError(Loss):
    """Absolute difference of prediction and label, in units of the label; not differentiable at zero."""

    name: ClassVar[str] = "mean_absolute_error"
    aliases: ClassVar[tuple[str, ...]] = ("mae",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row, "prob": row}
    hessian = "zero"
    is_nonnegative = True
    definition = "|ŷ − y|; subgradient 0 at ŷ = y"
    source = "Laplace, Mémoire sur la probabilité des causes (1774)"
