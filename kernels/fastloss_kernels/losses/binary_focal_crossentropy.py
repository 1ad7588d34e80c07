"""Binary focal cross-entropy: cross-entropy that counts rows which are predicted well for less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import (
    exp_parts,
    log1p_unit_parts,
    log_of_positive_parts,
    multiply_parts,
    power_parts,
    two_sum,
)
from fastloss_kernels.elementary import exp, log, log1p, sigmoids
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses import binary_crossentropy
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate α_t·m^γ·C from a logit x: C the cross-entropy, m = y·σ(−x) + (1 − y)·σ(x) the missed probability.

    For a hard label log m is −softplus(±x): with e = e^−|x|, m = t/(1 + e), where t = y·e + (1 − y) or y + (1 − y)·e.
    So m^γ = exp(γ·log m) needs no 1 − p, and log m, C and the power are kept as hi + lo, since γ·log m turns its
    absolute error into a relative one. With r = m′/m the derivatives are α_t·m^γ times γ·r·C + C′ and
    γ·r·C·((γ − 1)·r + σ(−x) − σ(x)) + 2γ·r·C′ + σ(x)·σ(−x); in the tails all their terms have one sign.
    """
    gamma, positive_weight, negative_weight = parameters
    distance = abs(score)
    rest = 1.0 - label
    right = score > 0.0
    e, e_lo = exp_parts(-distance)
    log_one, log_one_lo = log1p_unit_parts(e, e_lo)
    likely, unlikely = sigmoids(e)
    positive = likely if right else unlikely
    negative = unlikely if right else likely
    kept = rest if right else label
    other = label if right else rest

    linear, linear_lo = multiply_parts(distance, kept, 0.0)
    linear = 0.0 if kept == 0.0 else linear
    linear_lo = 0.0 if kept == 0.0 else linear_lo
    crossentropy, lost = two_sum(linear, log_one)
    crossentropy_lo = lost + (linear_lo + log_one_lo)

    # A hard label that agrees: t is e, whose logarithm is known, and may have underflowed.
    agrees = kept == 0.0
    mixed, mixed_lo = multiply_parts(other, e, e_lo)
    t, t_lost = two_sum(kept, mixed)
    t = 1.0 if agrees else t
    t_lo = t_lost + mixed_lo
    t_lo = 0.0 if agrees else t_lo
    log_t, log_t_lo = log_of_positive_parts(t, t_lo)
    bounded = 1e300 if distance > 1e300 else distance
    log_t = -bounded if agrees else log_t
    log_t_lo = 0.0 if agrees else log_t_lo
    log_missed, log_lost = two_sum(log_t, -log_one)
    factor, factor_lo = power_parts(log_missed, log_lost + (log_t_lo - log_one_lo), gamma)

    plain = factor * crossentropy
    value = fma(factor, crossentropy, fma(factor, crossentropy_lo, factor_lo * crossentropy))
    value = value if value == value else plain
    value = crossentropy if crossentropy == float("inf") else value

    share = divide(e, t)
    share = 1.0 if agrees else share
    ratio = (rest - label) * (likely * share)
    focus = gamma * ratio * crossentropy
    # The missed probability of an infinite logit no longer changes.
    focus = 0.0 if ratio == 0.0 else focus
    slope = fma(rest, positive, -(label * negative))
    inner_curvature = fma(gamma - 1.0, ratio, negative - positive)
    curvature = fma(focus, inner_curvature, fma(2.0 * gamma * ratio, slope, unlikely * likely))
    weight = fma(label, positive_weight, rest * negative_weight)
    weighted = weight * (factor + factor_lo)
    return weight * value, weighted * (focus + slope), weighted * curvature


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate α_t·m^γ·C from a probability p: m = y·(1 − p) + (1 − y)·p, C with its logarithms clipped at log ε.

    Derivatives divide by m only where the quotient is finite: C/m tends to 1 where m vanishes.
    """
    gamma, positive_weight, negative_weight, epsilon, ceiling = parameters
    rest = 1.0 - label
    positive = -log(score)
    positive = ceiling if positive > ceiling else positive
    negative = -log1p(-score)
    negative = ceiling if negative > ceiling else negative
    # 0·∞ stands in parts that the label gives no weight.
    negative_term = rest * negative
    negative_term = 0.0 if rest == 0.0 else negative_term
    both = fma(label, positive, negative_term)
    crossentropy = negative_term if label == 0.0 else both

    other, other_lost = two_sum(1.0, -score)
    first, first_lo = multiply_parts(label, other, other_lost)
    second, second_lo = multiply_parts(rest, score, 0.0)
    missed, missed_lost = two_sum(first, second)
    nothing = missed == 0.0
    divisor = 1.0 if nothing else missed
    log_missed, log_missed_lo = log_of_positive_parts(divisor, missed_lost + (first_lo + second_lo))
    factor, factor_lo = power_parts(log_missed, log_missed_lo, gamma)
    zeroth = 1.0 if gamma == 0.0 else 0.0
    factor = zeroth if nothing else factor
    factor_lo = 0.0 if nothing else factor_lo
    plain = factor * crossentropy
    value = fma(factor, crossentropy, factor_lo * crossentropy)
    value = value if value == value else plain
    factor += factor_lo

    change = rest - label
    density = divide(crossentropy, divisor)
    density = 1.0 if nothing else density
    p = epsilon if score < epsilon else score
    o = epsilon if other < epsilon else other
    positive_slope = divide(label, p)
    negative_slope = divide(rest, o)
    positive_curvature = divide(positive_slope, p)
    negative_curvature = divide(negative_slope, o)
    # So does 0/0.
    positive_slope = 0.0 if label == 0.0 else positive_slope
    negative_slope = 0.0 if rest == 0.0 else negative_slope
    positive_curvature = 0.0 if label == 0.0 else positive_curvature
    negative_curvature = 0.0 if rest == 0.0 else negative_curvature
    slope = negative_slope - positive_slope

    lower, lower_lost = two_sum(gamma, -1.0)
    exponent, exponent_lo = multiply_parts(lower, log_missed, log_missed_lo)
    exponent_lo = fma(lower_lost, log_missed, exponent_lo)
    lower_factor = exp(exponent)
    lower_factor = fma(lower_factor, exponent_lo, lower_factor)
    vanishing = 0.0 if gamma > 1.0 else float("inf")
    vanishing = 1.0 if gamma == 1.0 else vanishing
    lower_factor = vanishing if nothing else lower_factor
    curvature = gamma * fma((gamma - 1.0) * density, change * change, 2.0 * change * slope)
    scaled_curvature = lower_factor * curvature
    scaled_curvature = 0.0 if curvature == 0.0 else scaled_curvature
    hessian = fma(factor, positive_curvature + negative_curvature, scaled_curvature)
    weight = fma(label, positive_weight, rest * negative_weight)
    gradient = factor * fma(gamma * change, density, slope)
    return weight * value, weight * gradient, weight * hessian


@formula
def saturated_logit(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the cross-entropy of this row is infinite."""
    return binary_crossentropy.saturated_logit(score, label, (1.0, 0.0, 1.0))


@formula
def saturated_prob(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the cross-entropy of this row is clipped, or infinite."""
    return binary_crossentropy.saturated_prob(score, label, (1.0, 0.0, 1.0, parameters[3], parameters[4]))


@dataclass(frozen=True)
class BinaryFocalCrossentropy(BinaryLoss):
    """Cross-entropy of a binary label times the γ-th power of the probability that the prediction missed, in nats.

    Parameters
    ----------
    label_domain : {"01", "pm1"}
        Whether labels run from 0 to 1 (soft labels allowed) or from −1 to +1.
    gamma : float
        γ ≥ 0: how much less rows count that are predicted well; 0 is cross-entropy.
    alpha : float or None
        α in (0, 1): weight of label 1, and 1 − α of label 0; None leaves both at 1.
    """

    gamma: float = 2.0
    alpha: float | None = None

    name: ClassVar[str] = "binary_focal_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("focal_loss", "sigmoid_focal_loss")
    formulas = {"logit": row_logit, "prob": row_prob}
    saturated = {"logit": saturated_logit, "prob": saturated_prob}
    ranges = {
        "gamma": Interval(0.0, float("inf"), high_open=True),
        "alpha": Interval(0.0, 1.0, low_open=True, high_open=True),
    }
    is_nonnegative = True
    definition = "α_t·m^γ·(−y·log p − (1 − y)·log(1 − p)), m = y·(1 − p) + (1 − y)·p, α_t = y·α + (1 − y)·(1 − α)"
    source = "Lin et al., Focal loss for dense object detection, ICCV (2017), eq. 5"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return γ and the weights of labels 1 and 0, and also ε and −log ε for probabilities."""
        weights = (1.0, 1.0) if self.alpha is None else (float(self.alpha), 1.0 - self.alpha)
        focus = (float(self.gamma), *weights)
        if space == "logit":
            return focus
        return (*focus, epsilon, float("inf") if epsilon == 0.0 else -log(epsilon))
