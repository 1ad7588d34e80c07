"""From a request for gradients to a checked plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastloss.columns.arrow import is_list_type
from fastloss.columns.types import check_category, check_feature, check_feature_type, is_category
from fastloss.errors import SchemaError, UsageError, nearest_names
from fastloss.expressions import split_list
from fastloss.metrics.feature_scores import FeatureScores
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import default_metrics, loss_of, parse_metric
from fastloss.plan import Plan, execution_options, plan_request, split_options
from fastloss.request import SPACES, Prediction, Request, Space
from fastloss_kernels.losses import Loss

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class GradientPlan:
    """A checked request for the gradient by features.

    Attributes
    ----------
    plan : Plan
        What is summed, and how the log is read.
    features : tuple of str
        The features in the order asked for, those that are categories among them.
    loss : Loss
        The loss.
    """

    plan: Plan
    features: tuple[str, ...]
    loss: Loss

    @property
    def scores(self) -> FeatureScores:
        """The sums over features."""
        found = next(metric for metric in self.plan.evaluation.metrics if isinstance(metric, FeatureScores))
        assert isinstance(found, FeatureScores)
        return found

    @property
    def mean_loss(self) -> MeanLoss:
        """The mean of the loss."""
        found = next(metric for metric in self.plan.evaluation.metrics if isinstance(metric, MeanLoss))
        assert isinstance(found, MeanLoss)
        return found


def make_gradient_plan(
    log: object,
    *,
    label: str,
    features: Sequence[str] | str,
    categorical: Sequence[str] | str = (),
    loss: object = None,
    diagonal: bool = False,
    **options: Any,
) -> GradientPlan:
    """Check a request for the gradient by features against the log's schema.

    Parameters
    ----------
    log, label, features, categorical, loss, diagonal
        As in `fastloss.feature_gradient`.
    **options
        Its other parameters.

    Raises
    ------
    FastlossError
        If the request is not possible as asked, a column is missing or of a wrong type, or a file is unreadable.
    """
    asked, how = split_options(options)
    prediction = _one_prediction({space: asked.pop(space, None) for space in SPACES})
    categories = _columns("categorical", categorical)
    named = tuple(dict.fromkeys((*_columns("features", features), *categories)))
    if not named:
        raise UsageError("No feature was named; name columns by features=.")
    chosen = _loss_of(loss, prediction)
    request = Request.of(label=label, predictions=prediction, metrics=[chosen], **asked)
    for name in named:
        for role, column in (
            ("label", request.label),
            ("weight", request.weight),
            ("prediction", request.models[0].column),
        ):
            if name == column:
                raise UsageError(f"The feature {name!r} is the {role}; name what the model saw, or could have seen.")

    def complete(schema: pa.Schema, request: Request) -> Request:
        for role, column in (("label", request.label_column), ("prediction", request.models[0].column)):
            if column in schema.names and is_list_type(schema.field(column).type):
                raise SchemaError(
                    f"the {role} column {column!r} holds lists; the gradient takes one {role} a row: name a column of "
                    "numbers."
                )
        kinds: dict[str, list[str]] = {"category": [], "set": [], "number": [], "list": []}
        for name in named:
            if name not in schema.names:
                raise SchemaError(f"The log has no column {name!r}. {nearest_names(name, schema.names)}")
            field = schema.field(name)
            check_feature_type(field)
            is_list = is_list_type(field.type)
            if name in categories or is_category(field.type.value_type if is_list else field.type):
                check_category(field)
                kinds["set" if is_list else "category"].append(name)
            else:
                check_feature(field)
                kinds["list" if is_list else "number"].append(name)
        numbers = tuple(name for name in named if name in (*kinds["number"], *kinds["list"]))
        scores = FeatureScores(chosen, numbers, tuple(kinds["list"]), tuple(kinds["set"]), bool(diagonal))
        by = tuple((name,) for name in kinds["category"])
        return dataclasses.replace(request, metrics=(chosen, scores), by=by)

    plan = plan_request(log, request, execution_options(**how), keep=named, complete=complete)
    return GradientPlan(plan, named, chosen)


def _columns(option: str, given: Sequence[str] | str) -> tuple[str, ...]:
    listed = split_list(given) if isinstance(given, str) else given
    if not isinstance(listed, list | tuple) or not all(isinstance(name, str) and name for name in listed):
        raise UsageError(f"{option} is {given!r}; allowed: names of columns, or expressions.")
    return tuple(dict.fromkeys(listed))


def _one_prediction(given: Mapping[Space, Any]) -> dict[str, Prediction]:
    columns = {space: column for space, column in given.items() if column is not None}
    if len(columns) != 1 or not all(isinstance(column, str) for column in columns.values()):
        found = ", ".join(f"{space}={column!r}" for space, column in columns.items()) or "none"
        raise UsageError(
            f"The gradient is of one prediction column, as {' or '.join(f'{s}=' for s in SPACES)}; got {found}."
        )
    ((space, column),) = columns.items()
    return {column: Prediction(space, column)}


def _loss_of(given: object, prediction: Mapping[str, Prediction]) -> Loss:
    ((_, found),) = prediction.items()
    metric = default_metrics([found.space])[0] if given is None else parse_metric(given)
    loss = loss_of(metric)
    if loss is None or loss.listwise:
        raise UsageError(f"{metric.name} has no gradient by row; name a pointwise loss: 'fastloss losses' lists them.")
    if not loss.differentiable:
        raise UsageError(f"{metric.name} is a step, whose gradient is 0 wherever it exists; name another loss.")
    return loss
