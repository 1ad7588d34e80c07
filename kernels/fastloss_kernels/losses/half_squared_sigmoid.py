"""Half the squared error of a sigmoid: what a logistic model minimises when it is trained on squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import BinaryLoss
from fastloss_kernels.losses.brier_score import row_logit


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate ½(σ(z) − y)² as half the Brier score, in which no tail cancels."""
    value, gradient, hessian = row_logit(score, label, parameters)
    return 0.5 * value, 0.5 * gradient, 0.5 * hessian


@dataclass(frozen=True)
class HalfSquaredSigmoid(BinaryLoss):
    """Half the squared difference of σ(z) and a binary label; its gradient (a − y)·a·(1 − a), a = σ(z), saturates.

    A confident mistake has nearly no gradient, which is why cross-entropy is the better loss of a logit.
    """

    name: ClassVar[str] = "half_squared_sigmoid"
    formulas = {"logit": row}
    is_nonnegative = True
    definition = "½(σ(x) − y)²"
    source = "Bishop, Neural Networks for Pattern Recognition (1995), section 6.1"
