"""Kullback–Leibler divergence of a predicted distribution from the label's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import multiply_parts, two_sum
from fastloss_kernels.elementary import log, positive_log_parts
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.distributions import log_quotient_parts
from fastloss_kernels.listwise.sums import sum_parts
from fastloss_kernels.losses.base import ListwiseLoss
from fastloss_kernels.losses.categorical_crossentropy import CategoricalCrossentropy, smoothing_parameters

logit_crossentropy = CategoricalCrossentropy.formulas["logit"]
prob_crossentropy = CategoricalCrossentropy.formulas["prob"]
logprob_crossentropy = CategoricalCrossentropy.formulas["logprob"]


@formula
def row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from logits: the cross-entropy less the label's entropy, which is a constant to the derivatives."""
    for j in range(label.shape[0]):
        t = float(label[j])
        term = t * log(t)
        gradient[j] = 0.0 if t == 0.0 else term
    constant, lo = sum_parts(gradient)
    value = logit_crossentropy(score, label, parameters, scratch, gradient, hessian, derivatives)
    return value + (constant + lo)


@formula
def row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from probabilities: Σ t·log(t/max(q, ε)), the quotient's logarithm from the difference of near ones."""
    epsilon = parameters[3]
    for j in range(score.shape[0]):
        t = float(label[j])
        q = float(score[j])
        q = q if q > epsilon else epsilon
        quotient, quotient_lo = log_quotient_parts(t, 0.0, q, 0.0)
        term, lo = multiply_parts(t, quotient, quotient_lo)
        term = float("inf") if q == 0.0 else term
        gradient[j] = 0.0 if t == 0.0 else term
        hessian[j] = 0.0 if (t == 0.0) | (q == 0.0) else lo
    hi, hi_lo = sum_parts(gradient)
    lo, lo_lo = sum_parts(hessian)
    if derivatives:
        prob_crossentropy(score, label, parameters, scratch, gradient, hessian, True)
    return hi + (lo + (hi_lo + lo_lo)) if hi < float("inf") else hi


@formula
def row_logprob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from log-probabilities l: Σ t·(log t − max(l, log ε))."""
    ceiling = parameters[4]
    for j in range(score.shape[0]):
        t = float(label[j])
        cost = -float(score[j])
        # A masked candidate has the probability 0.
        cost = cost if cost < ceiling else ceiling
        finite = cost if cost < float("inf") else 0.0
        logarithm, logarithm_lo = positive_log_parts(t)
        quotient, lost = two_sum(logarithm, finite)
        term, lo = multiply_parts(t, quotient, lost + logarithm_lo)
        term = term if cost < float("inf") else cost
        gradient[j] = 0.0 if t == 0.0 else term
        hessian[j] = 0.0 if t == 0.0 else lo
    hi, hi_lo = sum_parts(gradient)
    lo, lo_lo = sum_parts(hessian)
    if derivatives:
        logprob_crossentropy(score, label, parameters, scratch, gradient, hessian, True)
    return hi + (lo + (hi_lo + lo_lo)) if hi < float("inf") else hi


@dataclass(frozen=True)
class KLDivergence(ListwiseLoss):
    """Kullback–Leibler divergence of the prediction's distribution from the label's, in nats.

    The label holds a distribution over the candidates of a list. Neither side is renormalised: from probabilities the
    value may be negative where the sums differ.
    """

    name: ClassVar[str] = "kl_divergence"
    aliases: ClassVar[tuple[str, ...]] = ("kullback_leibler_divergence", "kld", "kl_div")
    unit: ClassVar[str] = "nats"
    counts_no_positive: ClassVar[bool] = True
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    formulas = {"logit": row_logit, "prob": row_prob, "logprob": row_logprob}
    saturated = CategoricalCrossentropy.saturated
    definition = "Σ t·log(t/q), q = e^s/Σe^s for logits"
    source = "Kullback and Leibler, On information and sufficiency, Ann. Math. Stat. 22 (1951), section 2"

    @property
    def needs(self) -> str:
        """A positive label: a distribution has one."""
        return "positive"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the cross-entropy of unchanged labels reads; its last two are ε and −log ε."""
        return smoothing_parameters(0.0, False, space, epsilon)
