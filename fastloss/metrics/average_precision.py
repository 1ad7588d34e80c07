"""Average precision, from histograms of scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastloss.metrics.base import Mask
from fastloss.metrics.ranked import WIDEST, CurveMetric, Reading
from fastloss.states.cumulated import Cumulated

# Each term is eight operations at most from exact integers, and their sum is rounded once.
_ERROR = 2.0**-49


@dataclass(frozen=True)
class AveragePrecision(CurveMetric):
    """The mean over the positives of the precision at their scores: the area below the precision–recall steps.

    Nothing is interpolated, and rows of one score are one step, as in scikit-learn. The value takes each bucket as one
    score. `high` puts the positives of a bucket first; `low` puts them last, each at a score of its own. Where `low`
    and `high` are more than 0.01 apart because buckets hold both classes, there is no value, but for an exact one.

    References
    ----------
    Buckley and Voorhees, Evaluating evaluation measure stability, SIGIR 2000.
    """

    family = "average_precision"
    definition = "Σ w⁺·precision at the score of each positive / W⁺"

    def read(self, points: Cumulated, *, exact: bool) -> Reading:
        """Sum precision times the positive mass of each bucket."""
        positives = points.whole.positive
        reasons = [(positives == 0.0, "no_positive")]
        mass = points.inside.positive
        at_end = points.reached.positive / points.reached.weight
        value = np.minimum(points.total(_weighted(mass, at_end)) / positives, 1.0)
        if exact:
            return Reading(value, value, value, reasons)
        # Precision grows with each positive, and ever more slowly: between two points it lies above their chord. Where
        # positives are whole, the first of them has its own precision.
        begin = points.above.positive + np.minimum(points.unit, mass)
        at_begin = begin / (begin + points.reached.negative)
        at_begin[points.reached.negative == 0.0] = 1.0
        low_terms = _weighted(mass, np.where(points.are_scores, at_end, 0.5 * (at_begin + at_end)))
        best = points.reached.positive / (points.reached.positive + points.above.negative)
        best = np.where(points.are_scores, at_end, best)
        high_terms = _weighted(mass, best)
        low, high = points.total(low_terms), points.total(high_terms)
        left_open = (high - low) / positives
        if (left_open > WIDEST).any():
            left_open = points.total(np.where(points.mixed, high_terms - low_terms, 0.0)) / positives
        certain = low == high
        low = np.where(certain, value, low / positives * (1.0 - _ERROR))
        high = np.where(certain, value, np.minimum(high / positives * (1.0 + _ERROR), 1.0))
        return Reading(value, np.minimum(low, value), np.maximum(high, value), reasons, left_open=left_open)

    def open_at(self, points: Cumulated) -> Mask:
        """Return the buckets with positives and negatives, and those with positives below some negative."""
        several = points.inside.weight > points.unit
        return (points.inside.positive > 0.0) & (points.reached.negative > 0.0) & several


def _weighted(mass: np.ndarray, precision: np.ndarray) -> np.ndarray:
    return np.where(mass > 0.0, mass * precision, 0.0)
