"""Brier score: squared error of a probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.arithmetic import squared_difference
from fastloss_kernels.elementary import exp
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.form import BinaryLoss


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (σ(x) − y)², the difference taken as (1 − y)·σ(x) − y·σ(−x) so that no tail cancels."""
    e = exp(-abs(score))
    likely = divide(1.0, 1.0 + e)
    unlikely = e * likely
    positive = likely if score > 0.0 else unlikely
    negative = unlikely if score > 0.0 else likely
    residual = fma(1.0 - label, positive, -(label * negative))
    slope = unlikely * likely
    curvature = fma(residual, negative - positive, slope)
    return residual * residual, 2.0 * residual * slope, 2.0 * slope * curvature


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (p − y)²."""
    return squared_difference(score, label), 2.0 * (score - label), 2.0


@formula
def row_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate (e^l − y)²."""
    p = exp(score)
    residual = p - label
    return squared_difference(p, label), 2.0 * residual * p, 2.0 * p * (p + residual)


@dataclass(frozen=True)
class BrierScore(BinaryLoss):
    """Squared difference of a predicted probability and a binary or soft label."""

    name: ClassVar[str] = "brier_score"
    aliases: ClassVar[tuple[str, ...]] = ("brier_score_loss", "brier")
    rows = {"logit": row_logit, "prob": row_prob, "logprob": row_logprob}
    formula = "(p − y)², p = σ(x) for logits"
    source = "Brier, Verification of forecasts expressed in terms of probability, Monthly Weather Review 78 (1950)"
