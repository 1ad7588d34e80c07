"""What all metrics share that are read from a histogram of scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from fastloss.errors import UsageError
from fastloss.metrics.base import BINARY_LABEL, Floats, MetricValues, ModelFacts, PlainMetric, SliceStates
from fastloss.states.base import StateSpec
from fastloss.states.histogram import Buckets, ScoreHistogram, ScoreHistograms
from fastloss_kernels.domain import SPACES, Interval


@dataclass(frozen=True)
class RankedMetric(PlainMetric):
    """A metric of the order of scores, with certain bounds.

    Scores are ranked as they stand in the column. A label y between 0 and 1 makes a row of weight w a positive of
    weight w·y and a negative of weight w·(1 − y).

    The histogram leaves open how the rows of one bucket are ordered, and nothing else, so `low` and `high` are
    certain: the exact value lies between them. While the different scores are few enough to be buckets of their own,
    all three are the exact value.

    Attributes
    ----------
    exact : bool
        Read the log a second time where the histogram leaves something open, and keep every different score of the
        buckets that matter.
    most_scores : int
        How many of them may be kept, in all slices of a grouping together; each takes about 50 bytes.
    """

    exact: bool = False
    most_scores: int = 8_000_000

    parameters: ClassVar[tuple[str, ...]] = ("exact", "most_scores")
    # The name without parameters.
    family: ClassVar[str]
    spaces = tuple(SPACES)

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        if not isinstance(self.exact, bool):
            raise ValueError(f"exact is {self.exact!r}; allowed: true or false.")
        if isinstance(self.most_scores, bool) or not isinstance(self.most_scores, int) or self.most_scores < 1:
            raise ValueError(f"most_scores is {self.most_scores!r}; allowed: a whole number from 1.")

    @property
    def name(self) -> str:
        """The name with those parameters that are not the default and can change the value."""
        return f"{self.family}(exact=True)" if self.exact else self.family

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 in every space."""
        return BINARY_LABEL

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the histogram, and the weight that goes with the value."""
        rows = model.rows()
        return (ScoreHistogram(rows), *model.weight(rows))

    def open_buckets(self, first: ScoreHistograms) -> Buckets:
        """Return the buckets whose scores an exact value needs: here those that hold both classes."""
        return first.mixed_buckets()

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the scores of the buckets that leave something open, if an exact value is asked for."""
        if not self.exact:
            return ()
        first = self.first(states)
        if not first.dropped_bits:
            return ()
        wanted = self.open_buckets(first)
        if not any(wanted.words):
            return ()
        rows = states.model.rows()
        # Weights have two digits as a rule.
        return (
            ScoreHistogram(rows, score_bytes=self.most_scores * (48 if states.model.weighted else 32), only=wanted),
        )

    def first(self, states: SliceStates) -> ScoreHistograms:
        """Return the histograms of the first pass."""
        found: ScoreHistograms = states[ScoreHistogram(states.model.rows())]
        return found

    def refined(self, states: SliceStates) -> ScoreHistograms | None:
        """Return the scores of the second pass, if there was one.

        Raises
        ------
        UsageError
            If they are more than `most_scores`.
        """
        specs = [spec for spec in self.refine(states) if spec in states]
        if not specs:
            return None
        found: ScoreHistograms = states[specs[0]]
        if found.dropped_bits:
            raise UsageError(
                f"{self.family}(exact=true) would keep more than {self.most_scores:,} different scores of column "
                f"{states.model.column!r}. Raise most_scores (each takes about 50 bytes), or leave out exact: "
                "low and high then bound the value."
            )
        return found


def add_bounds(values: MetricValues, low: Floats, high: Floats) -> None:
    """Add `low` and `high` as evidence, absent where the value is undefined by now."""
    if len(values.value):
        values.evidence |= {"low": low, "high": high}
        values.absent |= {"low": values.undefined.copy(), "high": values.undefined.copy()}


def bounded_quotient(certain: int, open_: int, whole: int) -> tuple[float, float, float]:
    """Return value, low and high of a numerator of at least `certain` and at most ``certain + 2 * open_``.

    The value is that of the midpoint, rounded to nearest; the bounds are the same number if nothing is open, and else
    rounded outward. All are NaN if `whole` is 0.
    """
    if whole == 0:
        return math.nan, math.nan, math.nan
    value = (certain + open_) / whole
    if open_ == 0:
        return value, value, value
    return value, _rounded(certain, whole, -math.inf), _rounded(certain + 2 * open_, whole, math.inf)


def _rounded(numerator: int, denominator: int, toward: float) -> float:
    """Return a quotient rounded down or up."""
    nearest = numerator / denominator
    n, d = nearest.as_integer_ratio()
    error = n * denominator - numerator * d
    beyond = error > 0 if toward < 0 else error < 0
    return math.nextafter(nearest, toward) if beyond else nearest
