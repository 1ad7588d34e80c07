"""The area under the first part of the ROC curve, from histograms of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.metrics.base import Floats, Mask
from fastloss.metrics.ranked import CurveMetric, Reading
from fastloss.states.cumulated import Cumulated

# The sum of terms of six operations, rounded once, and the five operations that standardise it.
_ERROR = 2.0**-48


@dataclass(frozen=True)
class PartialRocAuc(CurveMetric):
    """The area under the ROC curve up to a false positive rate, standardised.

    The curve is a straight line where scores are tied. The area A up to the rate f is standardised as
    (1 + (A − f²/2) / (f − f²/2)) / 2, as in scikit-learn: ½ for a random order, 1 for a perfect one. The value takes
    each bucket as one score; `high` puts the positives of a bucket first, and `low` its negatives.

    Attributes
    ----------
    max_fpr : float
        The false positive rate at which the curve ends, above 0 and at most 1.

    References
    ----------
    McClish, Analyzing a portion of the ROC curve, Medical Decision Making 9, 1989.
    """

    max_fpr: float = 0.1

    family = "partial_roc_auc"
    parameters: ClassVar[tuple[str, ...]] = ("max_fpr", "exact", "most_scores")
    definition = "(1 + (A − f²/2) / (f − f²/2)) / 2, A the area under the ROC curve up to the rate f = max_fpr"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        super().__post_init__()
        self.check_share("max_fpr")

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Sum the areas below the curve's lines, up to the rate."""
        negatives = points.whole.negative
        reasons = [((points.whole.positive == 0.0) | (negatives == 0.0), "one_class")]
        positives = points.whole.positive[points.slices]
        begin, end = points.above.positive / positives, points.reached.positive / positives
        width = points.inside.negative / negatives[points.slices]
        false_above = points.above.negative / negatives[points.slices]
        beyond = points.reached.negative / negatives[points.slices] > self.max_fpr
        share = np.where(beyond, np.clip((self.max_fpr - false_above) / width, 0.0, 1.0), 1.0)
        counted = np.where(width > 0.0, width * share, 0.0)
        line = begin + 0.5 * share * (end - begin)
        area = points.total(counted * line)
        value = np.clip(self._standardised(area), 0.0, 1.0)
        if exact:
            return Reading(value, value, value, reasons)
        # Those of one score stay on the curve's line.
        ends = ((np.where(points.are_scores, counted * line, counted * side)) for side in (begin, end))
        low, high = (points.total(terms) for terms in ends)
        certain = ~(points.total(np.where(points.mixed, counted, 0.0)) > 0.0)
        low = np.where(certain, value, np.clip(self._standardised(low) - _ERROR, 0.0, value))
        high = np.where(certain, value, np.clip(self._standardised(high) + _ERROR, value, 1.0))
        return Reading(value, low, high, reasons)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets with both classes in which the curve has not ended."""
        return points.mixed & (points.above.negative / points.whole.negative[points.slices] < self.max_fpr)

    def _standardised(self, area: Floats) -> Floats:
        least = 0.5 * self.max_fpr * self.max_fpr
        found: Floats = 0.5 * (1.0 + (area - least) / (self.max_fpr - least))
        return found
