"""A loss as LightGBM and XGBoost take it: an objective and a metric of the user's own.

Neither library is imported. Which of them calls is read from what it passes:

==========================  =============================================  ======================
caller                      arguments                                      what a metric returns
==========================  =============================================  ======================
``lightgbm.train``          ``(scores, Dataset)``                          ``(name, value, False)``
LightGBM's estimators       ``(labels, scores, weight)``; a metric also    ``(name, value, False)``
                            gets ``group``, all of them by position
``xgboost.train``           ``(scores, DMatrix)``                          ``(name, value)``
XGBoost's estimators        ``(labels, scores)`` and, where there are      ``value``; the name is its
                            weights, ``sample_weight=``                    ``__name__``
==========================  =============================================  ======================

LightGBM counts the parameters of a callable to see what to pass, XGBoost looks for one called ``sample_weight``: so
the two signatures below are part of the contract. Neither library multiplies such gradients and hessians by the row
weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.errors import DataError, UsageError
from fastloss.metrics.names import loss_of, parse_metric
from fastloss_kernels.cpu.sums import make_add_terms
from fastloss_kernels.domain import Interval
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS, ExactSum
from fastloss_kernels.losses import BinaryLoss, ListwiseLoss, Loss

Floats = NDArray[np.float64]

# What the score of a booster is: the first of these spaces that the loss has a formula for.
SCORE_SPACES = ("logit", "margin", "value")
# XGBoost's own floor, of its logistic objective.
HESSIAN_FLOOR = 1e-16
NON_NEGATIVE = Interval(0.0, float("inf"), high_open=True)


def objective(loss: str | Loss, /, **parameters: Any) -> Objective:
    """Return a loss as a custom objective for LightGBM and XGBoost, with the metric that goes with it.

    The same object serves ``lightgbm.train(params={"objective": o})``, ``xgboost.train(obj=o)`` and ``objective=o``
    of both libraries' estimators; ``o.metric`` serves ``feval=``, ``custom_metric=`` and ``eval_metric=``.

    Parameters
    ----------
    loss : str or Loss
        A loss of one row: a name such as ``"log_loss"``, or an object of `fastloss.losses`.
    **parameters
        Parameters of the loss: ``objective("binary_focal_crossentropy", gamma=2)``.

    Returns
    -------
    Objective
        Called by the library, it returns gradients and hessians, float32 of shape ``(n_rows,)``, each multiplied by
        its row's weight.

    Raises
    ------
    UsageError
        If the loss or a parameter is unknown, or the loss is one of lists, has no gradient, or refuses some numbers.

    Notes
    -----
    The booster's score is the logit where the loss has that space, else the margin, else the predicted value. Where a
    value must be positive (``poisson``, ``gamma``, ``tweedie``) the score is its logarithm, ``log_input=True``, as in
    both libraries' own objectives.

    Trees divide by sums of hessians, which must be positive. So the hessian of a row is

    - the second derivative of the loss where that is positive, at least 1e-16;
    - 1 in every row for losses that are made of straight lines (absolute and percentage error, pinball, hinge), as in
      both libraries' absolute and quantile errors: a leaf then moves by its mean gradient;
    - 1 on the straight parts of a loss that is curved elsewhere (Huber beyond δ), as in LightGBM's Huber loss;
    - 1e-16 where the second derivative is negative (focal loss far from the label) or the loss is flat.

    The libraries' own Poisson objectives multiply their hessian by ``exp(max_delta_step)``, which this does not, and
    their absolute and quantile errors move each leaf to a quantile of its rows afterwards, which no custom objective
    can. The libraries' own squared error is ``half_squared_error``.

    Training starts from score 0 in LightGBM, and in XGBoost from ``base_score`` taken through the ``objective`` of the
    parameters, which is 0.5 unless something else is said: ``{"objective": "binary:logistic", "base_score": 0.5}``
    starts a logit from 0 and predicts probabilities, ``{"base_score": 0}`` starts a value from 0. LightGBM predicts
    raw scores after a custom objective.

    Examples
    --------
    >>> focal = objective("binary_focal_crossentropy", gamma=2)
    >>> booster = lightgbm.train({"objective": focal}, data, feval=focal.metric)  # doctest: +SKIP
    >>> start = {"objective": "binary:logistic", "base_score": 0.5}
    >>> booster = xgboost.train(start, data, obj=focal, custom_metric=focal.metric)  # doctest: +SKIP
    """
    metric = parse_metric(loss)
    named = loss_of(metric)
    if named is None:
        raise UsageError(f"{metric.name} is a metric; an objective needs a loss, such as 'log_loss'.")
    chosen = _with_parameters(named, parameters)
    if isinstance(chosen, ListwiseLoss):
        raise UsageError(f"{chosen.name} is a listwise loss; an objective needs a pointwise one, such as 'log_loss'.")
    space = next((space for space in SCORE_SPACES if space in chosen.formulas), None)
    if space is None:
        raise UsageError(
            f"{chosen.name} takes {' or '.join(chosen.formulas)}; a booster's score needs "
            f"{', '.join(SCORE_SPACES[:-1])} or {SCORE_SPACES[-1]}."
        )
    if not _is_unbounded(chosen, space) and any(field.name == "log_input" for field in fields(chosen)):
        chosen = _with_parameters(chosen, {"log_input": True})
    if not _is_unbounded(chosen, space):
        raise UsageError(
            f"{chosen.name} needs {chosen.prediction_range(space).describe('prediction')}, and a booster's score may "
            "be any number; transform the labels and use a loss of any number, such as 'mean_squared_error'."
        )
    if not chosen.differentiable:
        raise UsageError(f"{chosen.name} has gradient 0 everywhere, so no booster can learn from it; use 'log_loss'.")
    return Objective(chosen, space, is_straight=chosen.hessian == "zero")


def _with_parameters(loss: Loss, parameters: dict[str, Any]) -> Loss:
    known = [field.name for field in fields(loss)]
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise UsageError(f"{loss.name} has no parameter {unknown[0]!r}; its parameters: {', '.join(known) or 'none'}.")
    try:
        return replace(loss, **parameters)
    except (ValueError, TypeError, OverflowError) as error:
        raise UsageError(str(error)) from None


def _is_unbounded(loss: Loss, space: str) -> bool:
    allowed = loss.prediction_range(space)
    return allowed.low == float("-inf") and allowed.high == float("inf")


@dataclass(frozen=True)
class Objective:
    """Gradients and hessians of a loss, called by a boosting library; see `objective`.

    Attributes
    ----------
    loss : Loss
        The loss of one row.
    space : {"logit", "margin", "value"}
        What the booster's raw score is.
    is_straight : bool
        Whether the second derivative is 0 everywhere, so that the hessian is 1.
    """

    loss: Loss
    space: str
    is_straight: bool = False

    @property
    def metric(self) -> ObjectiveMetric:
        """The weighted mean of the loss, Σw·l/Σw, as a custom metric; it reads raw scores."""
        return ObjectiveMetric(self.loss, self.space)

    def __call__(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return gradient and hessian of each row, each times the row's weight.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n_rows,)
            Labels and raw scores; or, from the libraries' training functions, raw scores and the data set.
        sample_weight : array-like of shape (n_rows,), optional
            Row weights, finite and at least 0.

        Raises
        ------
        DataError
            If a label or weight is outside its domain, or a gradient is not finite.
        UsageError
            If there is not one score for each row.
        """
        label, score, weight = _read(self.loss, y_true, y_pred, sample_weight)
        gradient, hessian = self.loss.gradient_hessian(label, **{self.space: score})
        # Infinities and NaN are reported below; comparisons with NaN need no warning of their own.
        with np.errstate(invalid="ignore", over="ignore"):
            if self.is_straight:
                hessian = hessian + 1.0
            else:
                hessian = np.where((hessian == 0.0) & (gradient != 0.0), 1.0, np.maximum(hessian, HESSIAN_FLOOR))
            if weight is not None:
                # A row of weight 0 counts for nothing, though its gradient may be infinite.
                gradient, hessian = (np.where(weight == 0.0, 0.0, weight * d) for d in (gradient, hessian))
            # Both libraries hold them so.
            gradient, hessian = gradient.astype(np.float32), hessian.astype(np.float32)
        unusable = ~(np.isfinite(gradient) & np.isfinite(hessian))
        if unusable.any():
            row = int(np.argmax(unusable))
            raise DataError(
                f"{self.loss.name}: row {row} has gradient {float(gradient[row])!r} and hessian "
                f"{float(hessian[row])!r} at score {float(score[row])!r}; allowed: finite float32 numbers; lower the "
                "learning rate or set max_delta_step."
            )
        return gradient, hessian


@dataclass(frozen=True)
class ObjectiveMetric:
    """The weighted mean of a loss as a custom metric, to minimise; its value is that of `fastloss.evaluate`.

    It takes its input for raw scores. Those are what both libraries pass beside a custom objective; beside an
    objective of their own they pass what that predicts, such as probabilities.
    """

    loss: Loss
    space: str

    @property
    def __name__(self) -> str:
        """The loss with its changed parameters, without spaces: XGBoost splits its report at them."""
        return self.loss.full_name.replace(" ", "")

    def __call__(self, y_true: Any, y_pred: Any, *weight_and_group: Any, sample_weight: Any = None) -> Any:
        """Return Σw·l/Σw in the form that the caller expects.

        Parameters
        ----------
        y_true, y_pred : array-like of shape (n_rows,)
            Labels and raw scores; or, from the libraries' training functions, raw scores and the data set.
        *weight_and_group : array-like or None
            What LightGBM's estimators pass: the row weights, and the groups of a ranking, which are not used.
        sample_weight : array-like of shape (n_rows,), optional
            Row weights, finite and at least 0.

        Returns
        -------
        float or tuple
            ``(name, value, False)`` for LightGBM, ``(name, value)`` for ``xgboost.train``, else the value; NaN where
            all weights are 0 or there are no rows.

        Raises
        ------
        DataError
            If a label or weight is outside its domain.
        UsageError
            If there is not one score for each row.
        """
        weight = weight_and_group[0] if weight_and_group else sample_weight
        label, score, weight = _read(self.loss, y_true, y_pred, weight)
        losses = self.loss(label, **{self.space: score})
        if weight is None:
            value = _exact_sum(losses) / ExactSum.from_count(len(losses))
        else:
            # A row of weight 0 counts for nothing, though its loss may be infinite.
            used = weight != 0.0
            with np.errstate(over="ignore"):
                terms = weight[used] * losses[used]
            value = _exact_sum(terms) / _exact_sum(weight)
        if weight_and_group:
            return self.__name__, value, False
        if hasattr(y_pred, "get_label"):
            return (self.__name__, value) if _is_of_xgboost(y_pred) else (self.__name__, value, False)
        return value


def _exact_sum(terms: Floats) -> ExactSum:
    words = np.zeros(ACCUMULATOR_WORDS, dtype=np.int64)
    make_add_terms()(terms, words)
    return ExactSum.from_words(words)


def _is_of_xgboost(data: object) -> bool:
    return any(parent.__module__.partition(".")[0] == "xgboost" for parent in type(data).__mro__)


def _read(loss: Loss, first: Any, second: Any, weight: Any) -> tuple[Floats, Floats, Floats | None]:
    """Return labels, scores and weights, checked, from either order of arguments."""
    if hasattr(second, "get_label"):
        first, second, weight = second.get_label(), first, second.get_weight()
        # XGBoost says with an empty array that there are no weights.
        weight = None if weight is None or len(weight) == 0 else weight
    label, score = np.array(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    _require_one_a_row(loss, "score", score, label)
    _require_labels(loss, label)
    if weight is None:
        return label, score, None
    weights = np.array(weight, dtype=np.float64)
    _require_one_a_row(loss, "weight", weights, label)
    _require_in_range("weight", weights, NON_NEGATIVE)
    return label, score, weights


def _require_one_a_row(loss: Loss, name: str, values: Floats, label: Floats) -> None:
    if label.ndim != 1 or values.shape != label.shape:
        raise UsageError(
            f"{loss.name}: the labels have shape {label.shape}, the {name}s {values.shape}; allowed: one {name} for "
            "each row, so a single-output model of labelled rows."
        )


def _require_in_range(name: str, values: Floats, allowed: Interval, hint: str = "") -> None:
    low, high = allowed.bounds
    # Comparisons that NaN fails.
    outside = ~((values >= low) & (values <= high))
    if allowed.without_zero:
        outside |= values == 0.0
    if outside.any():
        row = int(np.argmax(outside))
        raise DataError(f"{name} of row {row} is {float(values[row])!r}; allowed: {allowed.describe(name)}.{hint}")


def _require_labels(loss: Loss, label: Floats) -> None:
    if loss.label_domain == "pm1":
        # A label of 0 would be one half; far more often it says that an estimator has renumbered the classes.
        hint = " If labels are 0 and 1, as classifiers number their classes, leave out label_domain='pm1'."
        _require_in_range("label", label, Interval(-1.0, 1.0, without_zero=True), hint)
        return
    hint = " If labels are -1 and +1, use label_domain='pm1'." if isinstance(loss, BinaryLoss) else ""
    _require_in_range("label", label, loss.label_range, hint)
