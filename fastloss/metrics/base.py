"""Metrics: which statistics one keeps, and the numbers that it evaluates them to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.conventions import LossEvaluation, RequestConventions
from fastloss.metrics.quantities import Rows, Weight
from fastloss.states.base import LEFT_OUT, ZERO_WEIGHT, RowSet, StateSpec
from fastloss.states.counts import Count
from fastloss.states.histogram import BUCKET_BYTES, SLICED_BUCKET_BYTES, ScoreHistogram
from fastloss.states.sums import Sum
from fastloss_kernels.domain import FINITE, SPACES, Interval
from fastloss_kernels.exact_sum import ExactSums
from fastloss_kernels.losses import Loss

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

ANY_LABEL = FINITE
BINARY_LABEL = Interval(0.0, 1.0)
PROBABILITY_SPACES = ("logit", "prob", "logprob")
MEAN_SPACES = (*PROBABILITY_SPACES, "value")

# Products of weights and fractions are rounded to multiples of 5e-324. Where the mean weight is at least this, no mean
# shows it.
LEAST_WEIGHT = 2.0**-960
WEIGHTS_TOO_SMALL = "weights_too_small"


@dataclass(frozen=True)
class ModelFacts:
    """The facts of a model that a metric may use.

    Attributes
    ----------
    index : int
        Its place among the request's models.
    name, space, column : str
        As in `Model`.
    weighted : bool
        Whether rows have weights.
    lists : bool
        Whether predictions are lists.
    conventions : RequestConventions
        How losses are evaluated.
    sliced : bool
        Whether there are slices.
    """

    index: int
    name: str
    space: str
    column: str
    weighted: bool
    lists: bool
    conventions: RequestConventions
    sliced: bool = False

    @property
    def scores(self) -> ScoreHistogram:
        """The histogram of its predictions."""
        return ScoreHistogram(self.rows(), bucket_bytes=SLICED_BUCKET_BYTES if self.sliced else BUCKET_BYTES)

    def rows(self, needs: tuple[str, ...] = ()) -> RowSet:
        """Return the rows that hold what is needed; without lists there is nothing to need."""
        if not self.lists:
            return RowSet(self.index, ())
        return RowSet(self.index, self.conventions.common_needs or needs or ("candidate",))

    @property
    def zero_weight_rows(self) -> RowSet:
        """The rows that are left out for nothing but a weight of 0."""
        return RowSet(self.index, (ZERO_WEIGHT,))

    def left_out(self, rows: RowSet) -> RowSet:
        """Return the lists with a candidate that lack what `rows` hold."""
        return RowSet(self.index, (LEFT_OUT, *rows.needs))

    def evaluation(self, loss: Loss) -> LossEvaluation:
        """Return how a loss is evaluated for this model."""
        return self.conventions.evaluation(loss, self.space, self.column)

    def weight(self, rows: RowSet) -> tuple[StateSpec, ...]:
        """Return the sum of the weights, or nothing where each row weighs 1."""
        return (Sum(rows, Weight()),) if self.weighted else ()


class SliceStates:
    """The statistics of one model over all slices of a grouping; those of rows without weights are counts."""

    def __init__(
        self,
        model: ModelFacts,
        columns: Mapping[StateSpec, Any],
        n_slices: int,
        groupings: Mapping[tuple[str, ...], SliceStates] | None = None,
    ) -> None:
        self.model = model
        self.n_slices = n_slices
        # Those of the total know the statistics of all other groupings, by their keys; those of slices have None.
        self.groupings = groupings
        self._columns = columns
        self._shared: dict[object, Any] = {}

    def __getitem__(self, spec: StateSpec) -> Any:
        """Return what a column evaluates to, one entry for each slice."""
        return self._columns[spec]

    def __contains__(self, spec: StateSpec) -> bool:
        """Tell whether a statistic was kept; those of a second pass may not be."""
        return spec in self._columns

    def once(self, key: object, make: Callable[[], Any]) -> Any:
        """Return what `make` returns, made once for all metrics until `release`."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def release(self) -> None:
        """Keep nothing any more of what metrics share."""
        self._shared.clear()

    def count(self, rows: RowSet) -> Integers:
        """Return how many rows each slice has."""
        counted: Integers = self[Count(rows, Rows())]
        return counted

    def weight(self, rows: RowSet) -> ExactSums:
        """Return the weight of each slice."""
        if self.model.weighted:
            summed: ExactSums = self[Sum(rows, Weight())]
            return summed
        return ExactSums.from_counts(self.count(rows))

    def weight_floats(self, rows: RowSet) -> Floats:
        """Return the weight of each slice, rounded to float64; one array for all metrics until `release`."""
        if self.model.weighted:
            return np.asarray(self.once(("weight", rows), lambda: self.weight(rows).to_float()))
        # A count is below 2^53.
        return np.asarray(self.once(("weight", rows), lambda: self.count(rows).astype(np.float64)))


@dataclass
class MetricValues:
    """A metric over all slices of a grouping, for one model.

    Attributes
    ----------
    value : numpy.ndarray of float64, shape (n_slices,)
        The numbers. What stands where a value is not defined does not matter.
    rows : RowSet
        The rows that the metric uses, whose number and weight go with each value.
    undefined : numpy.ndarray of bool, shape (n_slices,)
        Where there is no value.
    reason : numpy.ndarray of int16, shape (n_slices,)
        Why a value is undefined or not finite, as a position in `reasons`; 0 where all is well.
    reasons : list of str
        The reasons; the first is empty.
    evidence : mapping of str to array of shape (n_slices,), or to str
        What the metric adds: a number for each slice, or a word for all of them.
    absent : mapping of str to numpy.ndarray of bool
        Where a slice lacks a number of `evidence`.
    n : numpy.ndarray of int64, shape (n_slices,), or None
        How many of these rows the metric uses; None for all of them.
    """

    value: Floats
    rows: RowSet
    undefined: Mask = field(default_factory=lambda: np.zeros(0, dtype=np.bool_))
    reason: NDArray[np.int16] = field(default_factory=lambda: np.zeros(0, dtype=np.int16))
    reasons: list[str] = field(default_factory=lambda: [""])
    evidence: dict[str, NDArray[Any] | str] = field(default_factory=dict)
    absent: dict[str, Mask] = field(default_factory=dict)
    n: Integers | None = None

    def __post_init__(self) -> None:
        """Begin with every value defined."""
        if len(self.undefined) != len(self.value):
            self.undefined = np.zeros(len(self.value), dtype=np.bool_)
        if len(self.reason) != len(self.value):
            self.reason = np.zeros(len(self.value), dtype=np.int16)

    def explain(self, where: Mask, reason: str, *, undefined: bool) -> None:
        """Give a reason where none is given yet."""
        where = where & (self.reason == 0)
        if where.any():
            if reason not in self.reasons:
                self.reasons.append(reason)
            self.reason[where] = self.reasons.index(reason)
            if undefined:
                self.undefined |= where

    def explain_infinite(self) -> None:
        """Say of values that are not finite that some term is infinite; a NaN is no value."""
        self.explain(np.isnan(self.value), "infinite_terms", undefined=True)
        self.explain(np.isinf(self.value), "infinite_terms", undefined=False)


class Metric(Protocol):
    """A metric as a request is resolved to it."""

    @property
    def name(self) -> str:
        """The name that results carry."""

    @property
    def spaces(self) -> tuple[str, ...]:
        """The prediction spaces that it accepts."""

    @property
    def definition(self) -> str:
        """Its formula, in one line."""

    def label_range(self, space: str) -> Interval:
        """Return which labels it accepts beside predictions of a space."""

    def prediction_range(self, space: str) -> Interval:
        """Return which predictions of a space it accepts."""

    def over_lists(self) -> bool:
        """Tell whether it reads list columns."""

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the statistics that it needs of a model."""

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Compute the values from the statistics, for every slice at once. The statistics stay as they are."""

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the statistics of a second pass over the log, or nothing if one was enough."""

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return the statistics of a second pass that is worth its time and may be left out, or nothing."""

    @property
    def rounds_weights(self) -> bool:
        """Whether it reads sums of terms times weights, which tiny weights round."""


class PlainMetric:
    """A metric of one number a row that accepts its prediction's whole space, and the labels that go with it.

    Attributes
    ----------
    parameters : tuple of str
        The fields that a user may set, as in ``name(field=value)``.
    allowed : mapping of str to str
        What some of them may be, as the listing says it.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    allowed: ClassVar[Mapping[str, str]] = {}
    rounds_weights = True

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 where predictions are of a binary label, else any number."""
        return ANY_LABEL if space == "value" else BINARY_LABEL

    def prediction_range(self, space: str) -> Interval:
        """Return the whole space."""
        return Interval(*SPACES[space])

    def over_lists(self) -> bool:
        """Return False: it reads one number a row."""
        return False

    def refine(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing: one pass is enough."""
        return ()

    def sharpen(self, states: SliceStates) -> tuple[StateSpec, ...]:
        """Return nothing: one pass is enough."""
        return ()


def counted(specs: Sequence[StateSpec]) -> tuple[StateSpec, ...]:
    """Return the statistics, each once, and the count of every set of rows that they are of."""
    return tuple(dict.fromkeys([*specs, *(Count(spec.rows, Rows()) for spec in specs)]))
