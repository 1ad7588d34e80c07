"""Sparse categorical cross-entropy: the label is the index of the right candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.listwise.softmax import index_label, make_logit_row, make_probability_row, make_saturated_row
from fastloss_kernels.losses.base import ListwiseLoss
from fastloss_kernels.losses.categorical_crossentropy import smoothing_parameters


@dataclass(frozen=True)
class SparseCategoricalCrossentropy(ListwiseLoss):
    """Negative log-likelihood of the candidate that the label points at, in nats.

    Parameters
    ----------
    ignore_class : int or None
        Lists with this label are left out; it need not be an index.
    label_smoothing : float
        s in [0, 1]: the right candidate keeps 1 − s, and all K unmasked ones get s/K.
    """

    ignore_class: int | None = None  # type: ignore[misc]
    label_smoothing: float = 0.0

    name: ClassVar[str] = "sparse_categorical_crossentropy"
    aliases: ClassVar[tuple[str, ...]] = ("sparse_softmax_crossentropy",)
    unit: ClassVar[str] = "nats"
    label_kind: ClassVar[str] = "index"
    label_range: ClassVar[Interval] = Interval(0.0, float("inf"), high_open=True)
    formulas = {
        "logit": make_logit_row(index_label),
        "prob": make_probability_row(index_label, False),
        "logprob": make_probability_row(index_label, True),
    }
    saturated = {space: make_saturated_row(index_label, space) for space in ("logit", "prob", "logprob")}
    ranges = {"label_smoothing": Interval(0.0, 1.0)}
    definition = "−log p_y, p = e^s/Σe^s for logits"
    source = "Bishop, PRML (2006), eq. 4.108"

    def __post_init__(self) -> None:
        """Check that the class to ignore is a whole number."""
        given = self.ignore_class
        if given is not None and (isinstance(given, bool) or not isinstance(given, int)):
            raise ValueError(f"{self.name}: ignore_class is {given!r}; allowed: a whole number, or None.")
        super().__post_init__()

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return 1 − s, s and that labels stay as they are, and also ε and −log ε for probabilities."""
        return smoothing_parameters(self.label_smoothing, False, space, epsilon)
