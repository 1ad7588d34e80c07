"""L1 norm of the difference of two vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ|s − t|; where two elements are equal the subgradient is 0."""
    for j in range(score.shape[0]):
        distance = abs(float(score[j]) - float(label[j]))
        gradient[j] = distance if distance >= 0.0 else 0.0
    value, value_lo = sum_parts(gradient)
    if derivatives:
        for j in range(score.shape[0]):
            difference = float(score[j]) - float(label[j])
            below = -1.0 if difference < 0.0 else 0.0
            gradient[j] = 1.0 if difference > 0.0 else below
            hessian[j] = 0.0
    return value + value_lo if value < float("inf") else value


@dataclass(frozen=True)
class L1Norm(ListwiseLoss):
    """Sum of the absolute differences of the label's and the prediction's vector."""

    name: ClassVar[str] = "l1_norm"
    aliases: ClassVar[tuple[str, ...]] = ("manhattan_distance",)
    label_range: ClassVar[Interval] = FINITE
    formulas = {"value": row}
    hessian = "zero"
    definition = "Σ|s − t|; subgradient 0 where s = t"
    source = "Boyd and Vandenberghe, Convex optimization (2004), section A.1.2"
