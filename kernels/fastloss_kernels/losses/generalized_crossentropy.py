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
def box_cox(log_hi: float, log_lo: float, q: float) -> float:
    """Compute (1 − p^q)/q as −expm1(q·log p)/q from log p ≤ 0."""
    exponent, exponent_lo = multiply_parts(q, log_hi, log_lo)
    deep = exponent < -40.0
    exponent = -40.0 if deep else exponent
    exponent_lo = 0.0 if deep else exponent_lo
    hi, lo = expm1_parts(exponent)
    half, half_lo = two_sum(hi, lo)
    half_lo = fma(half + 0.5, exponent_lo, half_lo)
    quotient, rest = divide_parts(-2.0 * half, -2.0 * half_lo, q, 0.0)
    value = quotient + rest
    # A product below the normal numbers has lost digits that the quotient would need.
    return -log_hi if exponent > -1e-17 else value


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(1 − σ(x)^q)/q + (1 − y)·(1 − σ(−x)^q)/q with log σ(x) = −softplus(−x) as hi + lo.

    With p = σ(x), o = σ(−x) the derivatives for label 1 are −p^q·o and p^q·o·(p − q·o), for label 0 those with p and o
    exchanged and the first sign turned.
    """
    q = parameters[0]
    rest = 1.0 - label
    distance = abs(score)
    right = score > 0.0
    e, e_lo = exp_parts(-distance)
    near, near_lo = log1p_unit_parts(e, e_lo)
    far, far_lo = two_sum(distance, near)
    far_lo += near_lo
    # log σ(x) and log σ(−x).
    positive = -near if right else -far
    positive_lo = -near_lo if right else -far_lo
    negative = -far if right else -near
    negative_lo = -far_lo if right else -near_lo
    value = fma(label, box_cox(positive, positive_lo, q), rest * box_cox(negative, negative_lo, q))
    likely = divide(1.0, 1.0 + e)
    unlikely = e * likely
    p = likely if right else unlikely
    o = unlikely if right else likely
    positive_power, positive_power_lo = power_parts(positive, positive_lo, q)
    negative_power, negative_power_lo = power_parts(negative, negative_lo, q)
    positive_slope = (positive_power + positive_power_lo) * o
    negative_slope = (negative_power + negative_power_lo) * p
    gradient = fma(rest, negative_slope, -(label * positive_slope))
    hessian = fma(label * positive_slope, fma(-q, o, p), rest * negative_slope * fma(-q, p, o))
    return value, gradient, hessian


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(1 − p^q)/q + (1 − y)·(1 − (1 − p)^q)/q; the slope at an impossible outcome is infinite for q < 1."""
    q = parameters[0]
    rest = 1.0 - label
    other, other_lo = two_sum(1.0, -score)
    positive_value, positive_slope, positive_curvature = outcome(score, 0.0, q)
    negative_value, negative_slope, negative_curvature = outcome(other, other_lo, q)
    positive_slope = label * positive_slope
    negative_slope = rest * negative_slope
    positive_curvature = label * positive_curvature
    negative_curvature = rest * negative_curvature
    # 0·∞ stands in parts that the label gives no weight.
    positive_slope = 0.0 if label == 0.0 else positive_slope
    negative_slope = 0.0 if rest == 0.0 else negative_slope
    positive_curvature = 0.0 if label == 0.0 else positive_curvature
    negative_curvature = 0.0 if rest == 0.0 else negative_curvature
    value = fma(label, positive_value, rest * negative_value)
    value = value if score == score else score
    return value, negative_slope - positive_slope, positive_curvature + negative_curvature


@formula
def outcome(p: float, p_lo: float, q: float) -> tuple[float, float, float]:
    """Compute (1 − p^q)/q, p^(q − 1) and (1 − q)·p^(q − 2)."""
    impossible = p == 0.0
    hi, lo = log_of_positive_parts(1.0 if impossible else p, 0.0 if impossible else p_lo)
    value = box_cox(hi, lo, q)
    most = divide(1.0, q)
    less, less_lost = two_sum(q, -1.0)
    slope_log, slope_log_lo = multiply_parts(less, hi, lo)
    slope_log_lo = fma(less_lost, hi, slope_log_lo)
    slope = exp(slope_log)
    slope = fma(slope, slope_log_lo, slope)
    curvature = divide((1.0 - q) * slope, 1.0 if impossible else p)
    largest_slope = 1.0 if q == 1.0 else float("inf")
    largest_curvature = 0.0 if q == 1.0 else float("inf")
    return (
        most if impossible else value,
        largest_slope if impossible else slope,
        largest_curvature if impossible else curvature,
    )


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
    is_nonnegative = True
    definition = "y·(1 − p^q)/q + (1 − y)·(1 − (1 − p)^q)/q, p = σ(x) for logits"
    source = "Zhang and Sabuncu, Generalized cross entropy loss for noisy labels, NeurIPS (2018), eq. 6"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (q,)."""
        return (float(self.q),)
