"""Poly-1 loss: cross-entropy with another weight on the first term of its series."""

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
    rounded_sum,
    sigmoid_parts,
    two_sum,
)
from fastloss_kernels.elementary import log, log_tail
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses import binary_crossentropy
from fastloss_kernels.losses.base import BinaryLoss


@formula
def outcome(m: float, m_lo: float, loss: float, loss_lo: float, less: float) -> float:
    """Compute S + ε·m of one outcome from S = −log(1 − m), m as hi + lo: (1 + ε)·m + (S − m), less = 1 + ε.

    Both terms are positive. Near 0, where S − m would cancel, it is t·(m + r), t = m/(2 − m), with
    r = (2·atanh(t) − 2t)/t.
    """
    near = m < 0.25
    bottom, bottom_lost = two_sum(2.0, -m)
    t, t_lo = divide_parts(m, m_lo, bottom, bottom_lost - m_lo)
    z = t * t
    bent, bent_lost = two_sum(m, log_tail(z if near else 0.0))
    near_excess = t * bent
    near_excess_lo = fma(t, bent, -near_excess) + fma(t, bent_lost + m_lo, t_lo * bent)
    far_excess, far_lost = two_sum(loss, -m)
    far_excess_lo = far_lost + (loss_lo - m_lo)
    excess = near_excess if near else far_excess
    excess_lo = near_excess_lo if near else far_excess_lo
    first, first_lo = multiply_parts(less, m, m_lo)
    total, lost = two_sum(excess, first)
    return rounded_sum(total, lost + (excess_lo + first_lo))


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(softplus(−x) + ε·σ(−x)) + (1 − y)·(softplus(x) + ε·σ(x)).

    With p = σ(x), o = σ(−x) the derivatives for label 1 are −o·(1 + ε·p) and p·o·(1 + ε·(p − o)), for label 0 those
    with p and o exchanged and the first sign turned; 1 + ε·p is (1 + ε) − ε·o for a negative ε, so that both terms
    have one sign.
    """
    poly = parameters[0]
    less = 1.0 + poly
    rest = 1.0 - label
    distance = abs(score)
    right = score > 0.0
    p, p_lo, o, o_lo = sigmoid_parts(score)
    e, e_lo = exp_parts(-distance)
    near, near_lo = log1p_unit_parts(e, e_lo)
    far, far_lo = two_sum(distance, near)
    far_lo += near_lo
    # −log σ(x) and −log σ(−x).
    positive = near if right else far
    positive_lo = near_lo if right else far_lo
    negative = far if right else near
    negative_lo = far_lo if right else near_lo
    positive_value = label * outcome(o, o_lo, positive, positive_lo, less)
    negative_value = rest * outcome(p, p_lo, negative, negative_lo, less)
    # 0·∞ stands in a part that the label gives no weight.
    positive_value = 0.0 if label == 0.0 else positive_value
    negative_value = 0.0 if rest == 0.0 else negative_value

    p += p_lo
    o += o_lo
    positive_up = fma(poly, p, 1.0)
    positive_down = fma(-poly, o, less)
    negative_up = fma(poly, o, 1.0)
    negative_down = fma(-poly, p, less)
    positive_slope = positive_up if poly > 0.0 else positive_down
    negative_slope = negative_up if poly > 0.0 else negative_down
    gradient = fma(rest * p, negative_slope, -(label * o * positive_slope))
    opposite = 1.0 - poly
    positive_curvature_up = fma(2.0 * poly, p, opposite)
    positive_curvature_down = fma(-2.0 * poly, o, less)
    negative_curvature_up = fma(2.0 * poly, o, opposite)
    negative_curvature_down = fma(-2.0 * poly, p, less)
    positive_curvature = positive_curvature_up if poly > 0.0 else positive_curvature_down
    negative_curvature = negative_curvature_up if poly > 0.0 else negative_curvature_down
    return positive_value + negative_value, gradient, p * o * fma(label, positive_curvature, rest * negative_curvature)


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate y·(ε·(1 − p) − log p) + (1 − y)·(ε·p − log(1 − p)), with the logarithms clipped at log ε.

    The derivatives are those of the parts (1 + ε)·m and −log(1 − m) − m.
    """
    poly, epsilon, ceiling = parameters
    less = 1.0 + poly
    rest = 1.0 - label
    other, other_lo = two_sum(1.0, -score)
    certain = score == 0.0
    denied = other == 0.0
    positive, positive_lo = log_of_positive_parts(1.0 if certain else score, 0.0)
    negative, negative_lo = log_of_positive_parts(1.0 if denied else other, 0.0 if denied else other_lo)
    clipped = certain | (-positive > ceiling)
    positive = -ceiling if clipped else positive
    positive_lo = 0.0 if clipped else positive_lo
    clipped = denied | (-negative > ceiling)
    negative = -ceiling if clipped else negative
    negative_lo = 0.0 if clipped else negative_lo
    positive_value = label * outcome(other, other_lo, -positive, -positive_lo, less)
    negative_value = rest * outcome(score, 0.0, -negative, -negative_lo, less)
    p = epsilon if score < epsilon else score
    o = epsilon if other < epsilon else other
    positive_slope = label * (divide(other, p) + less)
    negative_slope = rest * (divide(score, o) + less)
    positive_curvature = divide(divide(label, p), p)
    negative_curvature = divide(divide(rest, o), o)
    # 0·∞ and 0/0 stand in parts that the label gives no weight.
    positive_value = 0.0 if label == 0.0 else positive_value
    negative_value = 0.0 if rest == 0.0 else negative_value
    positive_slope = 0.0 if label == 0.0 else positive_slope
    negative_slope = 0.0 if rest == 0.0 else negative_slope
    positive_curvature = 0.0 if label == 0.0 else positive_curvature
    negative_curvature = 0.0 if rest == 0.0 else negative_curvature
    value = positive_value + negative_value
    value = value if score == score else score
    return value, negative_slope - positive_slope, positive_curvature + negative_curvature


@formula
def saturated_logit(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the cross-entropy of this row is infinite."""
    return binary_crossentropy.saturated_logit(score, label, (1.0, 0.0, 1.0))


@formula
def saturated_prob(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the cross-entropy of this row is clipped, or infinite."""
    return binary_crossentropy.saturated_prob(score, label, (1.0, 0.0, 1.0, parameters[1], parameters[2]))


@dataclass(frozen=True)
class Poly1(BinaryLoss):
    """Cross-entropy of a binary label plus ε times the probability that the prediction missed, in nats.

    Parameters
    ----------
    label_domain : {"01", "pm1"}
        Whether labels run from 0 to 1 (soft labels allowed) or from −1 to +1.
    eps : float
        ε ≥ −1: added to the weight 1 of the first term 1 − p of −log p = (1 − p) + (1 − p)²/2 + ….
    """

    eps: float = 1.0

    name: ClassVar[str] = "poly1"
    aliases: ClassVar[tuple[str, ...]] = ("poly1_crossentropy",)
    formulas = {"logit": row_logit, "prob": row_prob}
    saturated = {"logit": saturated_logit, "prob": saturated_prob}
    ranges = {"eps": Interval(-1.0, float("inf"), high_open=True)}
    is_nonnegative = True
    definition = "−y·log p − (1 − y)·log(1 − p) + ε·(y·(1 − p) + (1 − y)·p), p = σ(x) for logits"
    source = "Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, ICLR (2022)"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return ε of the series, and also the smallest probability and minus its logarithm for probabilities."""
        if space == "logit":
            return (float(self.eps),)
        return (float(self.eps), epsilon, float("inf") if epsilon == 0.0 else -log(epsilon))
