"""From statistics to values: every metric over all slices of a grouping at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.base import LEAST_WEIGHT, WEIGHTS_TOO_SMALL, Metric, MetricValues, SliceStates
from fastloss.metrics.calibration_error import CalibrationBins
from fastloss.metrics.curves import Binned
from fastloss.metrics.quantities import Rows
from fastloss.metrics.ranked import RankedMetric
from fastloss.metrics.resolve import Evaluation, GroupEvaluation
from fastloss.states.base import StateColumn, StateSpec
from fastloss.states.counts import Count
from fastloss.states.histogram import ScoreHistograms
from fastloss.states.slices import KeyColumn, SliceTable, take_keys


@dataclass
class ModelValues:
    """One metric of one model over the slices of a grouping.

    Attributes
    ----------
    metric, model : str
        Their names.
    values : MetricValues
        The values of all slices of the table.
    n : numpy.ndarray of int64, shape (n_slices,)
        The rows that the metric uses.
    weight : numpy.ndarray of float64, shape (n_slices,)
        Their weight.
    """

    metric: str
    model: str
    values: MetricValues
    n: NDArray[np.int64]
    weight: NDArray[np.float64]

    def at(self, positions: NDArray[np.int64], n_slices: int, reason: str) -> ModelValues:
        """Return the values over the slices of another table, of which `positions` are those of these values.

        The others have no value, for this reason.
        """
        mine, source = self.values, np.full(n_slices, -1, dtype=np.int64)
        source[positions] = np.arange(len(positions))
        missing = source < 0

        def spread(array: NDArray[Any], filling: object) -> NDArray[Any]:
            if not len(array):
                return np.full(n_slices, filling, dtype=array.dtype)
            return np.where(missing, np.array(filling, dtype=array.dtype), array[source])

        values = MetricValues(
            value=spread(mine.value, np.nan),
            rows=mine.rows,
            undefined=spread(mine.undefined, True),
            reason=spread(mine.reason, 0),
            reasons=list(mine.reasons),
            evidence={
                name: found if isinstance(found, str) else spread(found, 0) for name, found in mine.evidence.items()
            },
            absent={name: spread(mask, True) for name, mask in mine.absent.items()},
        )
        if missing.any():
            for name, found in values.evidence.items():
                if not isinstance(found, str) and name not in values.absent:
                    values.absent[name] = missing
        values.explain(missing, reason, undefined=True)
        return replace(self, values=values, n=spread(self.n, 0), weight=spread(self.weight, 0.0))


class CountedSlices(NamedTuple):
    """How many slices there are, and how many of them have rows enough, where not all of them are kept."""

    n_slices: int
    of_min_rows: int


@dataclass
class GroupingValues:
    """All metrics of all models over the slices of one grouping.

    Attributes
    ----------
    keys : tuple of str
        The slice columns; ``()`` for the total.
    key_columns : list of KeyColumn
        The value of each slice in each of these columns.
    order : numpy.ndarray of int64, shape (n_shown,)
        The slices that have rows, sorted by their keys.
    columns : list of ModelValues
        Metrics in the order asked for, and for each the models.
    histograms : mapping of str to ScoreHistograms
        The scores of each model, where a metric keeps them.
    bins : mapping of str to mapping of str to callable
        For each metric that keeps bins, what gives those of each model.
    n_rows : mapping of str to numpy.ndarray of int64, shape (n_slices,), or None
        The rows that each model uses, where some metrics count groups; else the most that a metric uses.
    counted : CountedSlices or None
        How many slices there were before those here were chosen; None where none is left out.
    """

    keys: tuple[str, ...]
    key_columns: list[KeyColumn]
    order: NDArray[np.int64]
    columns: list[ModelValues]
    histograms: Mapping[str, ScoreHistograms] = field(default_factory=dict)
    bins: Mapping[str, Mapping[str, Callable[[], CalibrationBins]]] = field(default_factory=dict)
    n_rows: Mapping[str, NDArray[np.int64]] | None = None
    counted: CountedSlices | None = None

    @property
    def n_slices(self) -> int:
        """How many slices have rows."""
        return len(self.order)

    def take(self, positions: NDArray[np.int64]) -> GroupingValues:
        """Return the values of some slices alone, in this order."""

        def taken(column: ModelValues) -> ModelValues:
            values = column.values
            return replace(
                column,
                values=replace(
                    values,
                    value=values.value[positions],
                    undefined=values.undefined[positions],
                    reason=values.reason[positions],
                    evidence={k: v if isinstance(v, str) else v[positions] for k, v in values.evidence.items()},
                    absent={name: gaps[positions] for name, gaps in values.absent.items()},
                ),
                n=column.n[positions],
                weight=column.weight[positions],
            )

        return replace(
            self,
            key_columns=[take_keys(column, positions) for column in self.key_columns],
            order=np.arange(len(positions)),
            columns=list(map(taken, self.columns)),
            n_rows=None if self.n_rows is None else {model: n[positions] for model, n in self.n_rows.items()},
        )

    @cached_property
    def _texts(self) -> list[list[Any] | None]:
        return [None if isinstance(c.values, np.ndarray) else c.to_list() for c in self.key_columns]

    def key_at(self, position: int) -> dict[str, Any]:
        """Return the keys of a slice."""
        found: dict[str, Any] = {}
        for key, column, texts in zip(self.keys, self.key_columns, self._texts, strict=True):
            if column.null is not None and column.null[position]:
                found[key] = None
            elif texts is not None:
                found[key] = texts[position]
            else:
                assert isinstance(column.values, np.ndarray)
                found[key] = int(column.values[position])
        return found


class _Evaluated(Mapping[StateSpec, Any]):
    """The values of columns; each column is evaluated once, when it is asked for."""

    def __init__(self, columns: Mapping[StateSpec, StateColumn]) -> None:
        self._columns = columns
        self._found: dict[StateSpec, Any] = {}

    def __getitem__(self, spec: StateSpec) -> Any:
        if spec not in self._found:
            self._found[spec] = self._columns[spec].evaluate()
        return self._found[spec]

    def __contains__(self, spec: object) -> bool:
        return spec in self._columns

    def __iter__(self) -> Iterator[StateSpec]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def slice_states(
    evaluation: Evaluation, table: SliceTable, specs: Sequence[StateSpec], others: Sequence[SliceTable] | None = None
) -> list[SliceStates]:
    """Return, for each model, what the statistics of a table evaluate to, and of other groupings that it may read."""
    columns = _Evaluated(dict(zip(specs, table.columns, strict=True)))
    of_others = [(other.keys, slice_states(evaluation, other, specs)) for other in others or ()]

    def of_model(index: int) -> dict[tuple[str, ...], SliceStates] | None:
        return None if others is None else {keys: states[index] for keys, states in of_others}

    return [SliceStates(model, columns, table.n_slices, of_model(model.index)) for model in evaluation.models]


def one_pass_specs(evaluation: Evaluation, threads: int) -> list[StateSpec]:
    """Return what the metrics want besides in a first pass, so that they may need no second one, each once."""
    if evaluation.groupings != ((),):
        return []
    ranked = [metric for metric in evaluation.metrics if isinstance(metric, RankedMetric)]
    wanted = (metric.in_one_pass(model, threads) for metric in ranked for model in evaluation.models)
    return list(dict.fromkeys(spec for specs in wanted for spec in specs))


def refining_specs(evaluation: Evaluation, table: SliceTable, specs: Sequence[StateSpec]) -> list[StateSpec]:
    """Return what the metrics need of a second pass over the log, each once."""
    return _each_of(evaluation, table, specs, lambda metric, model: metric.refine(model))


def sharpening_specs(evaluation: Evaluation, table: SliceTable, specs: Sequence[StateSpec]) -> list[StateSpec]:
    """Return what a second pass over the log sums for bounds that are far apart, and for lost digits, each once."""
    return _each_of(evaluation, table, specs, lambda metric, model: metric.sharpen(model))


def _each_of(
    evaluation: Evaluation,
    table: SliceTable,
    specs: Sequence[StateSpec],
    wanted_by: Callable[[Metric, SliceStates], tuple[StateSpec, ...]],
) -> list[StateSpec]:
    wanted: dict[StateSpec, None] = {}
    for model in slice_states(evaluation, table, specs):
        for metric in evaluation.metrics:
            wanted |= dict.fromkeys(wanted_by(metric, model))
        model.release()
    return list(wanted)


def evaluate_table(
    evaluation: Evaluation,
    table: SliceTable,
    specs: Sequence[StateSpec],
    others: Sequence[SliceTable] | None = None,
    *,
    ordered: bool = True,
) -> GroupingValues:
    """Compute every metric over all slices of a table.

    Parameters
    ----------
    evaluation : Evaluation
        What is computed.
    table : SliceTable
        The statistics.
    specs : sequence of StateSpec
        What each column of the table holds.
    others : sequence of SliceTable, optional
        The other groupings, where the table is the total.
    ordered : bool
        Whether slices are to come in the order of their keys.
    """
    states = slice_states(evaluation, table, specs, others)
    by_model = []
    with np.errstate(all="ignore"):
        # Metrics of one model share what they read of its histogram, which is not kept for all models at once.
        for model in states:
            by_model.append([_values(metric, model) for metric in evaluation.metrics])
            model.release()
    columns = [values for of_metric in zip(*by_model, strict=True) for values in of_metric]
    order = table.sorted_positions() if ordered else np.arange(table.n_slices)
    if table.keys:
        # A slice of rows alone that no metric uses is counted for its rows, and has no values.
        used = np.zeros(table.n_slices, dtype=np.bool_)
        for spec, column in zip(specs, table.columns, strict=True):
            if isinstance(spec, Count) and isinstance(spec.counted, Rows) and spec.rows.is_used:
                used |= column.evaluate() > 0
        order = order[used[order]]
    kept = {state.model.name: (state, state.model.scores) for state in states}
    histograms = {name: state[spec] for name, (state, spec) in kept.items() if spec in state}
    bins = {
        metric.name: {state.model.name: functools.partial(metric.bins, _of_metric(metric, state)) for state in states}
        for metric in (*evaluation.metrics, *evaluation.hidden)
        if isinstance(metric, Binned)
    }
    return GroupingValues(table.keys, table.key_columns(), order, columns, histograms, bins)


class GroupTable(NamedTuple):
    """The statistics of the groups of one key, over the slices of a grouping."""

    group: GroupEvaluation
    table: SliceTable


def with_groups(
    evaluation: Evaluation,
    rows: GroupingValues,
    table: SliceTable,
    specs: Sequence[StateSpec],
    groups: Sequence[GroupTable],
) -> GroupingValues:
    """Return the values of a grouping with those of groups, all in the order in which they were asked for."""
    columns = list(rows.columns)
    for group, of_groups in groups:
        positions = table.positions_of(of_groups.coded_keys(), of_groups.n_slices)
        for column in evaluate_table(group.evaluation, of_groups, group.evaluation.specs).columns:
            column.values.evidence["group"] = group.name
            named = replace(column, metric=group.name_of(column.metric))
            columns.append(named.at(positions, table.n_slices, "no_groups"))
    order = {name: number for number, name in enumerate(evaluation.metric_names)}
    columns.sort(key=lambda column: order[column.metric])
    counted = dict(zip(specs, table.columns, strict=True))
    n_rows = {model.name: counted[Count(model.rows(), Rows())].evaluate() for model in evaluation.models}
    return replace(rows, columns=columns, n_rows=n_rows)


def _values(metric: Metric, model: SliceStates) -> ModelValues:
    values = metric.evaluate(model)
    weight = model.weight_floats(values.rows)
    n = model.count(values.rows)
    if model.model.weighted and metric.rounds_weights:
        values.explain(weight < LEAST_WEIGHT * n, WEIGHTS_TOO_SMALL, undefined=True)
    if values.n is not None:
        n, weight = values.n, weight if model.model.weighted else values.n.astype(np.float64)
    return ModelValues(metric.name, model.model.name, values, n, weight)


def _of_metric(metric: Binned, states: SliceStates) -> SliceStates:
    """Return the statistics of one metric alone, so that no others are kept with them."""
    kept = {spec: states[spec] for spec in metric.states(states.model)}
    return SliceStates(states.model, kept, states.n_slices)
