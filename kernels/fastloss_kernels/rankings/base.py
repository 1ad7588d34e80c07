"""Base classes of ranking metrics: formulas of lists that have a value and no derivatives."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, SPACES, Interval, ListRow
from fastloss_kernels.jit import formula
from fastloss_kernels.losses.base import ListwiseLoss

# ranking(score, label, n_positive, parameters, scratch) -> value, of a list with a positive label. Score and label
# hold the unmasked candidates, float64 of shape (n,): the highest score first, and of equal scores the highest label.
# Scratch is that of a `ListRow`.
RankingFormula = Callable[..., float]

# The value of a list without a positive label, by the word of `empty`.
_EMPTY_VALUES = {"skip": math.nan, "zero": 0.0, "one": 1.0, "error": math.nan}
# What a list must hold, by the same words: this before the name of what it is.
_EMPTY_NEEDS = {"skip": "ranked", "error": "required"}


@functools.cache
def of_pairs(ranking: RankingFormula) -> ListRow:
    """Make a listwise formula of one that is NaN where it has no pair; its first parameter is the value there."""

    @formula
    def list_row(score, label, parameters, scratch, gradient, hessian, derivatives):
        value = ranking(score, label, 0, parameters, scratch)
        return value if value == value else float(parameters[0])

    return list_row


@functools.cache
def without_derivatives(ranking: RankingFormula) -> ListRow:
    """Make a listwise formula of a ranking's; its first parameter is the value of a list without a positive label."""

    @formula
    def list_row(score, label, parameters, scratch, gradient, hessian, derivatives):
        n_positive = 0
        for j in range(label.shape[0]):
            n_positive += 1 if label[j] > 0.0 else 0
        value = float(parameters[0])
        if n_positive > 0:
            value = ranking(score, label, n_positive, parameters, scratch)
        return value

    return list_row


@dataclass(frozen=True)
class Ranking(ListwiseLoss):
    """A ranking metric: one value a list, from the order of its scores; the larger the better.

    It has the form of a listwise loss, so that what averages losses over lists averages rankings too. A subclass is
    one file: a frozen dataclass whose fields are the parameters, and one formula ``ranking(score, label, n_positive,
    parameters, scratch) -> value`` for all spaces, since the order of the scores is all that it reads. Candidates of
    equal scores stand in every order, and the value is the mean; their order in the list does not matter.

    Parameters
    ----------
    empty : {"skip", "zero", "one", "error"}
        What a list is without a positive label: left out and counted, or a 0, or a 1, or an error.

    Attributes
    ----------
    ranking : callable
        The formula.
    """

    empty: str = field(default="skip", kw_only=True)

    # What is written before an @, where that is not the name.
    short_name: ClassVar[str] = ""
    ranking: ClassVar[RankingFormula]
    at_ranks: ClassVar[bool] = True
    label_range: ClassVar[Interval] = FINITE
    differentiable: ClassVar[bool] = False
    reads_ranked: ClassVar[bool] = True
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"empty": tuple(_EMPTY_VALUES)}

    @property
    def formulas(self) -> Mapping[str, ListRow]:  # type: ignore[override]
        """The formula in every space."""
        return dict.fromkeys(SPACES, without_derivatives(self.ranking))

    @property
    def needs(self) -> str:
        """A positive label of an unmasked candidate, unless lists without one have a value."""
        return self._needs("positive")

    def _needs(self, what: str) -> str:
        """Return the word for a list that must hold this, unless one without it has a value."""
        return f"{_EMPTY_NEEDS[self.empty]} {what}" if self.empty in _EMPTY_NEEDS else "ranked candidate"

    def lowest_score(self, space: str) -> float:
        """Return −∞, which is a score as others are: the lowest."""
        return -math.inf

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the value of a list without a positive label."""
        return (_EMPTY_VALUES[self.empty],)

    def _evaluate(self, label: Any, prediction: Mapping[str, Any], *, derivatives: bool) -> tuple[Any, ...]:
        if derivatives:
            raise TypeError(f"{self.name} is a ranking metric, which has no gradient; use a listwise loss.")
        return super()._evaluate(label, prediction, derivatives=False)


@dataclass(frozen=True)
class RankingAtK(Ranking):
    """A ranking metric of the first k candidates, written ``name@k``.

    Parameters
    ----------
    k : int or None
        The last rank that counts; in a shorter list, its length. None: every rank counts.
    """

    k: int | None = None

    # What is written behind an @.
    main: ClassVar[str] = "k"
    # Without k it is the same for every order.
    needs_k: ClassVar[bool] = False
    ranges = {"k": Interval(1, math.inf)}

    def __post_init__(self) -> None:
        """Check that k is whole."""
        if self.k is not None and (isinstance(self.k, bool) or not isinstance(self.k, int)):
            raise ValueError(f"{self.name}: k is {self.k!r}; allowed: a whole number, or None.")
        super().__post_init__()

    @property
    def full_name(self) -> str:
        """The name with k behind an @, and other parameters that are not the default."""
        changed = [
            f"{each.name}={getattr(self, each.name)!r}"
            for each in fields(self)
            if each.name != self.main and getattr(self, each.name) != each.default
        ]
        name = self.name if self.k is None else f"{self.short_name or self.name}@{self.k}"
        return f"{name}({', '.join(changed)})" if changed else name

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the value of a list without a positive label, and the last rank that counts."""
        return (*super().parameters(space, epsilon), math.inf if self.k is None else float(self.k))


@dataclass(frozen=True)
class PairRanking(Ranking):
    """A ranking metric of the pairs of a list, in which a tie counts ½ under every rule for ties.

    The formula gets 0 for the number of positives, and is NaN where there is no pair.

    Parameters
    ----------
    empty : {"skip", "zero", "one", "error"}
        What a list is without a pair: left out and counted, or a 0, or a 1, or an error.
    """

    at_ranks: ClassVar[bool] = False

    @property
    def formulas(self) -> Mapping[str, ListRow]:  # type: ignore[override]
        """The formula in every space."""
        return dict.fromkeys(SPACES, of_pairs(self.ranking))
