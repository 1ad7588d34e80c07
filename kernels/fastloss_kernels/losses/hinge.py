"""Hinge loss of a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate max(0, 1 − t·s) with t = 2y − 1; at the kink the subgradient is 0, the flat side's."""
    sign, lost = two_sum(2.0 * label, -1.0)
    slack = fma(-sign, score, 1.0)
    # A label of exactly one half has no sign: its margin is 0 even for an infinite score.
    slack = 1.0 if (sign == 0.0) & (score == score) else slack
    corrected = fma(-lost, score, slack)
    slack = slack if (lost == 0.0) | (abs(slack) == float("inf")) else corrected
    # Written so that NaN stays NaN.
    value = 0.0 if slack <= 0.0 else slack
    return value, (-sign if slack > 0.0 else 0.0), 0.0


@dataclass(frozen=True)
class Hinge(BinaryLoss):
    """Hinge loss of a decision value; labels 0 and 1 count as −1 and +1, soft labels linearly between."""

    name: ClassVar[str] = "hinge"
    aliases: ClassVar[tuple[str, ...]] = ("hinge_loss",)
    formulas = {"margin": row, "logit": row}
    hessian = "zero"
    is_nonnegative = True
    definition = "max(0, 1 − t·s), t = 2y − 1; subgradient 0 at the kink"
    source = "Cortes and Vapnik, Support-vector networks, Machine Learning 20 (1995)"
