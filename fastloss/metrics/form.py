"""The form of a metric over a log: the terms it sums over the rows, and the number it reads from those sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fastloss_kernels.exact_sum import ExactSum
from fastloss_kernels.losses import Loss
from fastloss_kernels.losses.form import Interval


@dataclass(frozen=True)
class Term:
    """A quantity that is summed over the rows of one model: w, w·label, w·predicted mean or w·loss.

    The saturated quantities count the rows, and sum the weight, whose loss was clipped or infinite.
    """

    quantity: Literal["weight", "label", "prediction", "loss", "saturated_rows", "saturated_weight"]
    loss: Loss | None = None


WEIGHT = Term("weight")
LABEL = Term("label")
PREDICTION = Term("prediction")


class Sums(Protocol):
    """The sums of one model over one slice."""

    @property
    def n(self) -> int:
        """How many rows were used."""

    @property
    def space(self) -> str:
        """The space of the model's prediction."""

    def __getitem__(self, term: Term) -> ExactSum:
        """Return the exact sum of a term."""


@dataclass(frozen=True)
class Reading:
    """A metric's value over one slice; `value` is None, with a reason, where it is not defined."""

    value: float | None
    reason: str | None = None
    evidence: Mapping[str, float | int] = field(default_factory=dict)


ANY_LABEL = Interval(float("-inf"), float("inf"), low_open=True, high_open=True)
BINARY_LABEL = Interval(0.0, 1.0)


class Metric(Protocol):
    """What the plan, the engine and the report ask of a metric."""

    @property
    def label(self) -> str:
        """The name that results carry."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """The prediction spaces that it accepts."""

    @property
    def label_range(self) -> Interval:
        """The labels that it accepts."""

    @property
    def description(self) -> str:
        """Its formula, in one line."""

    def prediction_range(self, space: str) -> Interval:
        """Return which predictions of a space it accepts."""

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return the terms that it needs for a model of this space."""

    def read(self, sums: Sums) -> Reading:
        """Read the value from the sums of one slice."""
