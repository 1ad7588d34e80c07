"""The form of a loss: what one file in this folder declares, and what everything else reads from it."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

Row = Callable[..., tuple[float, float, float]]
RowTest = Callable[..., bool]
# list_row(score, label, parameters, gradient, hessian, derivatives) -> value. Score and label are float64 slices of
# one list, and so are gradient and hessian: scratch at first, and results only where derivatives is true.
ListRow = Callable[..., float]

# Readers of lists, tried before those of NumPy arrays: reader(given) -> the fields of `cpu.lists.Lists`, or None for
# what it does not know. This package knows no Arrow; who does adds a reader of its columns.
LIST_READERS: list[Callable[[Any], tuple[Any, ...] | None]] = []

# Spaces a prediction column may be declared in, with the closed interval of its values.
SPACES: dict[str, tuple[float, float]] = {
    "logit": (float("-inf"), float("inf")),
    "prob": (0.0, 1.0),
    "logprob": (float("-inf"), 0.0),
    "margin": (float("-inf"), float("inf")),
    "value": (float("-inf"), float("inf")),
}

# How near to an impossible outcome a probability may come before its loss is clipped (TorchRec's η): float32
# probabilities are not distorted, since their smallest distance from 1 is 6e-8.
SATURATION_EPSILON = 1e-12

# While all predictions lie in here, none rules out an outcome, and no row need be tested for saturation.
UNSATURATED: dict[str, tuple[float, float]] = {
    "logit": (-sys.float_info.max, sys.float_info.max),
    "prob": (2e-12, 1.0 - 2e-12),
    "logprob": (-26.0, -2e-12),
    "margin": (-sys.float_info.max, sys.float_info.max),
}


class Interval(NamedTuple):
    """A range of allowed values; `without_zero` leaves out 0, where a loss divides by the label."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False
    without_zero: bool = False

    def __contains__(self, value: object) -> bool:
        """Tell whether a number lies in the range; NaN never does."""
        if not isinstance(value, (int, float)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.without_zero and value == 0)

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest float64 in the range."""
        low = math.nextafter(self.low, math.inf) if self.low_open else self.low
        high = math.nextafter(self.high, -math.inf) if self.high_open else self.high
        return low, high

    def describe(self, name: str) -> str:
        """Say the range as an inequality."""
        if self.without_zero:
            return f"{self._replace(without_zero=False).describe(name)} other than 0"
        left = "<" if self.low_open else "<="
        right = "<" if self.high_open else "<="
        if self.low == float("-inf") and self.high == float("inf"):
            return f"{name} is a number"
        if self.high == float("inf"):
            return f"{name} {'>' if self.low_open else '>='} {self.low:g}"
        return f"{self.low:g} {left} {name} {right} {self.high:g}"


FINITE = Interval(float("-inf"), float("inf"), low_open=True, high_open=True)


@dataclass(frozen=True)
class Loss:
    """A loss of one row: value, gradient and hessian in each space that it accepts.

    A subclass is one file: a frozen dataclass whose fields are the loss's parameters, and scalar formulas
    ``row(score, label, parameters) -> (value, gradient, hessian)``, one for each accepted space. Labels of binary
    losses reach the formula in [0, 1], whatever `label_domain` the column has. A parameter that chooses between
    formulas sets `rows` of the object: a branch inside a formula would keep its loop scalar.

    Calling a loss evaluates arrays: ``loss(label, logit=x)`` gives values of shape ``(n_rows,)`` in nats or in the
    units of the label, float64. A null or NaN in either array gives NaN in that row.
    """

    name: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()
    rows: ClassVar[Mapping[str, Row]]
    label_range: ClassVar[Interval]
    formula: ClassVar[str]
    source: ClassVar[str]
    ranges: ClassVar[Mapping[str, Interval]] = {}
    # "nats" where a loss is an entropy, a cross-entropy, a divergence or the likelihood of a choice: its unit is the
    # base of its logarithms.
    unit: ClassVar[str] = ""
    # The values of parameters that are one of a few words.
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    # Space -> test(score, label, parameters): is this row's loss clipped, or infinite for want of clipping?
    saturated: ClassVar[Mapping[str, RowTest]] = {}

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
            The space of the prediction, a key of `rows`.
        epsilon : float
            The smallest probability of an outcome before its loss is clipped; 0 keeps infinities.
        """
        return ()

    def prediction_range(self, space: str) -> Interval:
        """Return which predictions of a space the loss is defined for; narrower than `SPACES` for a few losses."""
        return Interval(*SPACES[space])

    @property
    def label(self) -> str:
        """The name that results carry: the loss with those parameters that are not the default."""
        changed = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}({', '.join(changed)})" if changed else self.name

    def __call__(self, label: Any, **prediction: Any) -> Any:
        """Return the loss of each row, float64 of shape ``(n_rows,)``."""
        return _evaluate(self, label, prediction, 1)[0]

    def gradient(self, label: Any, **prediction: Any) -> Any:
        """Return the derivative of each row's loss by its prediction, float64 of shape ``(n_rows,)``."""
        return _evaluate(self, label, prediction, 3)[1]

    def gradient_hessian(self, label: Any, **prediction: Any) -> Any:
        """Return the first and second derivative of each row's loss by its prediction, two arrays."""
        return _evaluate(self, label, prediction, 3)[1:]


@dataclass(frozen=True)
class BinaryLoss(Loss):
    """A loss of a label in [0, 1]; with ``label_domain="pm1"`` the column holds −1 to +1 instead."""

    label_domain: str = "01"

    label_range: ClassVar[Interval] = Interval(0.0, 1.0)
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {"label_domain": ("01", "pm1")}


@dataclass(frozen=True)
class ListLoss(Loss):
    """A loss of a list of candidates: one value a list, gradient and hessian (its diagonal) lists as long.

    `rows` and `saturated` hold formulas of whole lists (`ListRow`); a saturated one is
    ``test(score, label, parameters) -> bool``. A masked candidate has the score NaN, in the spaces logit, logprob and
    margin also −∞; its gradient and hessian are 0.

    Calling a loss evaluates lists: 2-D arrays, Arrow or Polars list columns, or sequences of arrays. A list that is
    null, empty or wholly masked, that holds a NaN, or that lacks what the loss needs has the value NaN.

    Attributes
    ----------
    label_kind : {"list", "index"}
        Whether the label is a list with one number for each candidate, or the index of the right one.
    """

    label_kind: ClassVar[str] = "list"
    # Whether the formula has the value that other systems count for a list without a positive label.
    counts_no_positive: ClassVar[bool] = False

    @property
    def needs(self) -> str:
        """What a list must hold: a "candidate"; also a "positive" label, or a "pair" of different labels."""
        return "candidate"

    def lowest_score(self, space: str) -> float:
        """Return the lowest score that is not masked: in some spaces −∞ is, since it stands for the probability 0."""
        return -sys.float_info.max if space in ("logit", "logprob", "margin") else float("-inf")

    def prediction_range(self, space: str) -> Interval:
        """Return what the space allows, of values the finite ones: two infinite ones have no difference."""
        return FINITE if space == "value" else super().prediction_range(space)

    def __call__(self, label: Any, **prediction: Any) -> Any:
        """Return the loss of each list, float64 of shape ``(n_lists,)``."""
        return _evaluate_lists(self, label, prediction, derivatives=False)[0]

    def gradient(self, label: Any, **prediction: Any) -> Any:
        """Return the derivative of each list's loss by each of its scores, in the form of the prediction."""
        return _evaluate_lists(self, label, prediction, derivatives=True)[1]

    def gradient_hessian(self, label: Any, **prediction: Any) -> Any:
        """Return the first and the second derivative of each list's loss by each of its scores."""
        return _evaluate_lists(self, label, prediction, derivatives=True)[1:]


def _one_prediction(loss: Loss, prediction: Mapping[str, Any]) -> tuple[str, Any]:
    if len(prediction) != 1 or next(iter(prediction)) not in loss.rows:
        given = ", ".join(prediction) or "none"
        raise TypeError(
            f"{loss.name} takes one prediction, as {' or '.join(f'{s}=' for s in loss.rows)}; got {given}."
        )
    ((space, score),) = prediction.items()
    return space, score


def _evaluate_lists(
    loss: ListLoss, label: Any, prediction: Mapping[str, Any], *, derivatives: bool
) -> tuple[Any, ...]:
    from fastloss_kernels.cpu.lists import evaluate_lists

    space, score = _one_prediction(loss, prediction)
    return evaluate_lists(loss, space, label, score, derivatives=derivatives)


def _evaluate(loss: Loss, label: Any, prediction: Mapping[str, Any], outputs: int) -> tuple[Any, ...]:
    from fastloss_kernels.cpu.pointwise import evaluate_arrays

    space, score = _one_prediction(loss, prediction)
    return evaluate_arrays(loss, space, label, score, outputs)
