"""Cross-entropy of the distributions that labels and scores define over a list (ListNet)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.elementary import exp, log1p
from fastloss_kernels.jit import divide, fma, formula
from fastloss_kernels.listwise.sums import exponentials, first_position, highest_score, sum_parts
from fastloss_kernels.losses.base import ListwiseLoss


@formula
def row(score, label, parameters, scratch, gradient, hessian, derivatives):
    """Evaluate Σ t·(m − s) + log Σe^(s − m), m the highest score and t the softmax of the labels.

    The gradient is p − t. Where one candidate leads in both, it is (Σ′e^(y − y_m) − Σ′e^(s − m)) times both its
    probabilities, Σ′ over all others.
    """
    for j in range(score.shape[0]):
        gradient[j] = float(label[j]) if float(score[j]) > float("-inf") else float("nan")
    highest_label = highest_score(gradient)
    label_top = first_position(gradient, highest_label)
    label_rest, label_rest_lo = exponentials(gradient, highest_label, label_top, hessian)
    label_unlikely = label_rest + label_rest_lo
    label_likely = divide(1.0, 1.0 + label_unlikely)
    hessian[label_top] = 1.0
    highest = highest_score(score)
    top = first_position(score, highest)
    for j in range(score.shape[0]):
        e = float(hessian[j])
        term = e * (highest - float(score[j]))
        gradient[j] = 0.0 if (e == 0.0) | (j == top) else term
    distance, distance_lo = sum_parts(gradient)
    rest, rest_lo = exponentials(score, highest, top, gradient)
    unlikely = rest + rest_lo
    likely = divide(1.0, 1.0 + unlikely)
    if derivatives:
        top_label = float(hessian[top]) * label_likely
        for j in range(score.shape[0]):
            e = float(gradient[j])
            p = e * likely
            slope = fma(-float(hessian[j]), label_likely, p)
            gradient[j] = slope
            hessian[j] = p * ((1.0 + (unlikely - e)) * likely)
        both = likely * label_likely * (label_unlikely - unlikely)
        gradient[top] = both if top == label_top else likely - top_label
        hessian[top] = likely * (unlikely * likely)
    distance = fma(distance, label_likely, distance_lo * label_likely) if distance < float("inf") else distance
    return distance + fma(rest_lo, likely, log1p(rest))


@formula
def saturated(score, label, parameters):
    """Tell whether the loss is infinite: one candidate has all probability, and the labels give others some."""
    highest_label = float("-inf")
    certain = False
    for j in range(score.shape[0]):
        x = float(score[j])
        y = float(label[j])
        certain |= x == float("inf")
        highest_label = y if (x > float("-inf")) & (y > highest_label) else highest_label
    asked = False
    for j in range(score.shape[0]):
        x = float(score[j])
        asked |= (abs(x) < float("inf")) & (exp(float(label[j]) - highest_label) > 0.0)
    return certain and asked


@dataclass(frozen=True)
class ListNet(ListwiseLoss):
    """Cross-entropy of the softmax of the labels and the softmax of the scores, in nats.

    Labels are any numbers, such as grades. All candidates count, so a list whose labels are equal has a loss too.
    """

    name: ClassVar[str] = "list_net"
    aliases: ClassVar[tuple[str, ...]] = ("listnet",)
    unit: ClassVar[str] = "nats"
    label_range: ClassVar[Interval] = FINITE
    formulas = {"logit": row}
    saturated = {"logit": saturated}
    definition = "−Σ t·log p, t = e^y/Σe^y, p = e^s/Σe^s"
    source = (
        "Cao et al., Learning to rank: from pairwise approach to listwise approach, ICML (2007), sections 4.2 and 5"
    )
