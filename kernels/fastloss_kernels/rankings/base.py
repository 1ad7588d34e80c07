"""Base class of ranking metrics: formulas of lists that have a value and no derivatives."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fastloss_kernels.domain import FINITE, SPACES, Interval, ListRow
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import ListwiseLoss

# ranking(score, label, parameters, scratch) -> value. Score, label and scratch are those of a `ListRow`.
RankingFormula = Callable[..., float]


@functools.cache
def without_derivatives(ranking: RankingFormula) -> ListRow:
    """Make a listwise formula of one that has no derivatives."""

    @formula
    def list_row(score, label, parameters, scratch, gradient, hessian, derivatives):
        return ranking(score, label, parameters, scratch)

    return list_row


@dataclass(frozen=True)
class Ranking(ListwiseLoss):
    """A ranking metric: one value a list, from the order of its scores; the larger the better.

    It has the form of a listwise loss, so that what averages losses over lists averages rankings too. A subclass is
    one file: a frozen dataclass whose fields are the parameters, and one formula ``ranking(score, label, parameters,
    scratch) -> value`` for all spaces, since the order of the scores is all that it reads. The order of the
    candidates in the list does not matter: those of equal scores stand in every order, and the value is the mean.

    Attributes
    ----------
    ranking : callable
        The formula.
    """

    ranking: ClassVar[RankingFormula]
    label_range: ClassVar[Interval] = FINITE
    differentiable: ClassVar[bool] = False

    @property
    def formulas(self) -> Mapping[str, ListRow]:  # type: ignore[override]
        """The formula in every space."""
        return dict.fromkeys(SPACES, without_derivatives(self.ranking))

    @property
    def needs(self) -> str:
        """A positive label of an unmasked candidate: without one there is nothing to rank."""
        return "unmasked positive"

    def _evaluate(self, label: Any, prediction: Mapping[str, Any], *, derivatives: bool) -> tuple[Any, ...]:
        if derivatives:
            raise TypeError(f"{self.name} is a ranking metric, which has no gradient; use a listwise loss.")
        return super()._evaluate(label, prediction, derivatives=False)
