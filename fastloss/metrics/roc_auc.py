"""The area under the ROC curve, from histograms of scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastloss.errors import UsageError
from fastloss.metrics.base import BINARY_LABEL, MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.states.base import StateSpec
from fastloss.states.histogram import PairCounts, ScoreHistogram, ScoreHistograms
from fastloss_kernels.domain import SPACES, Interval

# Bounds further apart than this leave no value.
WIDEST = 0.01


@dataclass(frozen=True)
class RocAuc(PlainMetric):
    """The probability that a positive is ranked above a negative, ties counting ½.

    Scores are ranked as they stand in the column. A label y between 0 and 1 makes a row of weight w a positive of
    weight w·y and a negative of weight w·(1 − y).

    All that a histogram leaves open is the order of a positive and a negative in one bucket, so `low` and `high` are
    certain: the exact value lies between them. The value is their midpoint, as if pairs in one bucket were tied. Where
    they are more than 0.01 apart there is no value, but for an exact one: the scores are too close to each other for
    their size, as 1e9 + x is.
    While the different scores are few enough to be buckets of their own, all three are the exact value, rounded once.

    Attributes
    ----------
    exact : bool
        Read the log a second time where the histogram leaves something open, and keep every different score of the
        buckets that hold both classes.
    most_scores : int
        How many of them may be kept, in all slices of a grouping together; each takes about 50 bytes.

    References
    ----------
    Hanley and McNeil, The meaning and use of the area under a receiver operating characteristic (ROC) curve,
    Radiology 143, 1982.
    """

    exact: bool = False
    most_scores: int = 8_000_000

    parameters: ClassVar[tuple[str, ...]] = ("exact", "most_scores")
    spaces = tuple(SPACES)
    definition = "Σ w⁺·w⁻ of pairs with the positive above the negative, ½ in a tie, / W⁺·W⁻"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        if not isinstance(self.exact, bool):
            raise ValueError(f"exact is {self.exact!r}; allowed: true or false.")
        if isinstance(self.most_scores, bool) or not isinstance(self.most_scores, int) or self.most_scores < 1:
            raise ValueError(f"most_scores is {self.most_scores!r}; allowed: a whole number from 1.")

    @property
    def name(self) -> str:
        """The name, and whether it is exact."""
        return "roc_auc(exact=True)" if self.exact else "roc_auc"

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 in every space."""
        return BINARY_LABEL

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the histogram, and the weight that goes with the value."""
        rows = model.rows()
        return (ScoreHistogram(rows), *model.weight(rows))

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the scores of the buckets that leave something open, if an exact value is asked for."""
        first = self._first(states)
        if not self.exact or not first.dropped_bits:
            return ()
        mixed = first.mixed_buckets()
        if not any(mixed.words):
            return ()
        rows = states.model.rows()
        # Weights have two digits as a rule.
        return (
            ScoreHistogram(rows, score_bytes=self.most_scores * (48 if states.model.weighted else 32), only=mixed),
        )

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Count the pairs of every slice, in integers, and divide and round once."""
        rows = states.model.rows()
        first = self._first(states)
        refined = self._refined(states)
        found = first.count_pairs()
        if refined is not None:
            inside = refined.count_pairs(within=first.dropped_bits)
            areas = [_round(2 * (a.apart + b.apart) + b.together, 0, a) for a, b in zip(found, inside, strict=True)]
        elif first.dropped_bits:
            areas = [_round(2 * pairs.apart, pairs.together, pairs) for pairs in found]
        else:
            areas = [_round(2 * pairs.apart + pairs.together, 0, pairs) for pairs in found]
        value, low, high = np.array(areas, dtype=np.float64).reshape(-1, 3).T
        values = MetricValues(value, rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        values.explain(np.isnan(value), "one_class", undefined=True)
        if states.n_slices:
            values.evidence |= {"low": low, "high": high}
            values.absent |= {"low": values.undefined.copy(), "high": values.undefined.copy()}
            # Scores that share their leading bits leave nearly every pair open: no number is better than half of them.
            values.explain(high - low > WIDEST, "scores_too_close", undefined=True)
        return values

    def _first(self, states: SliceStates) -> ScoreHistograms:
        found: ScoreHistograms = states[ScoreHistogram(states.model.rows())]
        return found

    def _refined(self, states: SliceStates) -> ScoreHistograms | None:
        """Return the scores of the second pass, if there was one."""
        specs = [spec for spec in self.refine(states) if spec in states]
        if not specs:
            return None
        found: ScoreHistograms = states[specs[0]]
        if found.dropped_bits:
            raise UsageError(
                f"roc_auc(exact=true) would keep more than {self.most_scores:,} different scores of column "
                f"{states.model.column!r}. Raise most_scores (each takes about 50 bytes), or leave out exact: "
                "low and high then bound the value."
            )
        return found


def _round(won: int, open_: int, found: PairCounts) -> tuple[float, float, float]:
    """Return value, low and high, of twice the pairs won for certain and the pairs whose order is open.

    The value is rounded to nearest; the bounds are the same number if nothing is open, and else rounded outward.
    """
    pairs = 2 * found.positive * found.negative
    if pairs == 0:
        return math.nan, math.nan, math.nan
    value = (won + open_) / pairs
    if open_ == 0:
        return value, value, value
    return value, _bound(won, pairs, -math.inf), _bound(won + 2 * open_, pairs, math.inf)


def _bound(numerator: int, denominator: int, toward: float) -> float:
    """Return a quotient rounded down or up."""
    nearest = numerator / denominator
    n, d = nearest.as_integer_ratio()
    error = n * denominator - numerator * d
    beyond = error > 0 if toward < 0 else error < 0
    return math.nextafter(nearest, toward) if beyond else nearest
