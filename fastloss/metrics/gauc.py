"""The mean of the AUCs of lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

from fastloss.metrics.base import (
    BINARY_LABEL,
    WEIGHTS_TOO_SMALL,
    MetricValues,
    ModelFacts,
    PlainMetric,
    SliceStates,
)
from fastloss.metrics.conventions import RequestConventions
from fastloss.metrics.quantities import (
    AucChoice,
    Candidates,
    ListAuc,
    ListAucCandidates,
    ListAucWeight,
    ListsOfKind,
)
from fastloss.states.base import StateSpec
from fastloss.states.counts import Count
from fastloss.states.sums import Sum
from fastloss_kernels.domain import SPACES, Interval
from fastloss_kernels.exact_sum import ExactSums

WEIGHTINGS = ("impressions", "uniform", "positives", "sample_weight", "pairs")
# What the rows' weights are a part of.
_OF_WEIGHTS = ("positives", "sample_weight", "pairs")
# The weight of a pair is a product of two weights: a mean weight from here on has squares that are numbers.
_LEAST_SQUARED = 2.0**-480
_KINDS = {"n_no_pos": "no positive", "n_no_neg": "no negative", "n_constant": "constant"}


@dataclass(frozen=True)
class GroupedAuc(PlainMetric):
    """The mean of the AUCs of lists, or of groups of rows: how well each is ordered, whatever its level of scores is.

    Of each list it is the probability that a positive has a higher score than a negative, ties counting ½; a label y
    between 0 and 1 is a positive with the part y of its weight, and a negative with the rest. Masked candidates have
    no part in it. A list without a positive, or without a negative, has no AUC and is left out, unless `one_class`
    says otherwise. A list in which all scores are equal has the AUC ½.

    Where candidates have weights, as rows of a group do, an AUC is that of the weighted candidates. The weight of a
    list is that of each of its candidates, and so leaves its AUC as it is. "impressions" and "uniform" do not look at
    weights; "positives", "sample_weight" and "pairs" sum them up.

    ``n_groups`` counts the lists with an unmasked candidate: ``n_valid`` of both classes, ``n_no_pos`` without a
    positive and ``n_no_neg`` without a negative. ``n_constant`` of the valid ones have one score. ``coverage``
    is the share of all candidates that the lists in the mean hold.

    Attributes
    ----------
    weighting : {"impressions", "uniform", "positives", "sample_weight", "pairs"}
        What a list weighs in the mean: the number of its candidates (GAUC of Zhou et al.), 1, the sum of its
        positives, the sum of its weights, or that of its pairs of a positive and a negative.
    drop_constant : bool
        Whether lists in which all scores are equal are left out, as TorchRec's GAUC does.
    one_class : float, "skip" or None
        The AUC that a list of one class counts with, or "skip" to leave it out. None is what the preset has, 0.5 of
        TorchRec and 1 of LightGBM, and else to leave it out.

    References
    ----------
    Zhou et al., Deep interest network for click-through rate prediction, KDD 2018, section 6.3.
    """

    weighting: str = "impressions"
    drop_constant: bool = False
    one_class: float | str | None = None

    family: ClassVar[str] = "gauc"
    parameters: ClassVar[tuple[str, ...]] = ("weighting", "drop_constant", "one_class")
    allowed: ClassVar[Mapping[str, str]] = {
        "weighting": "or " + " or ".join(map(repr, WEIGHTINGS[1:])),
        "drop_constant": "or True",
        "one_class": "or 'skip' or 0 <= one_class <= 1",
    }
    spaces = tuple(SPACES)
    definition = "Σ weight·AUC / Σ weight over lists of both classes; weight: candidates, 1, Σw·y, Σw or pairs"

    def __post_init__(self) -> None:
        """Refuse parameters of another kind."""
        if self.weighting not in WEIGHTINGS:
            raise ValueError(f"weighting is {self.weighting!r}; allowed: {', '.join(map(repr, WEIGHTINGS))}.")
        if not isinstance(self.drop_constant, bool):
            raise ValueError(f"drop_constant is {self.drop_constant!r}; allowed: true or false.")
        given = self.one_class
        if given is None or given == "skip":
            return
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 <= given <= 1.0:
            raise ValueError(f"one_class is {given!r}; allowed: 0 <= one_class <= 1, or 'skip'.")
        # One number has one name, however it is written.
        object.__setattr__(self, "one_class", float(given))

    @property
    def name(self) -> str:
        """The name with the parameters that are not the default."""
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.family}({', '.join(changed)})" if changed else self.family

    @property
    def rounds_weights(self) -> bool:  # type: ignore[override]
        """Whether weights are part of the sums."""
        return self.weighting in _OF_WEIGHTS

    def label_range(self, space: str) -> Interval:
        """Return 0 to 1 in every space."""
        return BINARY_LABEL

    def over_lists(self) -> bool:
        """Return True."""
        return True

    def states(self, model: ModelFacts) -> tuple[StateSpec, ...]:
        """Return both sums, and the counts of lists and candidates."""
        rows, choice = model.rows(), self._choice(model)
        return (
            *model.weight(rows),
            Sum(rows, ListAuc(choice)),
            Sum(rows, ListAucWeight(choice)),
            *(Count(rows, ListsOfKind(kind)) for kind in _KINDS.values()),
            Count(rows, ListAucCandidates(choice)),
            Count(rows, Candidates()),
        )

    def evaluate(self, states: SliceStates) -> MetricValues:
        """Divide the two sums and round once."""
        model = states.model
        rows, choice = model.rows(), self._choice(model)
        total: ExactSums = states[Sum(rows, ListAuc(choice))]
        weight: ExactSums = states[Sum(rows, ListAucWeight(choice))]
        values = MetricValues(total / weight, rows)
        n = states.count(rows)
        kinds = {name: states[Count(rows, ListsOfKind(kind))] for name, kind in _KINDS.items()}
        n_valid = n - kinds["n_no_pos"] - kinds["n_no_neg"]
        if choice.one_class is None:
            values.n = n_valid - kinds["n_constant"] if self.drop_constant else n_valid
        candidates = states[Count(rows, Candidates())]
        values.evidence |= {"n_groups": n, "n_valid": n_valid, **kinds}
        values.evidence["coverage"] = states[Count(rows, ListAucCandidates(choice))] / candidates
        values.absent["coverage"] = candidates == 0
        if choice.one_class is not None:
            values.evidence["one_class"] = np.full(states.n_slices, choice.one_class)
        values.explain(n == 0, "no_rows", undefined=True)
        nothing = weight.is_finite & weight.is_zero
        values.explain(nothing & (n_valid == 0), "one_class", undefined=True)
        if self.drop_constant:
            values.explain(nothing & (n_valid == kinds["n_constant"]), "constant_scores", undefined=True)
        if model.weighted and self.weighting == "pairs":
            too_small = states.weight(rows).to_float() < _LEAST_SQUARED * n
            values.explain(too_small, WEIGHTS_TOO_SMALL, undefined=True)
        values.explain_infinite()
        return values

    def needs(self, conventions: RequestConventions) -> tuple[str, ...]:
        """Return what a list must hold to be used: both classes, unless one alone counts as something."""
        return () if self._one_class(conventions) is not None else ("ranked classes",)

    def _one_class(self, conventions: RequestConventions) -> float | None:
        given = conventions.one_class_auc if self.one_class is None else self.one_class
        return given if isinstance(given, float) else None

    def _choice(self, model: ModelFacts) -> AucChoice:
        return AucChoice(self.weighting, self.drop_constant, self._one_class(model.conventions))
