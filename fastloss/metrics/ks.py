"""The Kolmogorov–Smirnov statistic of a ranking, from histograms of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastloss.metrics.base import Floats, Mask
from fastloss.metrics.ranked import Reading
from fastloss.metrics.thresholds import ThresholdGivingMetric
from fastloss.states.cumulated import Cumulated

# Two quotients of rounded integers, and their difference.
_ERROR = 2.0**-50


@dataclass(frozen=True)
class KolmogorovSmirnov(ThresholdGivingMetric):
    """The largest distance between the score distributions of positives and negatives: of the ROC curve, its diagonal.

    It is the largest |true positive rate − false positive rate| of all thresholds; `threshold` gives it. The value is
    that of the best threshold between two buckets, and `high` says how much better one inside a bucket might be.

    References
    ----------
    Smirnov, Table for estimating the goodness of fit of empirical distributions, Annals of Mathematical Statistics 19,
    1948.
    """

    family = "ks"
    definition = "max |recall − false_positive_rate| over all thresholds"

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Take the largest distance over the points, and inside of buckets with both classes."""
        distance = _distances(points)
        value = points.largest(distance, np.nan)
        at = points.highest(distance == value[points.slices])
        threshold = points.thresholds_at(at)
        reasons = [((points.whole.positive == 0.0) | (points.whole.negative == 0.0), "one_class")]
        if exact:
            return Reading(value, value, value, reasons, threshold)
        inside = points.largest(np.where(points.mixed, _farthest(points), 0.0), 0.0)
        is_open = inside > value
        high = np.where(is_open, np.minimum(inside + _ERROR, 1.0), value)
        low = np.where(is_open, np.maximum(value - _ERROR, 0.0), value)
        return Reading(value, low, high, reasons, threshold)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets inside of which the distance may be larger than at their ends."""
        value = points.largest(_distances(points), 0.0)
        return points.mixed & (_farthest(points) + _ERROR > value[points.slices])


def _rates(points: Cumulated) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the rates of true and false positives above each bucket, and at it."""
    positives, negatives = points.whole.positive[points.slices], points.whole.negative[points.slices]
    return (
        points.above.positive / positives,
        points.above.negative / negatives,
        points.reached.positive / positives,
        points.reached.negative / negatives,
    )


def _distances(points: Cumulated) -> Floats:
    _, _, true, false = _rates(points)
    return np.abs(true - false)


def _farthest(points: Cumulated) -> Floats:
    """Return how far the curve may get from the diagonal inside each bucket."""
    true_above, false_above, true, false = _rates(points)
    return np.maximum(true - false_above, false - true_above)
