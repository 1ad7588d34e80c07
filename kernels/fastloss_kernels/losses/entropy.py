"""Entropy of a predicted distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import Interval
from fastloss_kernels.double_double import two_sum
from fastloss_kernels.elementary import exp, log, log1p, positive_log_parts
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.sums import exponentials, first_position, highest_score, sum_parts
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from logits: log Σe^(s − m) + Σ p·(m − s), m the highest, both at least 0.

    With D for the second sum and a = m − s, the gradient is p·(a − D), the hessian p·((1 − 2p)·(a − D) − (1 − p)).
    """
    highest = highest_score(score)
    top = first_position(score, highest)
    rest, rest_lo = exponentials(score, highest, top, gradient)
    for j in range(score.shape[0]):
        e = float(gradient[j])
        term = e * (highest - float(score[j]))
        hessian[j] = 0.0 if e == 0.0 else term
    distance, distance_lo = sum_parts(hessian)
    unlikely = rest + rest_lo
    likely = divide(1.0, 1.0 + unlikely)
    mean = (distance + distance_lo) * likely
    if derivatives:
        for j in range(score.shape[0]):
            e = float(gradient[j])
            p = e * likely
            other = (1.0 + (unlikely - e)) * likely
            further = (highest - float(score[j])) - mean
            slope = p * further
            curvature = p * fma(other - p, further, -other)
            gradient[j] = 0.0 if e == 0.0 else slope
            hessian[j] = 0.0 if e == 0.0 else curvature
        other = unlikely * likely
        gradient[top] = -likely * mean
        hessian[top] = likely * fma(likely - other, mean, -other)
    return fma(rest_lo, likely, log1p(rest)) + mean


@formula
def row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from probabilities: −Σ q·log q; gradient −1 − log q and hessian −1/q, infinite at 0."""
    for j in range(score.shape[0]):
        q = float(score[j])
        term = -q * log(q)
        gradient[j] = term if q > 0.0 else 0.0
    value, value_lo = sum_parts(gradient)
    if derivatives:
        for j in range(score.shape[0]):
            q = float(score[j])
            hi, lo = positive_log_parts(q)
            slope, lost = two_sum(-1.0, -hi)
            slope += lost - lo
            slope = slope if q > 0.0 else float("inf")
            curvature = divide(-1.0, q) if q > 0.0 else float("-inf")
            gradient[j] = slope if q >= 0.0 else 0.0
            hessian[j] = curvature if q >= 0.0 else 0.0
    return value + value_lo


@formula
def row_logprob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from log-probabilities: −Σ l·e^l."""
    for j in range(score.shape[0]):
        logarithm = float(score[j])
        term = -logarithm * exp(logarithm)
        gradient[j] = term if logarithm > float("-inf") else 0.0
    value, value_lo = sum_parts(gradient)
    if derivatives:
        for j in range(score.shape[0]):
            logarithm = float(score[j])
            q = exp(logarithm)
            slope = -q * (logarithm + 1.0)
            curvature = -q * (logarithm + 2.0)
            gradient[j] = slope if logarithm > float("-inf") else 0.0
            hessian[j] = curvature if logarithm > float("-inf") else 0.0
    return value + value_lo


@dataclass(frozen=True)
class Entropy(ListwiseLoss):
    """Shannon entropy of the prediction's distribution over the candidates of a list, in nats.

    Labels are not read. Probabilities are not renormalised.
    """

    name: ClassVar[str] = "entropy"
    aliases: ClassVar[tuple[str, ...]] = ("shannon_entropy",)
    unit: ClassVar[str] = "nats"
    label_range: ClassVar[Interval] = Interval(float("-inf"), float("inf"))
    formulas = {"logit": row_logit, "prob": row_prob, "logprob": row_logprob}
    definition = "−Σ q·log q, q = e^s/Σe^s for logits; derivatives by a probability of 0 are infinite"
    source = "Shannon, A mathematical theory of communication, Bell Syst. Tech. J. 27 (1948), section 6"
