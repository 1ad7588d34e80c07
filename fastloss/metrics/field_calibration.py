"""The error of calibration over the values of a key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.metrics.base import PROBABILITY_SPACES, MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.metrics.calibration_error import magnitudes, sums_of_runs
from fastloss.metrics.quantities import Label, PredictedMean
from fastloss.states.base import StateSpec
from fastloss.states.sums import Sum
from fastloss_kernels.exact_sum import ExactSums


@dataclass(frozen=True)
class FieldCalibrationError(PlainMetric):
    """The distance of predictions and labels, added up over the slices by a key: 0 if each slice is right in the mean.

    It reads the slices by that key alone, which must be asked for; the null key is a slice too. It is a number of the
    total, and slices have none. Of states that are merged without these slices it is null.

    Attributes
    ----------
    by : str
        The key, as `by` of the request names it.

    References
    ----------
    Pan, Ao, Tang, Lu, Liu, Xiao and He, Field-aware calibration: a simple and empirically strong method for reliable
    probabilistic predictions, WWW 2020.
    """

    by: str | None = None

    parameters: ClassVar[tuple[str, ...]] = ("by",)
    family: ClassVar[str] = "field_calibration_error"
    spaces = PROBABILITY_SPACES
    definition = "Σ over the slices by a key of |Σw·(y − p)| / Σw"

    def __post_init__(self) -> None:
        """Refuse what is no name."""
        if self.by is not None and not isinstance(self.by, str):
            raise ValueError(f"by is {self.by!r}; allowed: the name of a key.")

    @property
    def name(self) -> str:
        """The name with the key."""
        return self.family if self.by is None else f"{self.family}(by={self.by!r})"

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the sums of predictions and labels, and the weight."""
        rows = model.rows()
        return (*model.weight(rows), Sum(rows, PredictedMean()), Sum(rows, Label()))

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Add up the slices by the key, exactly, and round once."""
        rows = states.model.rows()
        by_key = (states.groupings or {}).get((str(self.by),))
        if by_key is None:
            # Saved states may be merged without the slices by the key.
            reason = "of_the_total_alone" if states.groupings is None else "no_slices_by_key"
            values = MetricValues(np.full(states.n_slices, np.nan), rows)
            values.explain(np.ones(states.n_slices, dtype=np.bool_), reason, undefined=True)
            return values
        value = np.full(1, np.nan)
        if by_key.n_slices:
            predicted: ExactSums = by_key[Sum(rows, PredictedMean())]
            distances = magnitudes(predicted - by_key[Sum(rows, Label())])
            value = sums_of_runs(distances, by_key.n_slices) / states.weight(rows)
        values = MetricValues(value, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        return values
