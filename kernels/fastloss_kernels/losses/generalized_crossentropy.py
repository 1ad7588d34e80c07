"""Generalized cross-entropy: between cross-entropy and the absolute error of a probability, for noisy labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import (
    divide_parts,
    exp_parts,
    log1p_unit_parts,
    log_of_positive_parts,
    multiply_parts,
    power_parts,
    two_sum,
)
from fastloss_kernels.elementary import exp, expm1_parts
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def box_cox(log_large: float, log_small: float, q: float) -> float:
    """Compute (1 − p^q)/q as −expm1(q·log p)/q from log p ≤ 0."""
    exponent, exponent_small = multiply_parts(q, log_large, log_small)
    deep = exponent < -40.0
    exponent = -40.0 if deep else exponent
    exponent_small = 0.0 if deep else exponent_small
    large, small = expm1_parts(exponent)
    half, half_small = two_sum(large, small)
    half_small = fma(half + 0.5, exponent_small, half_small)
    quotient, rest = divide_parts(-2.0 * half, -2.0 * half_small, q, 0.0)
    value = quotient + rest
    # A product below the normal numbers has lost digits that the quotient would need.
    return -log_large if exponent > -1e-17 else value


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(1 − σ(x)^q)/q + (1 − y)·(1 − σ(−x)^q)/q with log σ(x) = −softplus(−x) as large + small.

    With p = σ(x), o = σ(−x) the derivatives for label 1 are −p^q·o and p^q·o·(p − q·o), for label 0 those with p and o
    exchanged and the first sign turned.
    """
    q = parameters[0]
    rest = 1.0 - label
    distance = abs(score)
    right = score > 0.0
    e, e_small = exp_parts(-distance)
    near, near_small = log1p_unit_parts(e, e_small)
    far, far_small = two_sum(distance, near)
    far_small += near_small
    # log σ(x) and log σ(−x).
    positive = -near if right else -far
    positive_small = -near_small if right else -far_small
    negative = -far if right else -near
    negative_small = -far_small if right else -near_small
    value = fma(label, box_cox(positive, positive_small, q), rest * box_cox(negative, negative_small, q))
    likely = divide(1.0, 1.0 + e)
    unlikely = e * likely
    p = likely if right else unlikely
    o = unlikely if right else likely
    positive_power, positive_power_small = power_parts(positive, positive_small, q)
    negative_power, negative_power_small = power_parts(negative, negative_small, q)
    positive_slope = (positive_power + positive_power_small) * o
    negative_slope = (negative_power + negative_power_small) * p
    gradient = fma(rest, negative_slope, -(label * positive_slope))
    hessian = fma(label * positive_slope, fma(-q, o, p), rest * negative_slope * fma(-q, p, o))
    return value, gradient, hessian


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(1 − p^q)/q + (1 − y)·(1 − (1 − p)^q)/q; the slope at an impossible outcome is infinite for q < 1."""
    q = parameters[0]
    rest = 1.0 - label
    other, other_small = two_sum(1.0, -score)
    positive_value, positive_slope, positive_bend = outcome(score, 0.0, q)
    negative_value, negative_slope, negative_bend = outcome(other, other_small, q)
    positive_slope = label * positive_slope
    negative_slope = rest * negative_slope
    positive_bend = label * positive_bend
    negative_bend = rest * negative_bend
    # 0·∞ stands in parts that the label gives no weight.
    positive_slope = 0.0 if label == 0.0 else positive_slope
    negative_slope = 0.0 if rest == 0.0 else negative_slope
    positive_bend = 0.0 if label == 0.0 else positive_bend
    negative_bend = 0.0 if rest == 0.0 else negative_bend
    value = fma(label, positive_value, rest * negative_value)
    value = value if score == score else score
    return value, negative_slope - positive_slope, positive_bend + negative_bend


@formula
def outcome(p: float, p_small: float, q: float) -> tuple[float, float, float]:
    """Compute (1 − p^q)/q, p^(q − 1) and (1 − q)·p^(q − 2)."""
    impossible = p == 0.0
    large, small = log_of_positive_parts(1.0 if impossible else p, 0.0 if impossible else p_small)
    value = box_cox(large, small, q)
    most = divide(1.0, q)
    less, less_lost = two_sum(q, -1.0)
    slope_log, slope_log_small = multiply_parts(less, large, small)
    slope_log_small = fma(less_lost, large, slope_log_small)
    slope = exp(slope_log)
    slope = fma(slope, slope_log_small, slope)
    bend = divide((1.0 - q) * slope, 1.0 if impossible else p)
    steepest = 1.0 if q == 1.0 else float("inf")
    most_bent = 0.0 if q == 1.0 else float("inf")
    return most if impossible else value, steepest if impossible else slope, most_bent if impossible else bend


@dataclass(frozen=True)
class GeneralizedCrossentropy(BinaryLoss):
    """Box-Cox transform of the probability of the label: cross-entropy as q tends to 0, absolute error for q = 1.

    A soft label mixes the losses of both outcomes.

    Parameters
    ----------
    label_domain : {"01", "pm1"}
        Whether labels run from 0 to 1 (soft labels allowed) or from −1 to +1.
    q : float
        q in (0, 1]: how little confident mistakes count, which labels that are wrong would make of right predictions.
    """

    q: float = 0.7

    name: ClassVar[str] = "generalized_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("generalized_cross_entropy",)
    formulas = {"logit": row_logit, "prob": row_prob}
    ranges = {"q": Interval(0.0, 1.0, low_open=True)}
    definition = "y·(1 − p^q)/q + (1 − y)·(1 − (1 − p)^q)/q, p = σ(x) for logits"
    source = "Zhang and Sabuncu, Generalized cross entropy loss for noisy labels, NeurIPS (2018), eq. 6"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (q,)."""
        return (float(self.q),)
