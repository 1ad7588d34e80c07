"""Cross-entropy of lists with several right candidates, in the four forms that are in use."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval, ListRow, ListTest
from fastloss_kernels.double_double import (
    divide_parts,
    log_of_positive_parts,
    multiply_parts,
    scaled_exp_parts,
    two_sum,
)
from fastloss_kernels.elementary import exp_of_parts, log, log1p_of_parts
from fastloss_kernels.jit import divide, exact_add, float64_bits, float64_from_bits, fma, formula
from fastloss_kernels.listwise.softmax import (
    LOWEST,
    dense_label,
    make_logit_row,
    make_probability_row,
    make_saturated_row,
)
from fastloss_kernels.listwise.sums import EXPONENT_FIELD, LONGEST_SUM, first_position, highest_score, split, sum_parts
from fastloss_kernels.losses.base import ListwiseLoss
from fastloss_kernels.losses.categorical_crossentropy import smoothing_parameters


@formula
def highest_of(score, label, positive: bool, scratch) -> tuple[float, int]:
    """Return the highest score among positives, or among negatives, and where it stands; −∞ where there is none."""
    for j in range(score.shape[0]):
        x = float(score[j])
        scratch[j] = x if (float(label[j]) > 0.0) == positive else float("-inf")
    highest = highest_score(scratch)
    return highest, first_position(scratch, highest)


@formula
def sum_of(terms, label, positive: bool, scratch) -> tuple[float, float]:
    """Compute the sum of the terms of positives, or of negatives, as hi + lo."""
    for j in range(terms.shape[0]):
        scratch[j] = terms[j] if (float(label[j]) > 0.0) == positive else 0.0
    return sum_parts(scratch)


@formula
def log1p_of_scaled(a: float, a_lo: float, x: float, x_lo: float) -> tuple[float, float, float]:
    """Compute log(1 + t), t/(1 + t) and 1/(1 + t) for t = a·eˣ, a at least 0; t may overflow or be infinite."""
    x_lo = x_lo if abs(x) < float("inf") else 0.0
    hi, lo = scaled_exp_parts(a, x, x_lo)
    ratio = divide(a_lo, a)
    within = hi < 1e300
    t, t_lo = two_sum(hi if within else 1.0, fma(hi, ratio if a > 0.0 else 0.0, lo) if within else 0.0)
    total, lost = two_sum(1.0, t)
    lost += t_lo
    share, share_lo = divide_parts(t, t_lo, total, lost)
    rest, rest_lo = divide_parts(1.0, 0.0, total, lost)
    value = log1p_of_parts(t, t_lo)
    far_value = x + (log(a) + x_lo)
    return (
        value if within else far_value,
        share + share_lo if within else 1.0,
        rest + rest_lo if within else divide(1.0, hi),
    )


@formula
def reciprocal(hi: float, lo: float) -> float:
    """Compute 1/(hi + lo)."""
    inverse, inverse_lo = divide_parts(1.0, 0.0, hi, lo)
    return inverse + inverse_lo


@formula
def exponentials_of_both(score, label, highest, top, negative_highest, negative_top, out):
    """Fill `out` with e^(s − the highest of its side), 0 at both tops and where masked."""
    for j in range(score.shape[0]):
        reference = highest if float(label[j]) > 0.0 else negative_highest
        difference, lost = two_sum(float(score[j]), -reference)
        e = exp_of_parts(difference, lost)
        e = e if difference > -800.0 else 0.0
        out[j] = 0.0 if (j == top) | (j == negative_top) else e


@formula
def mass_row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate log(1 + N/P), P and N the sums of e^s over positives and negatives, each relative to its own highest.

    With w = e/P of a positive, v = e/N of a negative, n = N/(P + N) and m = 1 − n, gradients are −w·n and v·n, and
    second derivatives w·n·(m − (1 − w)·(1 + m)) and v·n·(m + n·(1 − v)).
    """
    highest, top = highest_of(score, label, True, gradient)
    negative_highest, negative_top = highest_of(score, label, False, gradient)
    exponentials_of_both(score, label, highest, top, negative_highest, negative_top, gradient)
    rest, rest_lo = sum_of(gradient, label, True, hessian)
    negative_rest, negative_rest_lo = sum_of(gradient, label, False, hessian)
    positives, lost = two_sum(1.0, rest)
    negatives, negative_lost = two_sum(1.0, negative_rest)
    quotient, quotient_lo = divide_parts(negatives, negative_lost + negative_rest_lo, positives, lost + rest_lo)
    difference, difference_lo = two_sum(negative_highest, -highest)
    value, share, remainder = log1p_of_scaled(quotient, quotient_lo, difference, difference_lo)
    if negative_highest == float("-inf"):
        value, share, remainder = 0.0, 0.0, 1.0
    if highest == float("-inf"):
        # Either all positives are masked, or there is none.
        asked = False
        for j in range(score.shape[0]):
            asked |= float(label[j]) > 0.0
        value = float("inf") if asked else 0.0
        share = 1.0 if asked else 0.0
        remainder = 0.0
    if derivatives:
        likely = reciprocal(positives, lost + rest_lo)
        negative_likely = reciprocal(negatives, negative_lost + negative_rest_lo)
        scaled = likely * share
        negative_scaled = negative_likely * share
        unlikely = rest + rest_lo
        negative_unlikely = negative_rest + negative_rest_lo
        for j in range(score.shape[0]):
            right = float(label[j]) > 0.0
            is_top = (j == top) | (j == negative_top)
            e = gradient[j]
            others = (unlikely if right else negative_unlikely) - e
            others = others if is_top else others + 1.0
            e = 1.0 if is_top else e
            slope = e * (scaled if right else negative_scaled)
            remaining = others * (likely if right else negative_likely)
            factor = fma(-remaining, 1.0 + remainder, remainder) if right else fma(share, remaining, remainder)
            masked = not float(score[j]) > float("-inf")
            gradient[j] = 0.0 if masked else (-slope if right else slope)
            hessian[j] = 0.0 if masked else slope * factor
    return value


@formula
def each_row_logit(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ y·log(1 + r) over positives, r = N·e^−s, N the sum of e^s over negatives relative to its highest.

    With g = r/(1 + r), the gradient of a positive is −y·g and that of a negative v·Σ y·g, v = e/N; second derivatives
    are y·g·(1 − g) and v·(Σ y·g·(1 − g) + (1 − v)·Σ y·g²).
    """
    negative_highest, negative_top = highest_of(score, label, False, gradient)
    exponentials_of_both(score, label, 0.0, negative_top, negative_highest, negative_top, gradient)
    rest, rest_lo = sum_of(gradient, label, False, hessian)
    negatives, lost = two_sum(1.0, rest)
    lost += rest_lo
    none = negative_highest == float("-inf")
    value = 0.0
    value_lo = 0.0
    slopes = 0.0
    curvatures = 0.0
    squares = 0.0
    for j in range(score.shape[0]):
        y = float(label[j])
        if y > 0.0:
            x = float(score[j])
            if not x > float("-inf"):
                value = float("inf")
                gradient[j] = 0.0
                hessian[j] = 0.0
                continue
            difference, difference_lo = two_sum(negative_highest, -x)
            term, share, remainder = log1p_of_scaled(negatives, lost, difference, difference_lo)
            term = 0.0 if none else term
            share = 0.0 if none else share
            hi, lo = multiply_parts(y, term, 0.0)
            value, value_lost = two_sum(value, hi)
            value_lo += value_lost + lo
            slope = y * share
            slopes += slope
            curvatures = fma(slope, remainder, curvatures)
            squares = fma(slope, share, squares)
            gradient[j] = -slope
            hessian[j] = slope * remainder
    if derivatives:
        likely = reciprocal(negatives, lost)
        unlikely = rest + rest_lo
        for j in range(score.shape[0]):
            if not float(label[j]) > 0.0:
                is_top = j == negative_top
                e = gradient[j]
                others = unlikely - e
                others = others if is_top else others + 1.0
                part = (1.0 if is_top else e) * likely
                masked = not float(score[j]) > float("-inf")
                gradient[j] = 0.0 if masked else part * slopes
                hessian[j] = 0.0 if masked else part * fma(others * likely, squares, curvatures)
    # The low word of an infinite sum is NaN.
    return value + value_lo if value < float("inf") else value


@formula
def any_positive(label) -> bool:
    """Tell whether a list has a positive label."""
    found = False
    for j in range(label.shape[0]):
        found |= float(label[j]) > 0.0
    return found


@formula
def mass_of_block(score, label) -> tuple[float, float]:
    """Compute the probability of all positives of at most `LONGEST_SUM` candidates, as `sums.sum_of_block` does."""
    largest = 0
    for j in range(score.shape[0]):
        x = float(score[j])
        largest = max(largest, float64_bits(x) if (float(label[j]) > 0.0) & (x >= 0.0) else 0)
    scale = float64_from_bits(largest & EXPONENT_FIELD)
    hi = 0.0
    lo = 0.0
    for j in range(score.shape[0]):
        x = float(score[j])
        first, second = split(x if (float(label[j]) > 0.0) & (x >= 0.0) else 0.0, scale)
        hi = exact_add(hi, first)
        lo = exact_add(lo, second)
    return two_sum(hi, lo)


@formula
def mass_of_positives(score, label) -> tuple[float, float]:
    """Compute the probability of all positives as hi + lo; it needs no scratch, so a test can ask for it too."""
    n = score.shape[0]
    if n <= LONGEST_SUM:
        return mass_of_block(score, label)
    hi = 0.0
    lo = 0.0
    for start in range(0, n, LONGEST_SUM):
        stop = min(start + LONGEST_SUM, n)
        block, block_lo = mass_of_block(score[start:stop], label[start:stop])
        hi, lost = two_sum(hi, block)
        lo += lost + block_lo
    return hi, lo


@formula
def mass_row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate −log Σ p over positives, the sum clipped at ε; derivatives −1/Σ and 1/Σ² at positives."""
    epsilon, ceiling = parameters
    total, lo = mass_of_positives(score, label)
    clipped = total < epsilon
    bounded = epsilon if clipped else total
    hi, log_lo = log_of_positive_parts(bounded if bounded > 0.0 else 1.0, 0.0 if clipped else lo)
    value = -(hi + log_lo)
    value = ceiling if clipped or total == 0.0 else value
    if derivatives:
        slope = divide(1.0, bounded)
        for j in range(score.shape[0]):
            counts = (float(label[j]) > 0.0) & (float(score[j]) >= 0.0)
            gradient[j] = -slope if counts else 0.0
            hessian[j] = slope * slope if counts else 0.0
    return value if any_positive(label) else 0.0


@formula
def each_row_prob(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ y·log(1 + N/p) over positives, N the sum of p over negatives, p clipped at ε.

    Derivatives of a positive are −y·N/(p·(p + N)) and y·N·(2p + N)/(p·(p + N))², those of a negative the sums of
    y/(p + N) and −y/(p + N)².
    """
    epsilon = parameters[0]
    for j in range(score.shape[0]):
        x = float(score[j])
        gradient[j] = 0.0 if float(label[j]) > 0.0 or not x >= 0.0 else x
    negatives, lo = sum_parts(gradient)
    total = negatives + lo
    value = 0.0
    value_lo = 0.0
    slopes = 0.0
    curvatures = 0.0
    for j in range(score.shape[0]):
        y = float(label[j])
        if y > 0.0:
            x = float(score[j])
            p = x if x >= epsilon else epsilon
            odds, odds_lo = divide_parts(negatives, lo, p, 0.0)
            odds_lo = odds_lo if odds < float("inf") and odds_lo == odds_lo else 0.0
            term = log1p_of_parts(odds, odds_lo)
            term = 0.0 if negatives == 0.0 else term
            hi, lost = multiply_parts(y, term, 0.0)
            value, value_lost = two_sum(value, hi)
            value_lo += value_lost + lost
            both = p + total
            inverse = divide(1.0, both)
            slope = divide(total, p) * inverse
            slopes = fma(y, inverse, slopes)
            curvatures = fma(y * inverse, inverse, curvatures)
            masked = not x >= 0.0
            slope = 0.0 if masked or negatives == 0.0 else y * slope
            gradient[j] = -slope
            hessian[j] = 0.0 if slope == 0.0 else slope * (divide(1.0, p) + inverse)
    if derivatives:
        for j in range(score.shape[0]):
            if not float(label[j]) > 0.0:
                masked = not float(score[j]) >= 0.0
                gradient[j] = 0.0 if masked else slopes
                hessian[j] = 0.0 if masked else -curvatures
    return value + value_lo if value < float("inf") else value


@functools.cache
def make_logit_test(each: bool) -> Callable[..., bool]:
    """Make the test whether the loss is infinite: one positive, or all of them, have no probability."""

    @formula
    def saturated(score, label, parameters):
        present = False
        masked = False
        certain = False
        for j in range(score.shape[0]):
            x = float(score[j])
            right = float(label[j]) > 0.0
            present |= right and x >= LOWEST
            masked |= right and not x >= LOWEST
            certain |= (not right) and x == float("inf")
        if each:
            return masked or (present and certain)
        return certain if present else masked

    return saturated


@formula
def mass_saturated_prob(score, label, parameters):
    """Tell whether the probability of all positives is clipped, or 0."""
    total, _ = mass_of_positives(score, label)
    return any_positive(label) and (total < parameters[0] or total == 0.0)


@formula
def each_saturated_prob(score, label, parameters):
    """Tell whether the probability of a positive is clipped, or 0, beside negatives that have some."""
    impossible = False
    against = False
    for j in range(score.shape[0]):
        x = float(score[j])
        right = float(label[j]) > 0.0
        impossible |= right and not (x >= parameters[0] and x > 0.0)
        against |= (not right) and x > 0.0
    return impossible and against


_MEAN = {"logit": make_logit_row(dense_label), "prob": make_probability_row(dense_label, False)}
_FORMULAS: Mapping[str, Mapping[str, ListRow]] = {
    "mean": _MEAN,
    "sum": _MEAN,
    "mass": {"logit": mass_row_logit, "prob": mass_row_prob},
    "each_vs_negatives": {"logit": each_row_logit, "prob": each_row_prob},
}
_MEAN_TESTS = {space: make_saturated_row(dense_label, space) for space in ("logit", "prob")}
_TESTS: Mapping[str, Mapping[str, ListTest]] = {
    "mean": _MEAN_TESTS,
    "sum": _MEAN_TESTS,
    "mass": {"logit": make_logit_test(False), "prob": mass_saturated_prob},
    "each_vs_negatives": {"logit": make_logit_test(True), "prob": each_saturated_prob},
}


@dataclass(frozen=True)
class MultiPositiveCrossentropy(ListwiseLoss):
    """Cross-entropy of a list with m positives (labels above 0) among its m + n candidates, in nats.

    Parameters
    ----------
    form : {"mean", "sum", "mass", "each_vs_negatives"}
        "sum" is Σ −log p over positives, each weighted by its label, so that a list with m positives counts m times;
        "mean" divides it by the sum of the labels. "mass" is −log Σ p over positives, whatever their labels.
        "each_vs_negatives" is Σ log(1 + Σ e^(s_j − s_i)), i over positives, weighted by their labels, and j over
        negatives alone: positives do not compete. From probabilities, e^(s_j − s_i) is p_j/p_i.
    no_positive : {"skip", "zero"}
        Whether a list without a positive label is left out, or counts with a loss of 0.

    Notes
    -----
    A masked positive makes the loss infinite (from probabilities: clipped), but has no part in "mass" while another
    positive is unmasked.
    """

    form: str = "mean"
    no_positive: str = "skip"

    name: ClassVar[str] = "multi_positive_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("multi_positive_softmax",)
    unit: ClassVar[str] = "nats"
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    choices = {"form": ("mean", "sum", "mass", "each_vs_negatives"), "no_positive": ("skip", "zero")}
    definition = "Σ y·(log Σ e^s − s)/Σy; sum: not divided; mass: −log Σ⁺p; each_vs_negatives: Σ⁺ y·log(1 + Σ⁻e^s/e^s)"
    source = "Khosla et al., Supervised contrastive learning, NeurIPS (2020), section 3.2.2"

    @property
    def formulas(self) -> Mapping[str, ListRow]:
        """The formulas of the form."""
        return _FORMULAS[self.form]

    @property
    def saturated(self) -> Mapping[str, ListTest]:
        """The tests of the form."""
        return _TESTS[self.form]

    @property
    def needs(self) -> str:
        """A positive label, unless a list without one counts with 0."""
        return "positive" if self.no_positive == "skip" else "candidate"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formulas of cross-entropy read; else ε and −log ε for probabilities alone."""
        shape = smoothing_parameters(0.0, self.form == "mean", space, epsilon)
        return shape if self.form in ("mean", "sum") else shape[3:]
