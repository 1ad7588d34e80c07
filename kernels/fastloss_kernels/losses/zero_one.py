"""Zero-one loss: whether the predicted class is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate the part of the label that the class of a score rules out: class 1 above 0, else class 0."""
    rest = 1.0 - label
    wrong = rest if score > 0.0 else label
    return wrong if score == score else score, 0.0, 0.0


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate the part of the label that the class of a probability rules out: class 1 above ½, else class 0."""
    rest = 1.0 - label
    wrong = rest if score > 0.5 else label
    return wrong if score == score else score, 0.0, 0.0


@dataclass(frozen=True)
class ZeroOne(BinaryLoss):
    """One for a wrong class and zero for the right one; a soft label counts its part of the other class."""

    name: ClassVar[str] = "zero_one"
    aliases: ClassVar[tuple[str, ...]] = ("zero_one_loss",)
    formulas = {"logit": row, "margin": row, "prob": row_prob}
    hessian = "zero"
    differentiable = False
    definition = "1 − y if x > 0 (p > ½), else y; derivatives 0 wherever they exist, and at the step"
    source = "Hastie, Tibshirani and Friedman, The Elements of Statistical Learning (2009), section 10.6"
