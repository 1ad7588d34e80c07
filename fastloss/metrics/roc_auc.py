"""The area under the ROC curve, from histograms of scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.metrics.base import MetricValues, ModelFacts, SliceStates
from fastloss.metrics.ranked import WIDEST, RankedMetric, add_bounds, bounded_quotient
from fastloss.states.base import StateSpec
from fastloss.states.histogram import PairCounts
from fastloss.states.sorted_scores import SortedScores

# A row takes 8 bytes at most, and a score of a second pass about 50.
_ROWS_A_SCORE = 6
# Rows are counted in 32 bits.
_MOST_ROWS = (1 << 32) - 1


@dataclass(frozen=True)
class RocAuc(RankedMetric):
    """The probability that a positive is ranked above a negative, ties counting ½.

    The value is the midpoint of `low` and `high`, as if pairs in one bucket were tied. Where they are more than 0.01
    apart there is no value, but for an exact one: the scores are too close to each other for their size, as 1e9 + x
    is. An exact value is rounded once.

    References
    ----------
    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    Radiology 143, 1982.
    """

    family = "roc_auc"
    widest: ClassVar[float] = WIDEST
    definition = "Σ w⁺·w⁻ of pairs with the positive above the negative, ½ in a tie, / W⁺·W⁻"

    def in_one_pass(self, model: ModelFacts, threads: int) -> tuple[StateSpec, ...]:
        """Return all scores, which take less memory than those of a second pass unless most of them repeat."""
        if not self.exact or model.weighted:
            return ()
        return (SortedScores(model.rows(), min(_ROWS_A_SCORE * self.most_scores, _MOST_ROWS), threads),)

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing if all scores were kept in one pass."""
        return () if self._all_pairs(states) is not None else super().refine(states)

    def _all_pairs(self, states: SliceStates) -> PairCounts | None:
        for spec in self.in_one_pass(states.model, 1):
            if spec in states:
                found: PairCounts | None = states[spec]
                return found
        return None

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Count the pairs of every slice, in integers, and divide and round once."""
        rows = states.model.rows()
        whole = self._all_pairs(states)
        areas = self._areas(states) if whole is None else [self._area(2 * whole.apart + whole.together, 0, whole)]
        value, low, high = np.array(areas, dtype=np.float64).reshape(-1, 3).T
        values = MetricValues(value, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        values.explain(np.isnan(value), "one_class", undefined=True)
        add_bounds(values, low, high)
        # Scores that share their leading bits leave nearly every pair open: no number is better than half of them.
        values.explain(high - low > self.widest, "scores_too_close", undefined=True)
        return values

    def _areas(self, states: SliceStates) -> list[tuple[float, float, float]]:
        """Return value, low and high of every slice, from histograms."""
        first = self.first(states)
        refined = self.refined(states, self.refine(states))
        found = first.count_pairs()
        if refined is not None:
            inside = refined.count_pairs(within=first.dropped_bits)
            return [self._area(2 * (a.apart + b.apart) + b.together, 0, a) for a, b in zip(found, inside, strict=True)]
        if first.dropped_bits:
            sharper, _ = self.histograms(states)
            if sharper is first:
                return [self._area(2 * pairs.apart, pairs.together, pairs) for pairs in found]
            tied = sharper.only_scores().count_pairs()
            return [
                self._area(2 * a.apart + b.together, a.together - b.together, a)
                for a, b in zip(sharper.count_pairs(), tied, strict=True)
            ]
        return [self._area(2 * pairs.apart + pairs.together, 0, pairs) for pairs in found]

    def _area(self, won: int, open_: int, found: PairCounts) -> tuple[float, float, float]:
        """Return value, low and high, of twice the pairs won for certain and the pairs whose order is open."""
        return bounded_quotient(won, open_, 2 * found.positive * found.negative)


@dataclass(frozen=True)
class Gini(RocAuc):
    """The Gini coefficient of the ranking, 2·AUC − 1: 0 for a random order, 1 for a perfect one.

    It is null and exact where ROC AUC is, and rounded once as well.
    """

    family = "gini"
    definition = "2·roc_auc − 1"
    widest = 2.0 * WIDEST

    def _area(self, won: int, open_: int, found: PairCounts) -> tuple[float, float, float]:
        pairs = 2 * found.positive * found.negative
        return bounded_quotient(2 * won - pairs, 2 * open_, pairs)
