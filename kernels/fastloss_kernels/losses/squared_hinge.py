"""Squared hinge loss of a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import square, two_sum
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def slack_parts(score: float, label: float) -> tuple[float, float, float]:
    """Compute t = 2y − 1 and 1 − t·s as hi + lo."""
    sign, sign_lost = two_sum(2.0 * label, -1.0)
    product = sign * score
    # A label of exactly one half has no sign: its margin is 0 even for an infinite score.
    undecided = (sign == 0.0) & (score == score)
    product = 0.0 if undecided else product
    total, lost = two_sum(1.0, -product)
    rest = lost - fma(sign_lost, score, fma(sign, score, -product))
    # An infinite score has lost nothing.
    rest = rest if abs(score) < float("inf") else 0.0
    hi, lo = two_sum(total, rest)
    return sign, hi, lo if rest != 0.0 else 0.0


@formula
def row(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate max(0, 1 − t·s)² with t = 2y − 1; at the joint the second derivative is 0, the flat side's.

    The square doubles a relative error, so the slack 1 − t·s carries its roundings along.
    """
    sign, slack, lo = slack_parts(score, label)
    active = slack > 0.0
    value = square(slack, lo)
    gradient = -2.0 * sign * slack
    hessian = 2.0 * sign * sign
    # Written so that NaN stays NaN.
    value = 0.0 if slack <= 0.0 else value
    return value, (gradient if active else 0.0), (hessian if active else 0.0)


@dataclass(frozen=True)
class SquaredHinge(BinaryLoss):
    """Squared hinge loss of a decision value; labels 0 and 1 count as −1 and +1, soft labels linearly between."""

    name: ClassVar[str] = "squared_hinge"
    formulas = {"margin": row, "logit": row}
    is_nonnegative = True
    definition = "max(0, 1 − t·s)², t = 2y − 1; second derivative 0 at the joint"
    source = "Rosasco et al., Are loss functions all the same?, Neural Computation 16 (2004), section 2"
