"""Mean absolute percentage error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import Loss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate |ŷ − y|/|y|; at ŷ = y the subgradient is 0.

    Both differences are halved where the label is large, since ŷ − y may overflow where the quotient does not.
    """
    scale = 0.5 if abs(label) > 1.0 else 1.0
    scaled = label * scale
    difference = fma(score, scale, -scaled)
    sign = (1.0 if difference > 0.0 else 0.0) - (1.0 if difference < 0.0 else 0.0)
    sign = sign if difference == difference else difference
    return divide(abs(difference), abs(scaled)), divide(sign, abs(label)), 0.0


@dataclass(frozen=True)
class MeanAbsolutePercentageError(Loss):
    """Absolute difference of prediction and label as a part of the label: 0.1 is ten percent; the label is not 0."""

    name: ClassVar[str] = "mean_absolute_percentage_error"
    aliases: ClassVar[tuple[str, ...]] = ("mape",)
    label_range: ClassVar[Interval] = Interval(
        float("-inf"), float("inf"), low_open=True, high_open=True, without_zero=True
    )
    formulas = {"value": row}
    hessian = "zero"
    is_nonnegative = True
    definition = "|ŷ − y|/|y|; subgradient 0 at ŷ = y"
    source = "de Myttenaere et al., Mean absolute percentage error for regression models, Neurocomputing 192 (2016)"
