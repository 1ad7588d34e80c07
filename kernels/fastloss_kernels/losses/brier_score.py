"""Brier score: squared error of a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import exp_parts, sigmoid_parts, square, squared_difference, two_sum
from fastloss_kernels.elementary import expm1_parts
from fastloss_kernels.jit import fma, formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (σ(x) − y)², the difference taken as (1 − y)·σ(x) − y·σ(−x) so that no tail cancels.

    The square doubles a relative error, so both sigmoids carry their rounding along.
    """
    positive, positive_lo, negative, negative_lo = sigmoid_parts(score)
    product = label * negative
    residual = fma(1.0 - label, positive, -product)
    lost = fma(1.0 - label, positive_lo, -fma(label, negative_lo, fma(label, negative, -product)))
    # Rounded once each, since the derivatives multiply three of them.
    likely = positive + positive_lo
    unlikely = negative + negative_lo
    slope = likely * unlikely
    missed = residual + lost
    curvature = fma(missed, unlikely - likely, slope)
    return square(residual, lost), 2.0 * missed * slope, 2.0 * slope * curvature


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (p − y)²."""
    return squared_difference(score, label), 2.0 * (score - label), 2.0


@formula
def row_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (e^l − y)²; near l = 0 as (e^l − 1) + (1 − y), since there the rounding of e^l outweighs e^l − 1."""
    p, p_lo = exp_parts(score)
    bounded = -1.0 if score < -1.0 else score
    half, half_tail = expm1_parts(bounded)
    less, less_lo = two_sum(2.0 * half, 2.0 * half_tail)
    rest, rest_lo = two_sum(1.0, -label)
    near = score > -0.5
    first = less if near else p
    second = rest if near else -label
    residual, lost = two_sum(first, second)
    near_lost = less_lo + rest_lo
    lost += near_lost if near else p_lo
    slope = 2.0 * (residual + lost) * p
    return square(residual, lost), slope, fma(2.0 * p, p, slope)


@dataclass(frozen=True)
class BrierScore(BinaryLoss):
    """Squared difference of a predicted probability and a binary or soft label."""

    name: ClassVar[str] = "brier_score"
    aliases: ClassVar[tuple[str, ...]] = ("brier_score_loss", "brier")
    formulas = {"logit": row_logit, "prob": row_prob, "logprob": row_logprob}
    is_nonnegative = True
    definition = "(p − y)², p = σ(x) for logits"
    source = "Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950)"
