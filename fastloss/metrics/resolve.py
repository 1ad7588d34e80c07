"""From a request and the types of its columns to the statistics that are kept: no file is known here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from fastloss.errors import SchemaError, UsageError
from fastloss.expressions import plain_expression
from fastloss.metrics.base import Metric, ModelFacts, counted
from fastloss.metrics.conventions import RequestConventions, column_types
from fastloss.metrics.curves import metrics_of_curves
from fastloss.metrics.feature_scores import FeatureScores
from fastloss.metrics.field_calibration import FieldCalibrationError
from fastloss.metrics.gauc import GroupedAuc
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import DEFAULT_OF_GROUPS, base_name, default_metrics, parse_metric, with_group
from fastloss.metrics.presets import preset_of, reduction_of
from fastloss.metrics.quantities import Rows
from fastloss.request import ColumnType, Model, Request, one_of
from fastloss.states.base import StateSpec, bounded_bytes, bounded_task_bytes
from fastloss.states.counts import Count
from fastloss_kernels import FORMULAS_VERSION
from fastloss_kernels.domain import Interval
from fastloss_kernels.losses import LOSSES, ListwiseLoss, Loss
from fastloss_kernels.over_lists import OverLists
from fastloss_kernels.rankings import RANKINGS, Ranking


@dataclass(frozen=True)
class Evaluation:
    """A request resolved against the types of its columns: all that the engine and the result need to know.

    Attributes
    ----------
    request : Request
        What was asked.
    types : mapping of str to ColumnType
        The types of the request's columns.
    models : tuple of ModelFacts
        The predictions.
    metrics : tuple of Metric
        The metrics, as they apply to columns of these shapes.
    specs : tuple of StateSpec
        The statistics to keep of each slice, each once.
    lists : bool
        Whether predictions are lists; labels then are lists too, or indices into them.
    label_is_index : bool
        Whether labels are indices into lists.
    label_domain : {"01", "pm1"}
        The labels' domain.
    label_range : Interval
        The labels that all metrics accept, as metrics see them (0 to 1 for labels −1 and +1).
    prediction_ranges : tuple of Interval
        The predictions of each model that all metrics accept.
    list_reduction : {"row", "element"}
        How pointwise losses are taken over lists.
    conventions : RequestConventions
        How losses are evaluated.
    hidden : tuple of Metric
        Metrics whose statistics are kept for curves, and which have no values.
    groups : tuple of GroupEvaluation
        For each group key, what is computed of the lists that the rows of groups are.
    named : tuple of str
        The names of all metrics, in the order in which they were asked for.
    """

    request: Request
    types: Mapping[str, ColumnType]
    models: tuple[ModelFacts, ...]
    metrics: tuple[Metric, ...]
    specs: tuple[StateSpec, ...]
    lists: bool
    label_is_index: bool
    label_domain: Literal["01", "pm1"]
    label_range: Interval
    prediction_ranges: tuple[Interval, ...]
    list_reduction: Literal["row", "element"]
    conventions: RequestConventions
    hidden: tuple[Metric, ...] = ()
    groups: tuple[GroupEvaluation, ...] = ()
    named: tuple[str, ...] = ()

    @property
    def metric_names(self) -> list[str]:
        """The names of all metrics as a result has them, in the order asked for; those of groups once for each key."""
        of_rows = [metric.name for metric in self.metrics]
        return [
            found
            for name in self.named
            for found in ([name] if name in of_rows else [group.name_of(name) for group in self.groups])
        ]

    @property
    def losses(self) -> tuple[Loss, ...]:
        """The losses among the metrics."""
        return tuple(metric.loss for metric in self.metrics if isinstance(metric, MeanLoss))

    @property
    def features(self) -> tuple[str, ...]:
        """The columns of numbers, or of lists of them, that metrics multiply derivatives with."""
        found = (metric.features for metric in self.metrics if isinstance(metric, FeatureScores))
        return tuple(dict.fromkeys(name for features in found for name in features))

    @property
    def slices_are_features(self) -> bool:
        """Whether slices are the categories of features."""
        return any(isinstance(metric, FeatureScores) for metric in self.metrics)

    @property
    def feature_sets(self) -> tuple[str, ...]:
        """The columns of lists of categories that metrics sum derivatives by."""
        found = (metric.sets for metric in self.metrics if isinstance(metric, FeatureScores))
        return tuple(dict.fromkeys(name for sets in found for name in sets))

    @property
    def column_label_range(self) -> Interval:
        """The labels that the column may hold."""
        if self.label_domain != "pm1":
            return self.label_range
        # A label of 0 would be a soft one half; far more often it says that the domain is 0 and 1.
        low, high = 2.0 * self.label_range.low - 1.0, 2.0 * self.label_range.high - 1.0
        return Interval(low, high, *self.label_range[2:4], without_zero=True)

    @property
    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """The groupings whose statistics are kept.

        The total is read from the slices of the first, unless something is kept in less detail for all slices
        together than for one: then it has statistics of its own.
        """
        groupings = self.request.groupings
        if () not in groupings and any(map(bounded_bytes, self.specs)):
            return (*groupings, ())
        return groupings

    @property
    def bounded_bytes(self) -> int:
        """The most bytes of a state that do not grow with its slices."""
        return sum(map(bounded_bytes, self.specs)) * len(self.groupings)

    def bounded_task_bytes(self, n_rows: int | None) -> int:
        """Return the most bytes of the same in the state of a task of so many rows; None where that is not known."""
        row_bytes = 0
        for model in self.models:
            of_row = [_kept_bytes(self.types[model.column], 4), _kept_bytes(self.types[self.request.label_column], 1)]
            if self.request.weight is not None:
                of_row.append(_kept_bytes(self.types[self.request.weight], 4))
            row_bytes = max(row_bytes, sum(of_row))
        # Groupings after the first keep the order of their rows besides.
        row_bytes += 8 * (len(self.groupings) > 2)
        return sum(bounded_task_bytes(spec, n_rows, row_bytes) for spec in self.specs) * len(self.groupings)

    def asked(self) -> dict[str, Any]:
        """Return what was asked, as a reader of the result knows it."""
        request, reduction = self.request, _reduction_asked(self.request)
        return {
            "label": request.label,
            **({} if request.positive is None else {"positive": request.positive}),
            **({} if not request.where else {"where": [plain_expression(given) for given in request.where]}),
            **(
                {}
                if not request.with_columns
                else {"with_columns": {name: plain_expression(given) for name, given in request.with_columns}}
            ),
            **({} if not request.mapped else {"mapped": {m.name: m.described() for m in request.mapped}}),
            "models": {m.name: {m.space: m.column} for m in request.models},
            "weight": request.weight,
            "metrics": self.metric_names,
            "by": [list(keys) for keys in request.by],
            **({"group": [list(keys) for keys in request.group]} if request.group else {}),
            **({"min_group_size": request.min_group_size} if request.min_group_size > 1 else {}),
            **({"curves_from": [metric.name for metric in self.hidden]} if self.hidden else {}),
            "label_domain": self.label_domain,
            **({"list_reduction": self.list_reduction} if self.lists else {}),
            **({"common_rows": True} if request.common_rows else {}),
            **({} if reduction is None else {"reduction": reduction}),
            **({} if request.ties == "average" else {"ties": request.ties}),
            **({} if request.id is None else {"id": request.id}),
            **({} if request.preset is None else {"preset": request.preset}),
            "saturation": request.saturation,
            "on_bad_row": request.on_bad_row,
        }

    @cached_property
    def said(self) -> list[str]:
        """The changes that the preset makes to this request, in words."""
        return self.conventions.describe(self.losses, [model.space for model in self.models])

    def custom(self) -> list[list[str]]:
        """Return what tells apart custom losses of one name: the formula and the domains of each."""
        plain = [loss.loss if isinstance(loss, OverLists) else loss for loss in self.losses]
        return [
            [
                loss.full_name,
                loss.source,
                repr(loss.label_range),
                *(repr(loss.prediction_range(s)) for s in loss.formulas),
            ]
            for loss in plain
            if type(loss) not in (*LOSSES, *RANKINGS)
        ]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all that can change a number: what was asked, the columns' types, and the formulas' version."""
        types = {name: kind.name for name, kind in self.types.items() if name in self.request.columns}
        content = [self.asked(), types, FORMULAS_VERSION, self.custom()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class GroupEvaluation:
    """What is computed of the groups of one key: their rows are lists.

    Attributes
    ----------
    keys : tuple of str
        The columns of the key.
    is_only : bool
        Whether no other key is asked for.
    evaluation : Evaluation
        The metrics of lists, of columns that hold lists.
    """

    keys: tuple[str, ...]
    is_only: bool
    evaluation: Evaluation

    @property
    def name(self) -> str:
        """The key as it is written."""
        return ", ".join(self.keys)

    def name_of(self, metric: str) -> str:
        """Return the name that a result gives to a metric: with the key, where there are several."""
        return metric if self.is_only else with_group(metric, "+".join(self.keys))


def resolve(
    request: Request, types: Mapping[str, ColumnType], *, of_states: bool = False, of_groups: bool = False
) -> Evaluation:
    """Check a request against the types of its columns.

    Of states that were saved, other slices may be asked for than a metric reads; it has no value then. `of_groups`
    has all metrics be of groups, those too that read one number a row.

    Raises
    ------
    UsageError
        If a metric is unknown, or does not apply to these predictions.
    SchemaError
        If lists and numbers are mixed.
    """
    named = None if request.metrics is None else [parse_metric(metric) for metric in request.metrics]
    preset = preset_of(request.preset)
    reduction = _reduction_asked(request)
    list_reduction = request.list_reduction
    if list_reduction is None:
        list_reduction = "row" if preset is None else preset.list_reduction
    one_of("list_reduction", list_reduction, ("row", "element"))
    _check_spaces(named or [], request.models)
    lists, label_is_index = _shapes(types, request.label_column, request.models)
    if named is None:
        shape: Literal["row", "list", "index"] = "index" if label_is_index else "list" if lists else "row"
        named = default_metrics((m.space for m in request.models), shape)
        named += [parse_metric(name) for name in DEFAULT_OF_GROUPS] if request.group else []
        _check_spaces(named, request.models)
    of_lists = [metric for metric in named if metric.over_lists() or of_groups] if request.group else []
    groups, read_by_groups = _groups(request, types, named, of_lists, lists)
    names = tuple(dict.fromkeys(metric.name for metric in named))
    named = [metric for metric in named if metric not in of_lists]
    conventions = RequestConventions(preset, request.saturation, column_types(types), ties=request.ties)
    _check_ties([*named, *of_lists], request, types, lists)
    over_columns = [_over_columns(metric, request, lists, label_is_index, list_reduction) for metric in named]
    metrics = _each_once([_reduced(metric, reduction, conventions) for metric in over_columns])
    if not of_states:
        _check_fields(metrics, request)
    if request.common_rows and lists:
        conventions = replace(conventions, common_needs=_common_needs(metrics, conventions))
    models = tuple(
        ModelFacts(index, m.name, m.space, m.column, request.weight is not None, lists, conventions, bool(request.by))
        for index, m in enumerate(request.models)
    )
    # The slices that have rows, and what a model used, are read from the counts of the first metric's rows.
    specs = counted([spec for model in models for metric in metrics for spec in metric.states(model)])
    if groups:
        # Where no metric is of rows, their number still is.
        specs = counted([*(Count(model.rows(), Rows()) for model in models), *specs])
    hidden = metrics_of_curves(request.curves, metrics, models, specs)
    if hidden and lists:
        raise UsageError(
            f"A curve is drawn from one number a row, and column {models[0].column!r} holds lists; leave it out."
        )
    _check_spaces(hidden, request.models)
    specs = counted([*specs, *(spec for model in models for metric in hidden for spec in metric.states(model))])
    every = (*metrics, *hidden, *read_by_groups)
    return Evaluation(
        request=request,
        types=types,
        models=models,
        metrics=tuple(metrics),
        specs=specs,
        lists=lists,
        label_is_index=label_is_index,
        label_domain=_label_domain(request, metrics),
        label_range=_intersection(metric.label_range(model.space) for metric in every for model in models),
        prediction_ranges=tuple(_intersection(m.prediction_range(model.space) for m in every) for model in models),
        list_reduction=list_reduction,
        conventions=conventions,
        hidden=tuple(hidden),
        groups=groups,
        named=names,
    )


# What is to metrics of rows what they are to groups.
_OF_GROUPS = {"roc_auc": "gauc", "average_precision": "map@10", "precision": "precision@5", "recall": "recall@20"}


def _groups(
    request: Request,
    types: Mapping[str, ColumnType],
    named: Sequence[Metric],
    of_lists: Sequence[Metric],
    lists: bool,
) -> tuple[tuple[GroupEvaluation, ...], tuple[Metric, ...]]:
    """Return what is computed of groups, and the metrics as they apply to them."""
    if not request.group:
        return (), ()
    column, keys = request.models[0].column, request.group[0][0]
    if lists:
        raise UsageError(
            f"group= makes a list of the rows of each {keys}, and column {column!r} holds lists as it is; leave out "
            "group=."
        )
    if not of_lists:
        near = [_OF_GROUPS[base_name(metric)] for metric in named if base_name(metric) in _OF_GROUPS]
        raise UsageError(
            f"group= makes a list of the rows of each {keys}, and no metric here reads lists; add one that does, such "
            f"as {' or '.join(map(repr, near or ('gauc', 'ndcg@10')))}, or leave out group=."
        )
    held = (request.label_column, *(model.column for model in request.models), request.id)
    as_lists = {name: replace(kind, is_list=kind.is_list or name in held) for name, kind in types.items()}
    # The rows are checked, mapped and labelled before they are gathered.
    of_groups = replace(
        request, metrics=tuple(map(_as_asked, of_lists)), label_domain="01", mapped=None, curves=(), group=()
    )
    evaluation = resolve(of_groups, as_lists)
    is_only = len(request.group) == 1
    return tuple(GroupEvaluation(keys, is_only, evaluation) for keys in request.group), evaluation.metrics


def _as_asked(metric: Metric) -> object:
    """Return a metric as a request names it."""
    return metric.loss if isinstance(metric, MeanLoss) else metric


def _reduction_asked(request: Request) -> str | None:
    # The mean needs no word where nothing else would be done.
    if request.reduction == "mean" and request.preset is None:
        return None
    return reduction_of(request.reduction)


def _common_needs(metrics: Sequence[Metric], conventions: RequestConventions) -> tuple[str, ...]:
    losses = (metric.loss for metric in metrics if isinstance(metric, MeanLoss))
    needs = {need for loss in losses for need in conventions.needs(loss)}
    needs |= {need for metric in metrics if isinstance(metric, GroupedAuc) for need in metric.needs(conventions)}
    return tuple(sorted(needs))


def _label_domain(request: Request, metrics: Iterable[Metric]) -> Literal["01", "pm1"]:
    losses = (metric.loss for metric in metrics if isinstance(metric, MeanLoss))
    return "pm1" if any(loss.label_domain == "pm1" for loss in losses) else request.label_domain


def _intersection(ranges: Iterable[Interval]) -> Interval:
    listed = list(ranges)
    low = max(listed, key=lambda r: (r.low, r.low_open))
    high = min(listed, key=lambda r: (r.high, not r.high_open))
    return Interval(low.low, high.high, low.low_open, high.high_open, any(r.without_zero for r in listed))


def _check_spaces(metrics: Sequence[Metric], models: Sequence[Model]) -> None:
    for metric in metrics:
        for model in models:
            if model.space not in metric.spaces:
                raise UsageError(
                    f"{metric.name} reads {' or '.join(f'{s}=' for s in metric.spaces)}; "
                    f"the prediction {model.column!r} was declared {model.space}=."
                )


def _check_ties(metrics: Sequence[Metric], request: Request, types: Mapping[str, ColumnType], lists: bool) -> None:
    """Refuse an order of ties that nothing reads, and a column of ids that does not stand beside the candidates."""
    if request.ties == "average":
        return
    losses = (metric.loss for metric in metrics if isinstance(metric, MeanLoss))
    if not any(isinstance(loss, Ranking) and loss.at_ranks for loss in losses):
        raise UsageError(
            f"ties={request.ties!r} orders tied candidates for metrics at ranks, such as 'ndcg@10', and none is asked "
            "for; name one, or leave ties out."
        )
    if request.id is not None and types[request.id].is_list != lists:
        wanted = "a list with an id for each candidate" if lists else "one id a row"
        raise SchemaError(f"the id column {request.id!r} has type {types[request.id].name}; {wanted} is needed.")


def _check_fields(metrics: Sequence[Metric], request: Request) -> None:
    """Refuse a metric that reads the slices by a key which are not asked for."""
    for metric in metrics:
        if isinstance(metric, FieldCalibrationError) and (metric.by,) not in request.by:
            known = " or ".join(f"by={by[0]!r}" for by in request.by if len(by) == 1)
            asked = "no key is named" if metric.by is None else f"there are no slices by {metric.by!r} alone"
            raise UsageError(
                f"{metric.name} adds up the slices by one key, and {asked}; "
                + (f"name {known} in it, or slice by another." if known else "slice by it too, and name it in by=.")
            )


def _kept_bytes(kind: ColumnType, narrow: int) -> int:
    """Return what a number of a column takes as rows of histograms keep it: `narrow` where all numbers fit in that."""
    whole = kind.name.startswith(("int", "uint", "bool"))
    few_digits = kind.is_single or kind.name in ("bool", "int8", "uint8", "int16", "uint16")
    return narrow if (whole if narrow == 1 else few_digits) else 8


def _shapes(types: Mapping[str, ColumnType], label: str, models: Sequence[Model]) -> tuple[bool, bool]:
    """Return whether predictions are lists, and whether labels are indices into them."""
    shapes = {model.column: types[model.column].is_list for model in models}
    if len(set(shapes.values())) > 1:
        of_lists = next(column for column, is_list in shapes.items() if is_list)
        of_numbers = next(column for column, is_list in shapes.items() if not is_list)
        raise SchemaError(
            f"column {of_lists!r} holds lists and column {of_numbers!r} numbers; evaluate them one after the other."
        )
    lists = any(shapes.values())
    label_is_list = types[label].is_list
    if label_is_list and not lists:
        column = next(iter(shapes))
        raise SchemaError(
            f"the label column {label!r} holds lists, and the prediction column {column!r} has type "
            f"{types[column].name}; both must hold lists, or both numbers."
        )
    return lists, lists and not label_is_list


# What to name in place of metrics of rows where predictions are lists.
_OF_LISTS = {
    "roc_auc": "name 'gauc', or 'list_auc'",
    "average_precision": "name 'map'",
    "precision": "name 'precision@10'",
    "recall": "name 'recall@10'",
}


def _over_columns(
    metric: Metric, request: Request, lists: bool, label_is_index: bool, list_reduction: Literal["row", "element"]
) -> Metric:
    """Return a metric as it applies to columns of this shape, or refuse what does not apply."""
    column, label = request.models[0].column, request.label_column
    loss = metric.loss if isinstance(metric, MeanLoss) else None
    if isinstance(loss, OverLists):
        raise UsageError(
            f"OverLists of {metric.name} is for calls on arrays; name the loss itself, and list_reduction= beside it."
        )
    if not lists:
        if metric.over_lists():
            raise UsageError(
                f"{metric.name} reads lists of predictions, and column {column!r} holds numbers; name the column that "
                "tells which rows are a list, such as group='request_id'."
            )
        return metric
    if loss is None:
        if metric.over_lists() and label_is_index:
            raise UsageError(
                f"{metric.name} reads a label for each candidate, and the label column {label!r} holds numbers."
            )
        if metric.over_lists():
            return metric
        near = _OF_LISTS.get(base_name(metric), "name losses")
        raise UsageError(f"{metric.name} reads one number a row, and column {column!r} holds lists; {near}.")
    if isinstance(loss, ListwiseLoss) and label_is_index and loss.label_kind != "index":
        raise UsageError(
            f"{metric.name} reads a label for each candidate, and the label column {label!r} holds numbers; "
            "for the index of the right candidate use 'sparse_categorical_crossentropy'."
        )
    if isinstance(loss, ListwiseLoss) and not label_is_index and loss.label_kind == "index":
        raise UsageError(
            f"{metric.name} reads the index of the right candidate, and the label column {label!r} holds lists; "
            "for a label of each candidate use 'categorical_crossentropy'."
        )
    if isinstance(loss, ListwiseLoss):
        return metric
    if label_is_index:
        raise UsageError(
            f"{metric.name} reads a label for each candidate, and the label column {label!r} holds numbers, column "
            f"{column!r} lists; both must hold lists."
        )
    return MeanLoss(OverLists(loss, list_reduction))


def _each_once(metrics: Sequence[Metric]) -> list[Metric]:
    """Leave out metrics named twice; two that are not the same must not share a name."""
    known: dict[str, Metric] = {}
    for metric in metrics:
        if known.setdefault(metric.name, metric) != metric:
            raise UsageError(
                f"Two different losses are called {metric.name!r}; define them with names of their own, "
                "or evaluate them one after the other."
            )
    return list(known.values())


def _reduced(metric: Metric, reduction: str | None, conventions: RequestConventions) -> Metric:
    """Return a metric with the reduction and the conventions that were asked for, where it is a loss."""
    if not isinstance(metric, MeanLoss):
        return metric
    # A ranking metric is a mean over lists, whatever is done with losses.
    asked = "mean" if isinstance(metric.loss, Ranking) else conventions.reduction(metric.loss, reduction)
    return MeanLoss(metric.loss, asked, conventions)
