"""The quantities that metrics sum or count over rows, each declared once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from fastloss.metrics.conventions import LossEvaluation


@dataclass(frozen=True)
class _OfLoss:
    """A quantity of one loss, called by `kind` and the loss's name with its parameters."""

    evaluation: LossEvaluation

    kind: ClassVar[str]

    @property
    def name(self) -> str:
        """The kind of quantity and the loss."""
        return f"{self.kind} {self.evaluation.loss.full_name}"


@dataclass(frozen=True)
class Weight:
    """The weight of a row."""

    name = "weight"


@dataclass(frozen=True)
class Label:
    """The label, times the weight."""

    name = "label"


@dataclass(frozen=True)
class PredictedMean:
    """The mean of the label that the prediction stands for, times the weight."""

    name = "predicted mean"


@dataclass(frozen=True)
class LossValue(_OfLoss):
    """A loss, times the weight."""

    kind = "loss"


@dataclass(frozen=True)
class Candidates:
    """The unmasked candidates of a list: counted, or summed times the weight."""

    name = "candidates"


@dataclass(frozen=True)
class SaturatedWeight(_OfLoss):
    """The weight of the rows whose loss is clipped or infinite."""

    kind = "saturated weight"


@dataclass(frozen=True)
class Rows:
    """The rows themselves."""

    name = "rows"


@dataclass(frozen=True)
class Positives:
    """The rows whose label is above 0."""

    name = "positives"


@dataclass(frozen=True)
class SaturatedRows(_OfLoss):
    """The rows whose loss is clipped or infinite."""

    kind = "saturated rows"


@dataclass(frozen=True)
class InfiniteRows(_OfLoss):
    """The rows whose loss would be infinite if nothing were clipped."""

    kind = "infinite rows"
