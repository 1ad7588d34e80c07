"""The score histogram of a log as rows to fit to: a start for the fit, and what no fit can reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastloss.calibration.newton import Sums
from fastloss.states.histogram import ScoreHistograms
from fastloss_kernels.calibration import LOGITS, features_of, log_loss
from fastloss_kernels.cpu.isotonic import pool_adjacent
from fastloss_kernels.cpu.linear import make_add_fit_sums
from fastloss_kernels.cpu.pointwise import make_value
from fastloss_kernels.elementary import softplus
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum
from fastloss_kernels.losses import BinaryCrossentropy

Floats = NDArray[np.float64]
_LOSS = BinaryCrossentropy()
_LARGEST = float(np.finfo(np.float64).max)
# The score of each space that stands for the probability one half.
_HALF = {"logit": 0.0, "prob": 0.5, "logprob": -0.6931471805599453}


@dataclass(frozen=True)
class Buckets:
    """The buckets of a whole log.

    Attributes
    ----------
    histogram : ScoreHistograms
        One slice.
    space : str
        The space of the scores.
    """

    histogram: ScoreHistograms
    space: str

    @property
    def is_exact(self) -> bool:
        """Whether each bucket is one score."""
        return self.histogram.dropped_bits == 0

    @cached_property
    def scores(self) -> Floats:
        """The middle of each bucket."""
        low, high = self._bounds
        return _read_only(np.where(low == high, low, low / 2 + high / 2))

    @cached_property
    def masses(self) -> tuple[Floats, Floats]:
        """The positive mass and the weight of each bucket."""
        return self.histogram.masses_as_float()

    @cached_property
    def _rows(self) -> tuple[Floats, Floats]:
        """Label and weight of a row that stands for each bucket."""
        positive, weight = self.masses
        return _read_only(np.minimum(positive / weight, 1.0)), _read_only(weight)

    @cached_property
    def classes(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which buckets hold positive and negative mass."""
        positive, weight = np.hsplit(self.histogram.masses, 2)
        return np.any(positive != 0, axis=1), np.any(positive != weight, axis=1)

    @property
    def rate(self) -> float:
        """The mean label."""
        labels, weight = self._rows
        return _mean(labels, weight / weight.sum())

    def only_class(self) -> int | None:
        """Return the class of all rows; None if there are both."""
        has_positive, has_negative = (bool(found.any()) for found in self.classes)
        return None if has_positive and has_negative else int(has_positive)

    def is_constant(self) -> bool:
        """Tell whether all rows have one score."""
        return self.is_exact and len(self.scores) == 1

    def is_half(self) -> bool:
        """Tell whether all rows have the score of the probability one half."""
        return self.is_constant() and bool(self.scores[0] == _HALF[self.space])

    def are_separable(self) -> bool:
        """Tell whether one class lies above the other, a tie between them left out of account."""
        positive, negative = (np.flatnonzero(found) for found in self.classes)
        above = positive[0] >= negative[-1] or positive[-1] <= negative[0]
        # Within a bucket that both share, nothing is known of their order.
        shared = self.classes[0] & self.classes[1]
        return bool(above) and (self.is_exact or not shared.any())

    def lie_on_one_side(self) -> bool:
        """Tell whether every label agrees, or every one disagrees, with the side of one half that its score is on."""
        half = _HALF[self.space]
        positive, negative = self.classes
        above, below = self.scores > half, self.scores < half
        agrees = (positive & above).any() or (negative & below).any()
        disagrees = (positive & below).any() or (negative & above).any()
        return not (agrees and disagrees)

    def parameters(self, kind: str) -> tuple[float, float, float]:
        """Return parameters of features with which they lie about 0, and are of about the size 1.

        Without a constant, which takes up what is subtracted, nothing is.
        """
        to_logit = LOGITS[self.space]
        _, weight = self.masses
        share = weight / weight.sum()
        center = float(to_logit(_mean(self.scores, share)))
        centers = float(-softplus(-center)), float(softplus(center))
        if kind == "platt":
            centers = center, 0.0
        elif kind == "temperature":
            centers = 0.0, 0.0
        away = _mean(np.abs(self.scores - center), share) if self.space == "logit" else 1.0
        _, exponent = math.frexp(away if away > 0.0 else abs(center))
        return *centers, math.ldexp(1.0, min(-exponent, 1023))

    def evaluate(self, kind: str, parameters: tuple[float, ...], coefficients: tuple[float, ...], wanted: int) -> Sums:
        """Return the sums of a fit at a point, as if each bucket's rows had its middle as their score."""
        features = features_of(kind, self.space)
        loop = make_add_fit_sums(log_loss, features.of_score, features.constant)
        words = np.zeros((1 + features.n + features.n * (features.n + 1) // 2, ACCUMULATOR_WORDS), dtype=np.int64)
        loop(
            self.scores, *self._rows, parameters, np.array(coefficients),
            wanted, words,
        )  # fmt: skip
        return Sums.of([ExactSum.from_words(each) for each in words], features.n, wanted)

    @cached_property
    def isotonic(self) -> Steps:
        """The isotonic regression of the labels: no increasing map of the buckets has a smaller log loss."""
        starts = np.array([0, len(self.scores)], dtype=np.int64)
        blocks = pool_adjacent(starts, *self.masses)
        first, last = np.append(0, blocks.stops[:-1]), blocks.stops - 1
        low, high = self._bounds
        negative = (blocks.weight - blocks.positive) + (blocks.weight_lo - blocks.positive_lo)
        return Steps(low[first], high[last], blocks.positive + blocks.positive_lo, np.maximum(negative, 0.0))

    @cached_property
    def _bounds(self) -> tuple[Floats, Floats]:
        """The lowest and the highest score of each bucket that a row of the space may have."""
        low, high = self.histogram.score_bounds()
        most = {"prob": 1.0, "logprob": 0.0}.get(self.space, _LARGEST)
        return np.maximum(low, -_LARGEST), np.minimum(high, most)


@dataclass(frozen=True)
class Steps:
    """An increasing map in steps.

    Attributes
    ----------
    low, high : numpy.ndarray of float64, shape (n_steps,)
        The scores of each step, ascending.
    positive, negative : numpy.ndarray of float64, shape (n_steps,)
        The mass of each class on it.
    """

    low: Floats
    high: Floats
    positive: Floats
    negative: Floats

    @property
    def rates(self) -> Floats:
        """The share of positives on each step."""
        return self.positive / (self.positive + self.negative)

    def loss(self) -> float:
        """Return the sum of the log losses of these shares."""
        rates, entropies = _read_only(self.rates), np.empty(len(self.low))
        # A rate is the label that its own log loss is the least of.
        make_value(_LOSS.formulas["prob"])(rates, rates, _LOSS.parameters("prob", 0.0), entropies)
        return math.fsum((entropies * (self.positive + self.negative)).tolist())

    def at_most(self, n: int) -> Steps:
        """Return about n steps of equal weight at most, each of neighbouring ones that are put together."""
        if len(self.low) <= n:
            return self
        weight = self.positive + self.negative
        ends = np.cumsum(weight)
        group = np.floor((ends - weight / 2) * (n / ends[-1]))
        first = np.flatnonzero(np.append(True, group[1:] != group[:-1]))
        last = np.append(first[1:], len(group)) - 1
        positive, negative = (np.add.reduceat(mass, first) for mass in (self.positive, self.negative))
        return Steps(self.low[first], self.high[last], positive, negative)

    def knots(self) -> tuple[tuple[float, float], ...]:
        """Return the ends of the steps, with the shares there."""
        found = []
        for low, high, rate in zip(self.low.tolist(), self.high.tolist(), self.rates.tolist(), strict=True):
            found += [(low, rate), (high, rate)] if low < high else [(low, rate)]
        return tuple(found)


def _mean(values: Floats, share: Floats) -> float:
    """Return a mean of given shares to 24 bits, or 0 if it is too large a number.

    The last bits of NumPy's sums depend on the processor, and a fit begins from a mean.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float((values * share).sum())
    if not math.isfinite(mean):
        return 0.0
    fraction, exponent = math.frexp(mean)
    return math.ldexp(round(math.ldexp(fraction, 24)), exponent - 24)


def _read_only(values: Floats) -> Floats:
    # Kernels are compiled for read-only columns.
    view = np.ascontiguousarray(values, dtype=np.float64).view()
    view.flags.writeable = False
    return view
