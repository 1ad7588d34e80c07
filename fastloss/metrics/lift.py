"""Lift: how many more positives than average are at the top of a ranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.metrics.base import Mask
from fastloss.metrics.ranked import Reading
from fastloss.metrics.thresholds import ThresholdGivingMetric
from fastloss.states.base import Integers
from fastloss.states.cumulated import Cumulated

# Of the mass that is taken of the last bucket, and of the quotients.
_ERROR = 2.0**-49


@dataclass(frozen=True)
class Lift(ThresholdGivingMetric):
    """The rate of positives among the rows with the highest scores, over the rate of positives among all.

    The top is a share of the weight. Of rows that are tied where it ends, it has each class in proportion, and of the
    bucket where it ends; `high` takes the positives of that bucket first, and `low` its negatives. `threshold` is the
    lowest score of that bucket.

    Attributes
    ----------
    top : float
        The share of the weight, above 0 and at most 1; ``lift@0.1`` is ``lift(top=0.1)``.
    """

    top: float = 0.1

    family = "lift"
    main = "top"
    parameters: ClassVar[tuple[str, ...]] = ("top", "exact", "most_scores")
    definition = "(Σw·y / Σw among the rows with the highest scores, a share `top` of Σw) / (Σw·y / Σw)"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        super().__post_init__()
        self.check_share("top")

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Count the positives above the bucket where the top ends, and those of its part of that bucket."""
        whole = points.whole
        reasons = [(whole.positive == 0.0, "no_positive")]
        last = self._last(points)
        if not len(points.slices):
            nothing = np.full(points.n_slices, np.nan)
            return Reading(nothing, nothing, nothing, reasons, nothing)
        positive, negative, weight = (
            masses[last] for masses in (points.inside.positive, points.inside.negative, points.inside.weight)
        )
        wanted, positives = self.top * whole.weight, whole.positive
        taken = np.clip(wanted - points.above.weight[last], 0.0, weight)
        mixed = (positive > 0.0) & (negative > 0.0)
        share = np.where(mixed, positive * (taken / weight), np.minimum(taken, positive))
        above = points.above.positive[last]
        # The share of the positives that is at the top, over the share of the weight.
        value = (above + share) / positives / self.top
        threshold = points.thresholds_at(last)
        open_ = mixed & (taken < weight) & ~points.are_scores[last]
        if exact or not open_.any():
            return Reading(value, value, value, reasons, threshold)
        # What is taken of the bucket has an error in units of all that is taken.
        error = _ERROR * whole.weight / positives
        fewest = (above + np.maximum(taken - negative, 0.0)) / positives / self.top
        most = (above + np.minimum(taken, positive)) / positives / self.top
        low = np.where(open_, np.maximum(np.minimum(fewest * (1.0 - _ERROR) - error, value), 0.0), value)
        high = np.where(open_, np.maximum(most * (1.0 + _ERROR) + error, value), value)
        return Reading(value, low, high, reasons, threshold, (high - low) / high)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the bucket of each slice where the top ends, if it holds both classes."""
        ends = np.zeros(len(points.slices), dtype=np.bool_)
        last = self._last(points)
        ends[last[last >= 0]] = True
        return ends & points.mixed

    def _last(self, points: Cumulated) -> Integers:
        """Return the bucket of each slice where the top ends, −1 where there is none."""
        wanted = self.top * points.whole.weight
        return points.highest(points.reached.weight >= wanted[points.slices])
