"""Base classes of losses: their formulas, parameters, domains and traits.

A loss declares; it computes nothing itself. Everything else reads what is declared here: the loops take the formulas,
an evaluation the ranges and traits, the listing the texts. Calling a loss hands its parts to
`fastloss_kernels.arrays`, which is imported then, since it needs NumPy and Numba.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from fastloss_kernels.domain import FINITE, SATURATION_EPSILON, SPACES, Interval, ListRow, ListTest, Row, RowTest
from fastloss_kernels.listwise.pairs import DEFAULT_MOST_PAIRS, MOST_PAIRS, longest_list_of_pairs


@dataclass(frozen=True)
class Loss:
    """A pointwise loss: value, gradient and hessian of one row in each space that it accepts.

    A subclass is one file: a frozen dataclass whose fields are the loss's parameters, and scalar formulas
    ``row(score, label, parameters) -> (value, gradient, hessian)``, one for each accepted space. Labels of binary
    losses reach the formula in [0, 1], whatever `label_domain` the column has. Where a parameter chooses between
    formulas, `formulas` is a property: a branch inside a formula would keep its loop scalar.

    Calling a loss evaluates arrays: ``loss(label, logit=x)`` gives values of shape ``(n_rows,)`` in nats or in the
    units of the label, float64. A null or NaN in either array gives NaN in that row.

    Attributes
    ----------
    name, aliases : str, tuple of str
        How the loss is asked for.
    definition, source : str
        The formula as text, and where it is from.
    label_range : Interval
        The allowed labels.
    ranges, choices : mapping
        The allowed values of parameters: a range, or a few words.
    unit : {"nats", ""}
        "nats" where a loss is an entropy, a cross-entropy, a divergence or the likelihood of a choice: its unit is
        the base of its logarithms.
    listwise : bool
        Whether formulas take whole lists (`ListwiseLoss`) or single rows.
    differentiable : bool
        False for a step, whose gradient is 0 wherever it exists, so that nothing can be learned from it.
    is_nonnegative : bool
        Whether it is known to be 0 or more, whatever label and prediction are.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    label_range: ClassVar[Interval]
    definition: ClassVar[str]
    source: ClassVar[str]
    ranges: ClassVar[Mapping[str, Interval]] = {}
    unit: ClassVar[str] = ""
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    listwise: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    is_nonnegative: ClassVar[bool] = False

    @property
    def formulas(self) -> Mapping[str, Row]:
        """Space -> formula. Most losses have a plain mapping in its place."""
        raise NotImplementedError(f"{type(self).__name__} has no formulas.")

    @property
    def saturated(self) -> Mapping[str, RowTest | ListTest]:
        """Space -> test(score, label, parameters): is the loss clipped, or infinite for want of clipping?"""
        return {}

    @property
    def label_domain(self) -> str:
        """The classes in a label column: "01", or "pm1" for −1 to +1, which binary losses alone can have."""
        return "01"

    @property
    def hessian(self) -> str:
        """The kind of hessian that the formulas return.

        "exact" is the second derivative. "zero" is the second derivative too, where that is 0 wherever it exists, in
        every space. "approximate" is the second derivative with some part of the loss held constant.
        """
        return "exact"

    def __post_init__(self) -> None:
        """Check every parameter against its range; a parameter that is None by default may be None."""
        for field in fields(self):
            given = getattr(self, field.name)
            if isinstance(field.default, bool) and not isinstance(given, bool):
                raise ValueError(f"{self.name}: {field.name} is {given!r}; allowed: True or False.")
        for name, words in self.choices.items():
            if getattr(self, name) not in words:
                allowed_words = " or ".join(map(repr, words))
                raise ValueError(f"{self.name}: {name} is {getattr(self, name)!r}; allowed: {allowed_words}.")
        for name, allowed in self.ranges.items():
            value = getattr(self, name)
            if value is None and self.__dataclass_fields__[name].default is None:
                continue
            if value not in allowed:
                raise ValueError(f"{self.name}: {name} is {value!r}; allowed: {allowed.describe(name)}.")

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula of this space reads besides score and label, as a flat tuple of floats.

        Parameters
        ----------
        space : str
            The space of the prediction, a key of `formulas`.
        epsilon : float
            The smallest probability of an outcome before its loss is clipped; 0 keeps infinities.
        """
        return ()

    def prediction_range(self, space: str) -> Interval:
        """Return which predictions of a space the loss is defined for; narrower than `SPACES` for a few losses."""
        return Interval(*SPACES[space])

    @property
    def full_name(self) -> str:
        """The name that results carry: the loss with those parameters that are not the default."""
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def __call__(self, label: Any, **prediction: Any) -> Any:
        """Return the loss of each row, float64 of shape ``(n_rows,)``.

        Parameters
        ----------
        label : array or column
            The label of each row: NumPy, Arrow, Polars or pandas, or a sequence of numbers. A null gives NaN.
        **prediction : array or column
            The prediction, by the name of its space, as in ``logit=x``: one of logit, prob, logprob, margin and value,
            as far as the loss has a formula for it.
        """
        return self._evaluate(label, prediction, derivatives=False)[0]

    def gradient(self, label: Any, **prediction: Any) -> Any:
        """Return the derivative of each row's loss by its prediction, float64 of shape ``(n_rows,)``.

        It takes the parameters of a call.
        """
        return self._evaluate(label, prediction, derivatives=True)[1]

    def gradient_hessian(self, label: Any, **prediction: Any) -> Any:
        """Return the first and second derivative of each row's loss by its prediction, two arrays."""
        return self._evaluate(label, prediction, derivatives=True)[1:]

    def _evaluate(self, label: Any, prediction: Mapping[str, Any], *, derivatives: bool) -> tuple[Any, ...]:
        from fastloss_kernels import arrays

        space, score = self._one_prediction(prediction)
        return arrays.evaluate_rows(
            self.formulas[space],
            self.parameters(space),
            score,
            label,
            space=space,
            score_range=self.prediction_range(space),
            label_range=self.label_range,
            signed_labels=self.label_domain == "pm1",
            outputs=3 if derivatives else 1,
        )

    def _one_prediction(self, prediction: Mapping[str, Any]) -> tuple[str, Any]:
        if len(prediction) != 1 or next(iter(prediction)) not in self.formulas:
            given = ", ".join(prediction) or "none"
            allowed = " or ".join(f"{space}=" for space in self.formulas)
            raise TypeError(f"{self.name} takes one prediction, as {allowed}; got {given}.")
        ((space, score),) = prediction.items()
        return space, score


@dataclass(frozen=True)
class BinaryLoss(Loss):
    """A pointwise loss of a label in [0, 1]; with ``label_domain="pm1"`` the column holds −1 to +1 instead."""

    label_domain: str = "01"

    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"label_domain": ("01", "pm1")}


def lowest_score(space: str) -> float:
    """Return the lowest score that is not masked: in some spaces −∞ is, since it stands for the probability 0."""
    return -sys.float_info.max if space in ("logit", "logprob", "margin") else float("-inf")


@dataclass(frozen=True)
class ListwiseLoss(Loss):
    """A listwise loss: one value a list, gradient and hessian (its diagonal) as long as the list.

    `formulas` and `saturated` hold formulas of whole lists (`ListRow`, `ListTest`). They receive score and label as
    float64 of shape ``(n,)``; a label that is an index has the shape ``(1,)``. A masked candidate has the score NaN,
    in the spaces logit, logprob and margin also −∞; its gradient and hessian are 0.

    Calling a loss evaluates lists: 2-D arrays, Arrow or Polars list columns, or sequences of arrays. A list that is
    null, empty or wholly masked, that holds a NaN, or that lacks what the loss needs has the value NaN.

    Attributes
    ----------
    label_kind : {"list", "index"}
        Whether the label is a list with one number for each candidate, or the index of the right one.
    n_scratch : int
        How many arrays as long as the list the formulas need besides gradient and hessian.
    counts_no_positive : bool
        Whether the formula has the value that other systems count for a list without a positive label.
    reads_ranked : bool
        Whether the formula reads the unmasked candidates in the order of their scores, the highest first.
    at_ranks : bool
        Whether it reads their ranks, so that the order of equal scores matters.
    """

    listwise: ClassVar[bool] = True
    label_kind: ClassVar[str] = "list"
    n_scratch: ClassVar[int] = 0
    counts_no_positive: ClassVar[bool] = False
    reads_ranked: ClassVar[bool] = False
    at_ranks: ClassVar[bool] = False

    @property
    def formulas(self) -> Mapping[str, ListRow]:  # type: ignore[override]
        """Space -> formula of whole lists."""
        raise NotImplementedError(f"{type(self).__name__} has no formulas.")

    @property
    def needs(self) -> str:
        """The least that a list must hold: a "candidate", a "positive" label, or a "pair" of different labels."""
        return "candidate"

    @property
    def longest_list(self) -> int | None:
        """The largest number of candidates; a longer list is refused. None: any number."""
        return None

    @property
    def ignore_class(self) -> int | None:
        """The index whose lists have no loss, of labels that are indices; None: no index."""
        return None

    def lowest_score(self, space: str) -> float:
        """Return the lowest score that is not masked: in some spaces −∞ is, since it stands for the probability 0."""
        return lowest_score(space)

    def prediction_range(self, space: str) -> Interval:
        """Return what the space allows, of values the finite ones: two infinite ones have no difference."""
        return FINITE if space == "value" else super().prediction_range(space)

    def __call__(self, label: Any, **prediction: Any) -> Any:
        """Return the loss of each list, float64 of shape ``(n_lists,)``.

        Parameters
        ----------
        label : array or column
            The label of each candidate, or the index of the right one: a list column, a 2-D array, a list of arrays.
        **prediction : array or column
            The prediction, by the name of its space, as in ``logit=x``: one of logit, prob, logprob, margin and value,
            as far as the loss has a formula for it.
        """
        return super().__call__(label, **prediction)

    def gradient(self, label: Any, **prediction: Any) -> Any:
        """Return the derivative of each list's loss by each of its scores, in the form of the prediction."""
        return super().gradient(label, **prediction)

    def gradient_hessian(self, label: Any, **prediction: Any) -> Any:
        """Return the first and the second derivative of each list's loss by each of its scores."""
        return super().gradient_hessian(label, **prediction)

    def _evaluate(self, label: Any, prediction: Mapping[str, Any], *, derivatives: bool) -> tuple[Any, ...]:
        from fastloss_kernels import arrays

        space, score = self._one_prediction(prediction)
        return arrays.evaluate_lists(
            self.formulas[space],
            self.parameters(space),
            score,
            label,
            space=space,
            score_range=self.prediction_range(space),
            label_range=self.label_range,
            signed_labels=self.label_domain == "pm1",
            lowest_score=self.lowest_score(space),
            needs=self.needs,
            label_is_index=self.label_kind == "index",
            ignored_index=self.ignore_class,
            longest_list=self.longest_list,
            n_scratch=self.n_scratch,
            ranked=self.reads_ranked,
            derivatives=derivatives,
        )


@dataclass(frozen=True)
class PairwiseLoss(ListwiseLoss):
    """A pairwise loss: its time grows with the square of the length of a list."""

    max_pairs: int = DEFAULT_MOST_PAIRS

    label_range: ClassVar[Interval] = FINITE
    ranges = {"max_pairs": Interval(1, MOST_PAIRS)}

    def __post_init__(self) -> None:
        """Check that the number of pairs is whole."""
        if isinstance(self.max_pairs, bool) or not isinstance(self.max_pairs, int):
            raise ValueError(f"{self.name}: max_pairs is {self.max_pairs!r}; allowed: a whole number.")
        super().__post_init__()

    @property
    def needs(self) -> str:
        """Two candidates with different labels."""
        return "pair"

    @property
    def longest_list(self) -> int:
        """The largest number n of candidates with n·(n − 1)/2 at most `max_pairs`; a longer list is refused."""
        return longest_list_of_pairs(self.max_pairs)

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return the length of the longest list."""
        return (float(self.longest_list),)
