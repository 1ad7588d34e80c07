"""The score histogram of a log as rows to fit to: a start for the fit, and what no fit can reach."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fastloss.calibration.newton import Sums
from fastloss.states.histogram import ScoreHistograms
from fastloss_kernels.calibration import LOGITS, features_of
from fastloss_kernels.cpu.isotonic import IsotonicBlocks, pool_adjacent
from fastloss_kernels.cpu.linear import make_add_fit_sums
from fastloss_kernels.elementary import softplus
from fastloss_kernels.elementwise import map_formula
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum, normalize_words
from fastloss_kernels.information import binary_entropy
from fastloss_kernels.losses import BinaryCrossentropy

Floats = NDArray[np.float64]
_LOSS = BinaryCrossentropy()
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
        """The middle of each bucket; the nearer to 0 of its bounds where the other is infinite."""
        low, high = self.histogram.score_bounds()
        middle = low / 2 + high / 2 if self.histogram.dropped_bits else low
        # The bucket of the largest numbers ends at infinity.
        middle = np.where(np.isposinf(middle), low, np.where(np.isneginf(middle), high, middle))
        if self.space == "prob":
            middle = np.clip(middle, 0.0, 1.0)
        elif self.space == "logprob":
            middle = np.minimum(middle, 0.0)
        return _read_only(middle)

    @cached_property
    def masses(self) -> tuple[Floats, Floats]:
        """The positive mass and the weight of each bucket."""
        return self.histogram.masses_as_float()

    @cached_property
    def classes(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which buckets hold positive and negative mass."""
        positive, weight = np.hsplit(self.histogram.masses, 2)
        return np.any(positive != 0, axis=1), np.any(positive != weight, axis=1)

    @property
    def rate(self) -> float:
        """The mean label."""
        positive, weight = self.masses
        return math.fsum(positive.tolist()) / math.fsum(weight.tolist())

    def only_class(self) -> int | None:
        """Return the class of all rows; None if there are both."""
        has_positive, has_negative = (bool(found.any()) for found in self.classes)
        return None if has_positive and has_negative else int(has_positive)

    def is_constant(self) -> bool:
        """Tell whether all rows have one score."""
        return self.is_exact and len(self.scores) == 1

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
        loop = make_add_fit_sums(_LOSS.formulas["logit"], features.of_score, features.constant)
        positive, weight = self.masses
        label = _read_only(np.minimum(positive / weight, 1.0))
        words = np.zeros((1 + features.n + features.n * (features.n + 1) // 2, ACCUMULATOR_WORDS), dtype=np.int64)
        loop(
            self.scores, label, _read_only(weight), parameters, _LOSS.parameters("logit"), np.array(coefficients),
            wanted, words,
        )  # fmt: skip
        return Sums.of([ExactSum.from_words(each).units for each in normalize_words(words)], features.n, wanted)

    @cached_property
    def isotonic(self) -> IsotonicBlocks:
        """The isotonic regression of the labels."""
        starts = np.array([0, len(self.scores)], dtype=np.int64)
        return pool_adjacent(starts, *self.masses)

    def isotonic_loss(self) -> float:
        """Return the sum of the log losses of the isotonic regression: no increasing map of the buckets has less."""
        blocks = self.isotonic
        negative = (blocks.weight - blocks.positive) + (blocks.weight_lo - blocks.positive_lo)
        mixed = (blocks.positive > 0.0) & (negative > 0.0)
        positive, negative, weight = (each[mixed] for each in (blocks.positive, negative, blocks.weight))
        entropies = map_formula(binary_entropy, positive / weight, negative / weight)
        return math.fsum((entropies * weight).tolist())


def _mean(values: Floats, share: Floats) -> float:
    """Return a mean of given shares, or 0 if it is too large a number."""
    with np.errstate(over="ignore", invalid="ignore"):
        terms = values * share
    mean = math.fsum(terms.tolist()) if np.isfinite(terms).all() else 0.0
    return mean if math.isfinite(mean) else 0.0


def _read_only(values: Floats) -> Floats:
    # Kernels are compiled for read-only columns.
    view = np.ascontiguousarray(values, dtype=np.float64).view()
    view.flags.writeable = False
    return view
