"""Binary cross-entropy: the negative log-likelihood of a Bernoulli label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.elementary import exp, expm1, log, log1p, log1p_unit, sigmoids
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.losses.base import BinaryLoss


@formula
def row_logit(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate from a logit x: q·y·softplus(−x) + (1 − y)·softplus(x), with softplus(x) = max(x, 0) + log1p(e^−|x|).

    Only one of softplus(±x) has a max part, so one product is left beside the shared log1p. Derivatives come from
    e^−|x| too, never from σ(x) − 1: their tails keep full relative accuracy.
    """
    smoothing_scale, smoothing_shift, pos_weight = parameters
    y = fma(label, smoothing_scale, smoothing_shift)
    e = exp(-abs(score))
    rest = fma(1.0 - label, smoothing_scale, smoothing_shift)
    q = pos_weight * y
    shared = q + rest
    linear = rest if score > 0.0 else q
    curved = shared * log1p_unit(e)
    both = fma(abs(score), linear, curved)
    # A label that agrees with an infinite logit costs nothing: 0·∞ must not become NaN.
    value = curved if linear == 0.0 else both
    likely, unlikely = sigmoids(e)
    positive = likely if score > 0.0 else unlikely
    negative = unlikely if score > 0.0 else likely
    return value, fma(rest, positive, -(q * negative)), shared * (unlikely * likely)


@formula
def row_prob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate from a probability p: −q·y·log p − (1 − y)·log(1 − p), each logarithm clipped at log ε.

    log(1 − p) is log1p(−p): the subtraction would lose a small p.
    """
    smoothing_scale, smoothing_shift, pos_weight, epsilon, ceiling = parameters
    y = fma(label, smoothing_scale, smoothing_shift)
    positive = -log(score)
    positive = ceiling if positive > ceiling else positive
    negative = -log1p(-score)
    negative = ceiling if negative > ceiling else negative
    q = pos_weight * y
    rest = fma(1.0 - label, smoothing_scale, smoothing_shift)
    # 0·∞ and 0/0 stand in parts that the label gives no weight.
    negative_term = rest * negative
    negative_term = 0.0 if rest == 0.0 else negative_term
    both = fma(q, positive, negative_term)
    value = negative_term if q == 0.0 else both
    other = 1.0 - score
    product = score * other
    floor = epsilon if product < epsilon else product
    p = epsilon if score < epsilon else score
    o = epsilon if other < epsilon else other
    positive_curvature = divide(divide(q, p), p)
    negative_curvature = divide(divide(rest, o), o)
    positive_curvature = 0.0 if q == 0.0 else positive_curvature
    negative_curvature = 0.0 if rest == 0.0 else negative_curvature
    return value, divide(fma(rest, score, -(q * other)), floor), positive_curvature + negative_curvature


@formula
def row_logprob(score: float, label: float, parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """Evaluate from a log-probability l = log p: −q·y·l − (1 − y)·log(1 − e^l), each clipped at log ε.

    log(1 − e^l) is log(−expm1(l)) near zero and log1p(−e^l) below −log 2 (Mächler, "Accurately computing
    log(1 − exp(−|a|))", 2012).
    """
    smoothing_scale, smoothing_shift, pos_weight, epsilon, ceiling = parameters
    y = fma(label, smoothing_scale, smoothing_shift)
    positive = -score
    positive = ceiling if positive > ceiling else positive
    p = exp(score)
    complement = -expm1(score)
    near = -log(complement)
    far = -log1p(-p)
    negative = near if score > -0.6931471805599453 else far
    negative = ceiling if negative > ceiling else negative
    q = pos_weight * y
    rest = fma(1.0 - label, smoothing_scale, smoothing_shift)
    # 0·∞ and 0/0 stand in parts that the label gives no weight.
    negative_term = rest * negative
    negative_term = 0.0 if rest == 0.0 else negative_term
    both = fma(q, positive, negative_term)
    value = negative_term if q == 0.0 else both
    floor = epsilon if complement < epsilon else complement
    odds = divide(p, floor)
    gradient = fma(rest, odds, -q)
    hessian = rest * divide(odds, floor)
    return value, -q if rest == 0.0 else gradient, 0.0 if rest == 0.0 else hessian


@formula
def saturated_logit(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the loss is infinite: the logit rules out an outcome to which the label gives weight."""
    y = fma(label, parameters[0], parameters[1])
    return ((score == float("inf")) & (y < 1.0)) | ((score == float("-inf")) & (y > 0.0))


@formula
def saturated_prob(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the probability of an outcome to which the label gives weight is below ε, or zero."""
    y = fma(label, parameters[0], parameters[1])
    epsilon = parameters[3]
    other = 1.0 - score
    low = (score < epsilon) | (score == 0.0)
    high = (other < epsilon) | (other == 0.0)
    return (low & (y > 0.0)) | (high & (y < 1.0))


@formula
def saturated_logprob(score: float, label: float, parameters: tuple[float, ...]) -> bool:
    """Tell whether the probability of an outcome to which the label gives weight is below ε, or zero."""
    y = fma(label, parameters[0], parameters[1])
    epsilon = parameters[3]
    other = -expm1(score)
    low = (-score > parameters[4]) | (score == float("-inf"))
    high = (other < epsilon) | (other == 0.0)
    return (low & (y > 0.0)) | (high & (y < 1.0))


@dataclass(frozen=True)
class BinaryCrossentropy(BinaryLoss):
    """Negative log-likelihood of a binary label, in nats.

    Parameters
    ----------
    label_domain : {"01", "pm1"}
        Whether labels run from 0 to 1 (soft labels allowed) or from −1 to +1.
    label_smoothing : float
        s in [0, 1]: the label becomes y·(1 − s) + s/2.
    pos_weight : float
        q > 0: weight of the positive part.
    """

    label_smoothing: float = 0.0
    pos_weight: float = 1.0

    name: ClassVar[str] = "log_loss"
    aliases: ClassVar[tuple[str, ...]] = ("binary_crossentropy", "logistic_loss", "bce")
    unit: ClassVar[str] = "nats"
    formulas = {"logit": row_logit, "prob": row_prob, "logprob": row_logprob}
    saturated = {"logit": saturated_logit, "prob": saturated_prob, "logprob": saturated_logprob}
    ranges = {
        "label_smoothing": Interval(0.0, 1.0),
        "pos_weight": Interval(0.0, float("inf"), low_open=True, high_open=True),
    }
    is_nonnegative = True
    definition = "−q·y·log p − (1 − y)·log(1 − p), p = σ(x) for logits"
    source = "Good, Rational decisions, J. Royal Stat. Soc. B 14 (1952); Bishop, PRML (2006), eq. 4.90"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return (1 − s, s/2, q) for logits, and also (ε, −log ε) for probabilities."""
        s = self.label_smoothing
        smoothing = (1.0 - s, 0.5 * s, float(self.pos_weight))
        if space == "logit":
            return smoothing
        return (*smoothing, epsilon, float("inf") if epsilon == 0.0 else -log(epsilon))
