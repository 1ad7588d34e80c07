"""The parts of a mean loss: miscalibration, discrimination and uncertainty, by isotonic regression."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.base import (
    PROBABILITY_SPACES,
    Floats,
    Integers,
    MetricValues,
    ModelFacts,
    PlainMetric,
    SliceStates,
)
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.quantities import Label, LabelVariance
from fastloss.metrics.ranked import RankedMetric, add_bounds
from fastloss.states.base import StateSpec
from fastloss.states.sums import Sum
from fastloss_kernels.cpu.isotonic import pool_adjacent
from fastloss_kernels.elementwise import map_formula
from fastloss_kernels.exact_sum import ExactSums
from fastloss_kernels.information import binary_entropy
from fastloss_kernels.losses import BinaryCrossentropy, BrierScore

LossName = Literal["log_loss", "brier_score"]

_LOSSES = {"log_loss": BinaryCrossentropy(), "brier_score": BrierScore()}
# Bounds further apart than this share of the uncertainty leave no value.
_WIDEST = 0.01
# Far beyond what rounding takes of a mean loss, as a share of it.
_ROUNDING = 2.0**-46


@dataclass(frozen=True)
class _RankedPart(RankedMetric):
    """A part that isotonic regression tells."""

    loss: LossName = "log_loss"

    rounds_weights = True
    parameters: ClassVar[tuple[str, ...]] = ("loss", "exact", "most_scores")
    spaces = PROBABILITY_SPACES

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        super().__post_init__()
        _check_loss(self.loss)

    def _distances(self, states: SliceStates, whole: Floats) -> MetricValues:
        """Return how far a mean loss is from that after recalibration, with bounds.

        Rows count as split by their labels. An isotonic map that is constant on each bucket of scores is one of those
        that the best may be, so its loss is an upper bound; that of the negatives of each bucket before its positives
        is a lower one, since no order of the rows in a bucket has less.
        """
        rows = states.model.rows()
        reference, bucketed, split = self._least_losses(states)
        with np.errstate(all="ignore"):
            value = np.maximum(whole - bucketed, 0.0)
            low = high = value
            if split is not None:
                rounding = np.where(np.isfinite(whole), _ROUNDING * (whole + reference), 0.0)
                low = np.maximum(whole - bucketed - rounding, 0.0)
                high = whole - split + rounding
            values = MetricValues(value, rows)
            values.explain(states.count(rows) == 0, "no_rows", undefined=True)
            values.explain_infinite()
            add_bounds(values, low, high)
            # Of an infinite loss the distance of both is NaN.
            values.explain(high - low > _WIDEST * reference, "scores_too_close", undefined=True)
        return values

    def _least_losses(self, states: SliceStates) -> tuple[Floats, Floats, Floats | None]:
        """Return the mean loss of the base rate, that of an isotonic map of buckets, and its lower bound if open."""

        def make() -> tuple[Floats, Floats, Floats | None]:
            cells, is_open = self._cells(states)
            reference, bucketed = (_mean_of_blocks(self.loss, of) for of in (cells.as_one(), cells.recalibrated()))
            split = _mean_of_blocks(self.loss, cells.split().recalibrated()) if is_open else None
            return reference, bucketed, split

        found: tuple[Floats, Floats, Floats | None] = states.once(
            ("isotonic losses", self.loss, self.exact, self.most_scores), make
        )
        return found

    def _cells(self, states: SliceStates) -> tuple[_Cells, bool]:
        """Return the buckets, or the scores of a second pass in place of theirs; and whether anything is open."""
        found, is_exact = self.histograms(states)
        positive, positive_lo, weight, weight_lo = found.masses_in_parts()
        cells = _Cells(found.starts, _Parts(positive, positive_lo), _Parts(weight, weight_lo), found.are_scores)
        return cells, not is_exact


@dataclass(frozen=True)
class Miscalibration(_RankedPart):
    """How much of a mean loss goes away if predictions are recalibrated by the best isotonic map, on the same rows.

    It is the mean loss less that after isotonic regression of the labels on the predictions, so it is 0 for a model
    whose predictions are the mean labels of their rows, and never below.

    Log loss is in nats, whatever the unit of a preset. The value takes the scores of one bucket of the histogram as
    equal, and `low` and `high` are certain bounds; where they are further apart than 1 % of the uncertainty, there is
    no value. A label y between 0 and 1 makes a row of weight w a positive of weight w·y and a negative of weight
    w·(1 − y) for the map; the mean Brier score of such labels is Σw·y·(1 − y)/Σw less than that of the split rows,
    before and after, so the difference is the same.

    Attributes
    ----------
    loss : {"log_loss", "brier_score"}
        The loss that is taken apart.
    exact : bool
        Read the log a second time where the histogram leaves something open.
    most_scores : int
        How many scores the second pass may keep.

    References
    ----------
    Dimitriadis, Gneiting and Jordan, Stable reliability diagrams for probabilistic classifiers, Proceedings of the
    National Academy of Sciences 118, 2021.
    """

    family = "miscalibration"
    definition = "S − S_iso: mean loss, less that after isotonic recalibration"

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the loss, the histogram, and what labels between 0 and 1 add."""
        return (
            *MeanLoss(_LOSSES[self.loss]).states(model),
            *super().states(model),
            *_label_variance_states(self.loss, model),
        )

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Compare the mean loss with that of the isotonic map."""
        whole = MeanLoss(_LOSSES[self.loss]).evaluate(states).value
        return self._distances(states, whole + _label_variance(self.loss, states))


@dataclass(frozen=True)
class Discrimination(_RankedPart):
    """How much lower the mean loss of isotonic predictions is than that of the base rate for every row.

    It tells what the order of the predictions is worth, whatever their values. The mean loss is miscalibration −
    discrimination + uncertainty. The value takes the scores of one bucket of the histogram as equal, and `low` and
    `high` are certain bounds.

    References
    ----------
    Dimitriadis, Gneiting and Jordan, Stable reliability diagrams for probabilistic classifiers, Proceedings of the
    National Academy of Sciences 118, 2021.
    """

    family = "discrimination"
    definition = "S_ref − S_iso: mean loss of the base rate, less that after isotonic recalibration"

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Compare the mean loss of the base rate with that of the isotonic map."""
        return self._distances(states, self._least_losses(states)[0])


@dataclass(frozen=True)
class Uncertainty(PlainMetric):
    """The mean loss if every row is predicted the base rate: what no model has any part in.

    Of the log loss it is the entropy of the base rate, of the Brier score the variance of the label.

    References
    ----------
    Dimitriadis, Gneiting and Jordan, Stable reliability diagrams for probabilistic classifiers, Proceedings of the
    National Academy of Sciences 118, 2021.
    """

    loss: LossName = "log_loss"

    parameters: ClassVar[tuple[str, ...]] = ("loss",)
    spaces = PROBABILITY_SPACES
    definition = "S_ref: mean loss of the base rate Σw·y / Σw"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        _check_loss(self.loss)

    @property
    def name(self) -> str:
        """The name, and the loss if it is another."""
        return "uncertainty" if self.loss == "log_loss" else f"uncertainty(loss={self.loss!r})"

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return the labels and their weight."""
        rows = model.rows()
        return (*model.weight(rows), Sum(rows, Label()), *_label_variance_states(self.loss, model))

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Compute the mean loss from the base rate."""
        rows = states.model.rows()
        label: ExactSums = states[Sum(rows, Label())]
        weight = states.weight(rows)
        value = _least_loss(self.loss, label / weight, (weight - label) / weight)
        values = MetricValues(np.maximum(value - _label_variance(self.loss, states), 0.0), rows)
        values.explain(states.count(rows) == 0, "no_rows", undefined=True)
        return values


# ---------------------------------------------------------------------------------------------------------------
# Losses of rows that get their mean label


def _check_loss(loss: object) -> None:
    if loss not in _LOSSES:
        raise ValueError(f"loss is {loss!r}; allowed: {' or '.join(map(repr, _LOSSES))}.")


def _label_variance_states(loss: str, model: ModelFacts) -> tuple[StateSpec, ...]:
    # The log loss is linear in the label: that of split rows is the same.
    return () if loss == "log_loss" else (Sum(model.rows(), LabelVariance()),)


def _label_variance(loss: str, states: SliceStates) -> Floats:
    """Return how much less the mean loss of labels between 0 and 1 is than that of rows split by them."""
    rows = states.model.rows()
    if loss == "log_loss":
        return np.zeros(states.n_slices)
    variance: ExactSums = states[Sum(rows, LabelVariance())]
    return variance / states.weight(rows)


def _least_loss(loss: str, rate: Floats, rest: Floats) -> Floats:
    """Return the mean loss of rows of a mean label `rate` = 1 − `rest` that are predicted it; NaN for no rows."""
    if loss == "brier_score":
        return rate * rest
    found = rate * rest
    # Of one class there is nothing to lose.
    mixed = np.flatnonzero((rate > 0.0) & (rest > 0.0))
    found[mixed] = map_formula(binary_entropy, rate[mixed], rest[mixed])
    return found


# ---------------------------------------------------------------------------------------------------------------
# Cells of slices


class _Parts(NamedTuple):
    """A number of each cell, as hi + lo."""

    hi: Floats
    lo: Floats

    def __sub__(self, other: _Parts) -> _Parts:
        hi = self.hi - other.hi
        virtual = hi - self.hi
        lost = (self.hi - (hi - virtual)) - (other.hi + virtual)
        return _Parts(hi, lost + (self.lo - other.lo))

    def woven_with(self, other: _Parts) -> _Parts:
        """Return each number, followed by that of the other."""
        return _Parts(*(np.stack(pair, axis=1).reshape(-1) for pair in zip(self, other, strict=True)))


class _Cells(NamedTuple):
    """Positive mass and weight of cells: in each slice in the order of scores, and in a unit of the slice's own."""

    starts: Integers
    positive: _Parts
    weight: _Parts
    are_scores: NDArray[np.bool_] | None = None

    def recalibrated(self) -> _Cells:
        """Return the blocks of the isotonic regression."""
        found = pool_adjacent(self.starts, self.positive.hi, self.weight.hi, self.positive.lo, self.weight.lo)
        positive = _Parts(found.positive, found.positive_lo)
        return _Cells(found.starts, positive, _Parts(found.weight, found.weight_lo))

    def split(self) -> _Cells:
        """Return the negatives of each cell and then its positives, as cells of their own; a score stays one cell."""
        together = np.zeros(len(self.positive.hi), dtype=np.bool_) if self.are_scores is None else self.are_scores
        positive, negative = self.positive, self.weight - self.positive
        below = (
            _Parts(*(np.where(together, part, 0.0) for part in positive)),
            _Parts(*(np.where(together, a, b) for a, b in zip(self.weight, negative, strict=True))),
        )
        above = _Parts(*(np.where(together, 0.0, part) for part in positive))
        return _Cells(2 * self.starts, below[0].woven_with(above), below[1].woven_with(above))

    def as_one(self) -> _Cells:
        """Return each slice that has cells as one cell."""
        ranges = list(itertools.pairwise(self.starts.tolist()))

        def summed(parts: _Parts) -> _Parts:
            listed = [part.tolist() for part in parts]
            totals = [math.fsum(itertools.chain(*(part[a:b] for part in listed))) for a, b in ranges if a < b]
            return _Parts(np.array(totals, dtype=np.float64), np.zeros(len(totals)))

        starts = np.append(0, np.cumsum([a < b for a, b in ranges])).astype(np.int64)
        return _Cells(starts, summed(self.positive), summed(self.weight))


def _mean_of_blocks(loss: str, blocks: _Cells) -> Floats:
    """Return the mean loss of each slice if rows are predicted the mean label of their block; NaN for no rows."""
    negative = blocks.weight - blocks.positive
    weight = blocks.weight.hi
    least = _least_loss(loss, blocks.positive.hi / weight, (negative.hi + negative.lo) / weight)
    terms, weights = (weight * least).tolist(), weight.tolist()
    ranges = itertools.pairwise(blocks.starts.tolist())
    found = [math.fsum(terms[a:b]) / math.fsum(weights[a:b]) if a < b else math.nan for a, b in ranges]
    return np.array(found, dtype=np.float64)
