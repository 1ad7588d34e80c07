"""Jensen–Shannon divergence of a predicted distribution and the label's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from fastloss_kernels.domain import Interval
from fastloss_kernels.double_double import multiply_parts, two_sum
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.distributions import log_quotient_parts, softmax_parts
from fastloss_kernels.listwise.sums import first_position, highest_score, sum_parts
from fastloss_kernels.losses.base import ListwiseLoss

# ((1 + d)·log(1 + d) + (1 − d)·log(1 − d) − d²)/d⁴ in d², which is Σ d^(2k − 4)/(k·(2k − 1)) for k from 2.
NEAR: Final = tuple(1.0 / (k * (2 * k - 1)) for k in range(2, 11))
HALF_LOG2: Final = 0.34657359027997264


@formula
def near_tail(z: float) -> float:
    """Compute ((1 + d)·log(1 + d) + (1 − d)·log(1 − d) − d²)/d⁴ for z = d² ≤ 0.0289."""
    q = fma(NEAR[8], z, NEAR[7])
    q = fma(q, z, NEAR[6])
    q = fma(q, z, NEAR[5])
    q = fma(q, z, NEAR[4])
    q = fma(q, z, NEAR[3])
    q = fma(q, z, NEAR[2])
    q = fma(q, z, NEAR[1])
    return fma(q, z, NEAR[0])


@formula
def candidate_divergence(t: float, p: float, p_lo: float) -> float:
    """Compute (t·log(t/m) + p·log(p/m))/2 with m = (t + p)/2, one candidate's part, which is at least 0.

    With d = (p − t)/(p + t) it is ((1 + d)·log(1 + d) + (1 − d)·log(1 − d))·m/2, a series where the two are near.
    """
    total, total_lo = two_sum(t, p)
    total_lo += p_lo
    difference, lost = two_sum(p, -t)
    difference += lost + p_lo
    d = divide(difference, total)
    z = d * d
    near = 0.25 * (difference * d) * fma(z, near_tail(z), 1.0)
    log_t, log_t_lo = log_quotient_parts(2.0 * t, 0.0, total, total_lo)
    log_p, log_p_lo = log_quotient_parts(2.0 * p, 2.0 * p_lo, total, total_lo)
    of_t, of_t_lo = multiply_parts(t, log_t, log_t_lo)
    of_p, of_p_lo = multiply_parts(p, log_p, log_p_lo)
    of_p_lo = fma(p_lo, log_p, of_p_lo)
    # 0·log 0 is 0.
    of_t = 0.0 if t == 0.0 else of_t
    of_t_lo = 0.0 if t == 0.0 else of_t_lo
    of_p = 0.0 if p == 0.0 else of_p
    of_p_lo = 0.0 if p == 0.0 else of_p_lo
    far, lost = two_sum(of_t, of_p)
    far = 0.5 * (far + (lost + (of_t_lo + of_p_lo)))
    value = near if abs(difference) <= 0.17 * total else far
    return 0.0 if total == 0.0 else value


@formula
def row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from probabilities: gradient log(q/m)/2, hessian t/(2q·(t + q))."""
    for j in range(score.shape[0]):
        q = float(score[j])
        q = q if q >= 0.0 else 0.0
        gradient[j] = candidate_divergence(float(label[j]), q, 0.0)
    value, value_lo = sum_parts(gradient)
    if derivatives:
        for j in range(score.shape[0]):
            q = float(score[j])
            t = float(label[j])
            total, total_lo = two_sum(t, q)
            hi, lo = log_quotient_parts(2.0 * q, 0.0, total, total_lo)
            slope = 0.5 * (hi + lo)
            slope = slope if q > 0.0 else float("-inf")
            slope = slope if t > 0.0 else HALF_LOG2
            curvature = divide(divide(0.5 * t, t + q), q)
            gradient[j] = slope if q >= 0.0 else 0.0
            hessian[j] = curvature if (q >= 0.0) & (t > 0.0) else 0.0
    return value + value_lo


@formula
def log_share(t: float, p: float, p_lo: float) -> float:
    """Compute log(p/(t + p))/2, which is the derivative by p less log(2)/2; 0 without t, and for p = 0."""
    total, total_lo = two_sum(t, p)
    hi, lo = log_quotient_parts(p, p_lo, total, total_lo + p_lo)
    return 0.5 * (hi + lo) if (t > 0.0) & (p > 0.0) else 0.0


@formula
def harmonic(t: float, p: float) -> float:
    """Compute t·p/(2·(t + p)), 0 where both are."""
    return 0.0 if t == 0.0 else 0.5 * t * divide(p, t + p)


@formula
def row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate from logits, by the derivatives g and h by the probabilities p.

    The gradient is p·(g − Σp·g), the hessian, with u = p²·h and v = p·(g − Σp·g), (1 − 2p)·v + (1 − p)²·u + p²·Σ′u, Σ′
    over all others. A constant in g cancels, so g is `log_share`, which is 0 without a label. At the highest candidate
    g − Σp·g is (1 − p)·g − Σ′p·g, of which nothing is lost as p nears 1.
    """
    highest = highest_score(score)
    top = first_position(score, highest)
    likely, likely_lo, unlikely = softmax_parts(score, highest, top, gradient, hessian)
    for j in range(score.shape[0]):
        part = candidate_divergence(float(label[j]), float(gradient[j]), float(hessian[j]))
        hessian[j] = 0.0 if j == top else part
    value, value_lo = sum_parts(hessian)
    at_top = float(label[top])
    value += value_lo + candidate_divergence(at_top, likely, likely_lo)
    if derivatives:
        for j in range(score.shape[0]):
            p = float(gradient[j])
            hessian[j] = p * log_share(float(label[j]), p, 0.0)
        others, others_lo = sum_parts(hessian)
        others += others_lo
        for j in range(score.shape[0]):
            hessian[j] = harmonic(float(label[j]), float(gradient[j]))
        seconds, seconds_lo = sum_parts(hessian)
        seconds += seconds_lo
        top_slope = log_share(at_top, likely, likely_lo)
        top_second = harmonic(at_top, likely)
        mean = fma(likely, top_slope, others)
        for j in range(score.shape[0]):
            p = float(gradient[j])
            t = float(label[j])
            slope = p * (log_share(t, p, 0.0) - mean)
            own = harmonic(t, p)
            other = unlikely - p + likely
            curvature = fma(other - p, slope, fma(other * other, own, p * p * (top_second + (seconds - own))))
            gradient[j] = 0.0 if p == 0.0 else slope
            hessian[j] = 0.0 if p == 0.0 else curvature
        slope = likely * fma(unlikely, top_slope, -others)
        gradient[top] = slope
        hessian[top] = fma(unlikely - likely, slope, fma(unlikely * unlikely, top_second, likely * likely * seconds))
    return value


@dataclass(frozen=True)
class JensenShannon(ListwiseLoss):
    """Jensen–Shannon divergence of the label's and the prediction's distribution, in nats: 0 to log 2.

    The label holds a distribution over the candidates of a list. Neither side is renormalised.
    """

    name: ClassVar[str] = "jensen_shannon"
    aliases: ClassVar[tuple[str, ...]] = ("jensen_shannon_divergence", "js_divergence")
    unit: ClassVar[str] = "nats"
    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    formulas = {"logit": row_logit, "prob": row_prob}
    definition = (
        "½Σ t·log(t/m) + ½Σ q·log(q/m), m = (t + q)/2, q = e^s/Σe^s for logits; "
        "derivatives by a probability of 0 with a positive label are infinite"
    )
    source = "Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991)"

    @property
    def needs(self) -> str:
        """A positive label: a distribution has one."""
        return "positive"
