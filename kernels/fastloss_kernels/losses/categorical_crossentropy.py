"""Categorical cross-entropy: the negative log-likelihood of the right candidates of a list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.elementary import log
from fastloss_kernels.listwise.softmax import dense_label, make_logit_row, make_probability_row, make_saturated_row
from fastloss_kernels.losses.base import ListwiseLoss


def smoothing_parameters(smoothing: float, normalized: bool, space: str, epsilon: float) -> tuple[float, ...]:
    """Return what a formula of `fastloss_kernels.listwise.softmax` reads in a space."""
    shape = (1.0 - smoothing, float(smoothing), float(normalized))
    if space == "logit":
        return shape
    return (*shape, epsilon, float("inf") if epsilon == 0.0 else -log(epsilon))


@dataclass(frozen=True)
class CategoricalCrossentropy(ListwiseLoss):
    """Negative log-likelihood of labels that spread over the candidates of a list, in nats.

    Labels are one-hot or soft, at least 0; where their sum is not 1 it weighs the list, and nothing is renormalised.

    Parameters
    ----------
    label_smoothing : float
        s in [0, 1]: labels become y·(1 − s) + s/K, K the unmasked candidates of the list.
    no_positive : {"skip", "zero"}
        Whether a list without a positive label is left out, or counts with a loss of 0.
    """

    label_smoothing: float = 0.0
    no_positive: str = "skip"

    name: ClassVar[str] = "categorical_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("softmax_crossentropy", "cross_entropy")
    unit: ClassVar[str] = "nats"
    counts_no_positive: ClassVar[bool] = True
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    formulas = {
        "logit": make_logit_row(dense_label),
        "prob": make_probability_row(dense_label, False),
        "logprob": make_probability_row(dense_label, True),
    }
    saturated = {space: make_saturated_row(dense_label, space) for space in ("logit", "prob", "logprob")}
    ranges = {"label_smoothing": Interval(0.0, 1.0)}
    choices = {"no_positive": ("skip", "zero")}
    definition = "−Σ y·log p, p = e^s/Σe^s for logits"
    source = "Bishop, PRML (2006), eq. 4.108"

    @property
    def needs(self) -> str:
        """A positive label, unless a list without one counts with 0."""
        return "positive" if self.no_positive == "skip" and self.label_smoothing == 0.0 else "candidate"

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return 1 − s, s and that labels stay as they are, and also ε and −log ε for probabilities."""
        return smoothing_parameters(self.label_smoothing, False, space, epsilon)
