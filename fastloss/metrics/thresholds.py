"""Thresholds that metrics give, in the unit in which they take them."""

from __future__ import annotations

import numpy as np

from fastloss.metrics.base import Floats, MetricValues, SliceStates
from fastloss.metrics.binning import predicted_means
from fastloss.metrics.ranked import CurveMetric
from fastloss_kernels.elementwise import map_formula
from fastloss_kernels.inverse_links import LINKS


class ThresholdGivingMetric(CurveMetric):
    """A metric of a curve whose values come with a threshold.

    Beside logit= and logprob= a threshold is a probability, given as well as taken. The map between them is monotone,
    so the order of thresholds is that of scores.
    """

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Read the curve of every slice."""
        values = super().evaluate(states)
        scores = values.evidence.get("threshold")
        if isinstance(scores, np.ndarray) and states.model.space in LINKS:
            values.evidence["threshold"] = probabilities_below(scores, states.model.space)
        return values


def probabilities_below(scores: Floats, space: str) -> Floats:
    """Return thresholds for scores of a space: probabilities that are taken back to these scores, or right below.

    Rows whose score is at least the threshold are then the same, unless there are scores between two of which the
    probabilities are neighbours, as from a logit of 37 on.
    """
    given, places = np.unique(scores, return_inverse=True)
    found = np.clip(predicted_means(given, space), 0.0, 1.0)
    link = LINKS[space]
    back = map_formula(link, found, found)
    # The inverse link is right to two units in the last place, so few steps are left.
    while (above := back > given).any():
        found[above] = np.nextafter(found[above], 0.0)
        back = map_formula(link, found, found)
    while (below := back < given).any():
        higher = np.where(below, np.nextafter(found, 1.0), found)
        taken = map_formula(link, higher, higher)
        better = (higher > found) & (taken <= given)
        if not better.any():
            break
        found[better], back[better] = higher[better], taken[better]
    thresholds: Floats = found[places]
    return thresholds
