"""Exponential loss of a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import scaled_exp_parts
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·e^−s + (1 − y)·e^s."""
    rest = 1.0 - label
    rising, rising_lo = scaled_exp_parts(rest, score, 0.0)
    falling, falling_lo = scaled_exp_parts(label, -score, 0.0)
    rising += rising_lo
    falling += falling_lo
    value = rising + falling
    return value, rising - falling, value


@dataclass(frozen=True)
class Exponential(BinaryLoss):
    """Exponential of minus the margin, the loss of AdaBoost; a soft label mixes the losses of both classes."""

    name: ClassVar[str] = "exponential"
    aliases: ClassVar[tuple[str, ...]] = ("exponential_loss",)
    formulas = {"margin": row, "logit": row}
    is_nonnegative = True
    definition = "y·e^−s + (1 − y)·e^s"
    source = "Friedman, Hastie and Tibshirani, Additive logistic regression, Annals of Statistics 28 (2000), eq. 13"
