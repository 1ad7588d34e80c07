"""Cross-entropy of a list, for labels of any kind: from logits, probabilities and log-probabilities."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping

from fastloss_kernels.domain import ListRow
from fastloss_kernels.double_double import multiply_parts, two_sum
from fastloss_kernels.elementary import log, log1p_of_parts
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.sums import exponentials, first_position, highest_score, sum_parts

LOWEST = -sys.float_info.max

# label_at(label, j) -> the label of candidate j.
LabelAt = Callable[..., float]


@formula
def dense_label(label, j: int) -> float:
    """Return the label of candidate j from a list of labels."""
    return float(label[j])


@formula
def index_label(label, j: int) -> float:
    """Return 1 for the candidate that the label points at, and 0 for others."""
    return 1.0 if j == float(label[0]) else 0.0


@formula
def count_present(score, low: float) -> int:
    """Count the candidates of a list whose score is above a number, or is it; NaN is not."""
    count = 0
    for j in range(score.shape[0]):
        count += 1 if float(score[j]) >= low else 0
    return count


@formula
def all_labels(label, n: int) -> tuple[int, int]:
    """Return where labels that count may begin and end: anywhere."""
    return 0, n


@formula
def only_label(label, n: int) -> tuple[int, int]:
    """Return where the only label that counts begins and ends."""
    return int(label[0]), int(label[0]) + 1


# Where to look for labels that count, by how labels are read.
LABELLED: Mapping[LabelAt, Callable[..., tuple[int, int]]] = {dense_label: all_labels, index_label: only_label}


@functools.cache
def make_logit_row(label_at: LabelAt) -> ListRow:
    """Make the cross-entropy of logits: Σ y·(m − s) + Σy·log1p(Σ′ e^(s − m)), m the highest and Σ′ over all others.

    The gradient is p·Σy − y, and at the highest candidate, where that cancels, p·(Σ′y − y·Σ′e^(s − m)). Parameters are
    1 − smoothing, smoothing, and whether labels are divided by their sum.
    """

    labelled = LABELLED[label_at]

    @formula
    def row(score, label, parameters, scratch, gradient, hessian, derivatives):
        scale, smoothing, normalized = parameters
        highest = highest_score(score)
        top = first_position(score, highest)
        rest, rest_lo = exponentials(score, highest, top, gradient)
        shift = 0.0
        if smoothing != 0.0:
            shift = smoothing / count_present(score, LOWEST)
        at_top = 0.0
        others = 0.0
        others_lo = 0.0
        distance = 0.0
        distance_lo = 0.0
        first, stop = labelled(label, score.shape[0]) if shift == 0.0 else (0, score.shape[0])
        for j in range(first, stop):
            given = label_at(label, j)
            # Where most labels are 0, passing over them costs less than arithmetic with all.
            if given == 0.0 and shift == 0.0:
                continue
            x = float(score[j])
            if not x > float("-inf"):
                distance = float("inf") if given * scale > 0.0 else distance
                continue
            y = fma(given, scale, shift)
            if j == top:
                at_top = y
                continue
            others, lost = two_sum(others, y)
            others_lo += lost
            difference, difference_lo = two_sum(highest, -x)
            term, term_lo = multiply_parts(y, difference, difference_lo)
            distance, lost = two_sum(distance, term)
            distance_lo += lost + term_lo
        others += others_lo
        labels = at_top + others
        unlikely = rest + rest_lo
        total, lost = two_sum(1.0, rest)
        likely = divide(1.0, total)
        likely_lo = likely * fma(-likely, lost + rest_lo, fma(-likely, total, 1.0))
        log_total = log1p_of_parts(rest, rest_lo)
        # The low word of an infinite distance is NaN.
        distance_lo = distance_lo if distance < float("inf") else 0.0
        value = distance + fma(labels, log_total, distance_lo)
        # Without a label that counts there is nothing to divide.
        if normalized != 0.0 and labels > 0.0:
            value = divide(value, labels)
            scale = divide(scale, labels)
            shift = divide(shift, labels)
            at_top = divide(at_top, labels)
            others = divide(others, labels)
            labels = 1.0
        if derivatives:
            # Each rounded once: what is left has several roundings of its own.
            scaled = labels * fma(likely, likely, 2.0 * likely * likely_lo)
            likely += likely_lo
            for j in range(score.shape[0]):
                e = gradient[j]
                p = e * likely
                slope = fma(p, labels, -fma(label_at(label, j), scale, shift))
                curvature = scaled * (e * (1.0 + (unlikely - e)))
                masked = not float(score[j]) > float("-inf")
                gradient[j] = 0.0 if masked else slope
                hessian[j] = 0.0 if masked else curvature
            gradient[top] = likely * fma(-at_top, unlikely, others)
            hessian[top] = scaled * unlikely
        return value

    return row


@functools.cache
def make_probability_row(label_at: LabelAt, logarithmic: bool) -> ListRow:
    """Make the cross-entropy of probabilities −Σ y·log p, or of log-probabilities, each logarithm clipped at log ε.

    Parameters are those of `make_logit_row`, and then ε and −log ε.
    """

    @formula
    def row(score, label, parameters, scratch, gradient, hessian, derivatives):
        scale, smoothing, normalized, epsilon, ceiling = parameters
        lowest = LOWEST if logarithmic else 0.0
        shift = 0.0
        if smoothing != 0.0:
            shift = smoothing / count_present(score, lowest)
        if normalized != 0.0:
            for j in range(score.shape[0]):
                masked = not float(score[j]) >= lowest
                gradient[j] = label_at(label, j) * scale + (0.0 if masked else shift)
            labels, labels_lo = sum_parts(gradient)
            labels += labels_lo
            labels = labels if labels > 0.0 else 1.0
            scale = divide(scale, labels)
            shift = divide(shift, labels)
        for j in range(score.shape[0]):
            x = float(score[j])
            masked = not x >= lowest
            y = fma(label_at(label, j), scale, 0.0 if masked else shift)
            x = (float("-inf") if logarithmic else 0.0) if masked else x
            cost = -x if logarithmic else -log(x)
            cost = ceiling if cost > ceiling else cost
            term = y * cost
            hessian[j] = 0.0 if y == 0.0 else term
        value, value_lo = sum_parts(hessian)
        if derivatives:
            for j in range(score.shape[0]):
                x = float(score[j])
                masked = not x >= lowest
                y = fma(label_at(label, j), scale, shift)
                y = 0.0 if masked else y
                p = epsilon if x < epsilon else x
                slope = -y if logarithmic else divide(-y, p)
                curvature = 0.0 if logarithmic else divide(-slope, p)
                # 0/0 stands where a probability of 0 is not asked for.
                gradient[j] = 0.0 if y == 0.0 else slope
                hessian[j] = 0.0 if y == 0.0 else curvature
        return value + value_lo

    return row


@functools.cache
def make_saturated_row(label_at: LabelAt, space: str) -> Callable[..., bool]:
    """Make the test whether a list's cross-entropy is clipped or infinite: ``saturated(score, label, parameters)``."""

    @formula
    def saturated(score, label, parameters):
        lowest = 0.0 if space == "prob" else LOWEST
        found = False
        certain = False
        asked_elsewhere = False
        for j in range(score.shape[0]):
            x = float(score[j])
            masked = not x >= lowest
            asked = label_at(label, j) * parameters[0] > 0.0 or (parameters[1] > 0.0 and not masked)
            if space == "logit":
                impossible = masked
                certain |= x == float("inf")
                asked_elsewhere |= asked and x < float("inf")
            elif space == "prob":
                impossible = not (x >= parameters[3] and x > 0.0)
            else:
                impossible = not (-x <= parameters[4] and x > float("-inf"))
            found |= impossible and asked
        return found or (certain and asked_elsewhere)

    return saturated
