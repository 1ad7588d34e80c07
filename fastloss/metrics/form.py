"""The form of a metric over a log: the terms it sums over the rows, and the number it reads from those sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from fastloss_kernels.domain import FINITE, Interval
from fastloss_kernels.exact_sum import ExactSum
from fastloss_kernels.losses import Loss


@dataclass(frozen=True)
class Term:
    """A quantity that is summed over the rows of one model: w, w·label, w·predicted mean, w·loss; or rows counted.

    `candidates` is w times the unmasked candidates of a row's list, `used_candidates` counts them. Rows of weight 0
    are not used; `zero_weight_rows` and `zero_weight_candidates` count them.

    The saturated quantities are of rows whose loss was clipped or is infinite, `infinite_rows` of those whose loss
    would be infinite if nothing were clipped.
    """

    quantity: Literal[
        "rows",
        "weight",
        "label",
        "prediction",
        "loss",
        "candidates",
        "saturated_rows",
        "saturated_weight",
        "infinite_rows",
        "zero_weight_rows",
        "used_candidates",
        "zero_weight_candidates",
    ]
    loss: Loss | None = None

    @property
    def is_count(self) -> bool:
        """Whether rows or candidates are counted, and nothing is summed."""
        return self.quantity.endswith("rows") or self in (USED_CANDIDATES, ZERO_WEIGHT_CANDIDATES)


ROWS = Term("rows")
WEIGHT = Term("weight")
LABEL = Term("label")
PREDICTION = Term("prediction")
CANDIDATES = Term("candidates")
USED_CANDIDATES = Term("used_candidates")
ZERO_WEIGHT_ROWS = Term("zero_weight_rows")
ZERO_WEIGHT_CANDIDATES = Term("zero_weight_candidates")


class Sums(Protocol):
    """The sums and counts of one model over one slice."""

    @property
    def n(self) -> int:
        """How many rows were used."""

    @property
    def space(self) -> str:
        """The space of the model's prediction."""

    def __getitem__(self, term: Term) -> ExactSum:
        """Return the exact sum of a term."""

    def count(self, term: Term) -> int:
        """Return how many rows a term counts."""


@dataclass(frozen=True)
class Reading:
    """A metric's value over one slice; where it is not a finite number, `reason` says why.

    `value` is None where it is not defined.
    """

    value: float | None
    reason: str | None = None
    evidence: Mapping[str, float | int | str] = field(default_factory=dict)


ANY_LABEL = FINITE
BINARY_LABEL = Interval(0.0, 1.0)


class Metric(Protocol):
    """What the plan, the engine and the report ask of a metric."""

    @property
    def label(self) -> str:
        """The name that results carry."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """The prediction spaces that it accepts."""

    def label_range(self, space: str) -> Interval:
        """Return which labels it accepts beside predictions of a space."""

    @property
    def description(self) -> str:
        """Its formula, in one line."""

    def prediction_range(self, space: str) -> Interval:
        """Return which predictions of a space it accepts."""

    def terms(self, space: str) -> tuple[Term, ...]:
        """Return the terms that it needs for a model of this space."""

    def read(self, sums: Sums) -> Reading:
        """Read the value from the sums of one slice."""
