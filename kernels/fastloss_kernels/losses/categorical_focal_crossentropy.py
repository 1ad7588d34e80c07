"""Categorical focal cross-entropy: cross-entropy that counts candidates which are predicted well for less."""

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
from fastloss_kernels.elementary import exp, log
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.softmax import LOWEST, count_present, dense_label, make_saturated_row
from fastloss_kernels.listwise.sums import exponential_parts, first_position, highest_score
from fastloss_kernels.losses.base import ListwiseLoss
from fastloss_kernels.losses.binary_focal_crossentropy import row_prob as binary_row_prob


@formula
def focal_of_candidate(x, highest, at_top, rest, rest_lo, total, total_lo, log_total, log_total_lo, gamma):
    """Compute for one candidate q^γ·c as hi + lo, its slope, the slope's change, its own curvature, p and q.

    Of a logit x: with e = e^(x − highest), c = −log p the cost, p = e/total, q = 1 − p, and u = p·c/q, which tends to
    1 with p, the slope is q^γ·(1 + γ·u), the slope's change γ·p·q^(γ − 1)·(c − 2 − (γ − 1)·u), and the curvature
    p·q·slope − q²·change = p·q^(γ + 1)·(1 + 2γ + γ²·u − γ·c). `rest` is the sum of e without the highest one, and
    `total` 1 more.
    """
    difference, difference_lo = two_sum(highest, -x)
    far = difference > 800.0
    difference = 0.0 if at_top else difference
    difference_lo = 0.0 if at_top or far else difference_lo
    cost, cost_lo = two_sum(difference, log_total)
    cost_lo += difference_lo + log_total_lo
    # The low word of an infinite cost is NaN.
    cost_lo = cost_lo if cost < float("inf") else 0.0
    e, e_lo = exp_parts(-800.0 if far else -difference)
    e_lo = fma(-e, difference_lo, e_lo)
    # All other candidates' sum.
    others, others_lo = two_sum(rest, -e)
    missed, missed_lo = two_sum(1.0, others)
    missed_lo += others_lo + (rest_lo - e_lo)
    p, p_lo = divide_parts(e, e_lo, total, total_lo)
    q, q_lo = divide_parts(rest if at_top else missed, rest_lo if at_top else missed_lo, total, total_lo)
    nothing = not q > 0.0
    q = 1.0 if nothing else q
    q_lo = 0.0 if nothing else q_lo
    log_q, log_q_lo = log_of_positive_parts(q, q_lo)
    factor, factor_lo = power_parts(log_q, log_q_lo, gamma)
    zeroth = 1.0 if gamma == 0.0 else 0.0
    factor = zeroth if nothing else factor
    factor_lo = 0.0 if nothing else factor_lo
    value = factor * cost
    value_lo = fma(factor, cost, -value) + fma(factor, cost_lo, factor_lo * cost)
    value_lo = value_lo if value < float("inf") else 0.0
    factor += factor_lo
    p += p_lo
    q += q_lo
    ratio = divide(p * (cost + cost_lo), q)
    ratio = 1.0 if nothing else ratio
    ratio = 0.0 if p == 0.0 else ratio
    empty = p == 0.0
    slope_change = gamma * p * (cost - fma(gamma - 1.0, ratio, 2.0))
    exponent, exponent_lo = multiply_parts(gamma - 1.0, log_q, log_q_lo)
    lower = exp(700.0 if exponent > 700.0 else exponent)
    slope_change *= fma(lower, exponent_lo, lower)
    curvature = (p * q) * (factor * (1.0 + gamma * (fma(gamma, ratio, 2.0) - cost)))
    return (
        value,
        value_lo,
        fma(factor * gamma, ratio, factor),
        0.0 if empty or nothing else slope_change,
        0.0 if empty or nothing else curvature,
        p,
        0.0 if nothing else q,
    )


@formula
def row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate α·Σ y·q^γ·c over candidates, p the softmax of logits, q = 1 − p and c = −log p.

    With a = α·y·q^γ·(1 + γ·p·c/q), S = Σa, b = p·∂a/∂p and T = Σb, the gradient is p·S − a = p·(S − a) − a·q and the
    second derivative p·q·a − q²·b + p·q·(S − a) − p²·(T − b).
    """
    scale, smoothing, gamma, alpha = parameters
    highest = highest_score(score)
    top = first_position(score, highest)
    # Powers of 1 − p multiply a relative error.
    rest, rest_lo = exponential_parts(score, highest, top, gradient, hessian)
    for j in range(score.shape[0]):
        gradient[j] = float(gradient[j]) + float(hessian[j])
    shift = 0.0
    if smoothing != 0.0:
        shift = smoothing / count_present(score, LOWEST)
    total, total_lo = two_sum(1.0, rest)
    total_lo += rest_lo
    above = rest > 1.0
    near_log, near_log_lo = log1p_unit_parts(0.0 if above else rest, 0.0 if above else rest_lo)
    far_log, far_log_lo = log_of_positive_parts(total, total_lo)
    log_total = far_log if above else near_log
    log_total_lo = far_log_lo if above else near_log_lo
    value = 0.0
    value_lo = 0.0
    slopes = 0.0
    slopes_lo = 0.0
    slope_changes = 0.0
    slope_changes_lo = 0.0
    n_labelled = 0
    last = -1
    slope = slope_change = own_curvature = p = q = 0.0
    for j in range(score.shape[0]):
        given = float(label[j])
        # Where most labels are 0, passing over them costs less than arithmetic with all.
        if given == 0.0 and shift == 0.0:
            continue
        x = float(score[j])
        if not x > float("-inf"):
            value = float("inf") if given * scale > 0.0 else value
            continue
        y = alpha * fma(given, scale, shift)
        term, term_lo, slope, slope_change, own_curvature, p, q = focal_of_candidate(
            x, highest, j == top, rest, rest_lo, total, total_lo, log_total, log_total_lo, gamma
        )
        hi, lo = multiply_parts(y, term, term_lo)
        value, lost = two_sum(value, hi)
        value_lo += lost + lo
        slopes, lost = two_sum(slopes, y * slope)
        slopes_lo += lost
        slope_changes, lost = two_sum(slope_changes, y * slope_change)
        slope_changes_lo += lost
        n_labelled += 1
        last = j
    if derivatives:
        likely, likely_lo = divide_parts(1.0, 0.0, total, total_lo)
        likely += likely_lo
        unlikely = rest + rest_lo
        whole = slopes + slopes_lo
        all_slope_changes = slope_changes + slope_changes_lo
        for j in range(score.shape[0]):
            x = float(score[j])
            e = gradient[j]
            missed = 1.0 + (unlikely - e)
            any_p = (1.0 if j == top else e) * likely
            any_q = (unlikely if j == top else missed) * likely
            any_curvature = any_p * fma(any_q, whole, -(any_p * all_slope_changes))
            masked = not x > float("-inf")
            gradient[j] = 0.0 if masked else any_p * whole
            hessian[j] = 0.0 if masked else any_curvature
        # In a loop of their own, the few candidates with a label leave the other loop its vectors; the only one of a
        # list is known already.
        for j in range(last if n_labelled == 1 else 0, last + 1):
            x = float(score[j])
            given = float(label[j])
            if (given == 0.0 and shift == 0.0) or not x > float("-inf"):
                continue
            y = alpha * fma(given, scale, shift)
            if n_labelled != 1:
                _, _, slope, slope_change, own_curvature, p, q = focal_of_candidate(
                    x, highest, j == top, rest, rest_lo, total, total_lo, log_total, log_total_lo, gamma
                )
            own = y * slope
            other_slopes = (slopes - own) + slopes_lo
            other_slope_changes = (slope_changes - y * slope_change) + slope_changes_lo
            gradient[j] = fma(p, other_slopes, -(own * q))
            hessian[j] = fma(y, own_curvature, p * fma(q, other_slopes, -(p * other_slope_changes)))
    return value + value_lo if value < float("inf") else value


@formula
def row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ y·α·(1 − p)^γ·(−log p) of probabilities, each logarithm clipped at log ε."""
    scale, smoothing, gamma, epsilon, ceiling, alpha = parameters
    shift = 0.0
    if smoothing != 0.0:
        shift = smoothing / count_present(score, 0.0)
    value = 0.0
    value_lo = 0.0
    for j in range(score.shape[0]):
        x = float(score[j])
        masked = not x >= 0.0
        y = fma(float(label[j]), scale, 0.0 if masked else shift)
        slope = 0.0
        curvature = 0.0
        if y != 0.0:
            term, slope, curvature = binary_row_prob(0.0 if masked else x, 1.0, (gamma, alpha, 0.0, epsilon, ceiling))
            hi, lo = multiply_parts(y, term, 0.0)
            value, lost = two_sum(value, hi)
            value_lo += lost + lo
        if derivatives:
            gradient[j] = 0.0 if masked else y * slope
            hessian[j] = 0.0 if masked else y * curvature
    return value + value_lo if value < float("inf") else value


@dataclass(frozen=True)
class CategoricalFocalCrossentropy(ListwiseLoss):
    """Cross-entropy over the candidates of a list, each counted by how much it was missed, in nats.

    Labels are one-hot or soft, at least 0; nothing is renormalised.

    Parameters
    ----------
    gamma : float
        γ ≥ 0: how much less candidates count that are predicted well; 0 is cross-entropy times α.
    alpha : float
        α > 0: the weight of every candidate.
    label_smoothing : float
        s in [0, 1]: labels become y·(1 − s) + s/K, K the unmasked candidates of the list.
    no_positive : {"skip", "zero"}
        Whether a list without a positive label is left out, or counts with a loss of 0.
    """

    gamma: float = 2.0
    alpha: float = 0.25
    label_smoothing: float = 0.0
    no_positive: str = "skip"

    name: ClassVar[str] = "categorical_focal_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("softmax_focal_loss",)
    counts_no_positive: ClassVar[bool] = True
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    formulas = {"logit": row_logit, "prob": row_prob}
    saturated = {space: make_saturated_row(dense_label, space) for space in ("logit", "prob")}
    ranges = {
        "gamma": Interval(0.0, float("inf"), high_open=True),
        "alpha": Interval(0.0, float("inf"), low_open=True, high_open=True),
        "label_smoothing": Interval(0.0, 1.0),
    }
    choices = {"no_positive": ("skip", "zero")}
    definition = "−α·Σ y·(1 − p)^γ·log p, p = e^s/Σe^s for logits"
    source = "Lin et al., Focal loss for dense object detection, ICCV (2017), eq. 5, over a softmax"

    @property
    def needs(self) -> str:
        """A positive label, unless a list without one counts with 0."""
        return "positive" if self.no_positive == "skip" and self.label_smoothing == 0.0 else "candidate"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return 1 − s, s, γ, for probabilities ε and −log ε, and α."""
        shape = (1.0 - self.label_smoothing, float(self.label_smoothing), float(self.gamma))
        if space == "logit":
            return (*shape, float(self.alpha))
        return (*shape, epsilon, float("inf") if epsilon == 0.0 else -log(epsilon), float(self.alpha))
