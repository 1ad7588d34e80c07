"""From a request to a checked plan: every mistake that the schema and the footers can show is found here."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from fastloss.columns.arrow import check_key_type, check_list_type, check_numeric_type, is_list_type
from fastloss.errors import ReadError, SchemaError, UsageError, nearest_names
from fastloss.metrics.form import LABEL, ROWS, WEIGHT, Metric, Term
from fastloss.metrics.means import MeanLoss
from fastloss.metrics.names import default_metrics, parse_metric, split_names
from fastloss.metrics.presets import Preset, Reduction, preset_of, reduction_of
from fastloss.sources import Source, SourceSummary, open_source
from fastloss.sources.base import ReadOptions
from fastloss_kernels.domain import SATURATION_EPSILON, UNSATURATED, Interval
from fastloss_kernels.domain import SPACES as SPACE_BOUNDS
from fastloss_kernels.exact_sum import ACCUMULATOR_WORDS
from fastloss_kernels.losses import LOSSES, ListwiseLoss, Loss
from fastloss_kernels.over_lists import OverLists

Space = Literal["logit", "prob", "logprob", "margin", "value"]
SPACES: tuple[Space, ...] = ("logit", "prob", "logprob", "margin", "value")
DEFAULT_MEMORY = 512 << 20
# Long enough that the interpreter's share of a batch is small, short enough that its columns stay in the cache.
_LARGEST_BATCH_ROWS = 262_144
_SMALLEST_BATCH_ROWS = 4_096
_SMALLEST_TASK_BYTES = 4 << 20
# What the process takes beside columns, buffers and states: the compiler, compiled kernels, the allocators' slack.
_FIXED_BYTES = 160 << 20
_KEY_BYTES = 400
# What one value of a result takes with its evidence, as objects and as text.
_VALUE_BYTES = 2_000
# Numbers that a thread holds for each row of a batch beside its columns: terms, cell numbers, their order, copies.
_SCRATCH_COLUMNS = 8
# What a candidate takes as it is decoded, as float64 of label and score, and as what a loss derives from it.
_CANDIDATE_BYTES = 80


@dataclass(frozen=True)
class Prediction:
    """A prediction column and the space of its numbers."""

    space: Space
    column: str


def logit(column: str) -> Prediction:
    """Declare a column of logits, log(p / (1 − p))."""
    return Prediction("logit", column)


def prob(column: str) -> Prediction:
    """Declare a column of probabilities in [0, 1]."""
    return Prediction("prob", column)


def logprob(column: str) -> Prediction:
    """Declare a column of natural logarithms of probabilities, at most 0."""
    return Prediction("logprob", column)


def margin(column: str) -> Prediction:
    """Declare a column of decision values, as a support-vector machine gives them."""
    return Prediction("margin", column)


def value(column: str) -> Prediction:
    """Declare a column of predictions in the unit of the label."""
    return Prediction("value", column)


@dataclass(frozen=True)
class Model:
    """A named prediction."""

    name: str
    space: Space
    column: str


@dataclass(frozen=True)
class Execution:
    """How the log is read; none of it can change a digit of the result."""

    reader: Literal["pyarrow", "polars"]
    verify_checksums: bool
    threads: int
    memory_bytes: int
    batch_rows: int
    on_bad_file: Literal["raise", "skip"]


@dataclass(frozen=True)
class Plan:
    """A checked request.

    Attributes
    ----------
    label_range : Interval
        The labels that all metrics accept, as metrics see them (0 to 1 for labels −1 and +1).
    prediction_ranges : tuple of Interval
        The predictions of each model that all metrics accept.
    terms : tuple of (int, Term)
        The sums to keep: the index of the model, or −1 for a sum over rows that all models use alike.
    counts : tuple of (int, Term)
        The rows to count: first those that each model uses, then the saturated ones.
    groupings : tuple of tuple of str
        The slice keys of each grouping that is summed; ``((),)`` when there are no slices. The total is read from
        the first.
    lists : bool
        Whether predictions are lists; labels then are lists too, or indices into them.
    label_is_index : bool
        Whether labels are indices into lists.
    keep : tuple of str
        Columns that are read only to be passed on.
    reduction : str or None
        How losses are summed up over rows; None if that was left to the preset, or to the mean.
    preset : Preset or None
        The conventions of another system.
    """

    label: str
    models: tuple[Model, ...]
    weight: str | None
    metrics: tuple[Metric, ...]
    by: tuple[tuple[str, ...], ...]
    label_domain: Literal["01", "pm1"]
    list_reduction: Literal["row", "element"]
    saturation: Literal["clip", "exact", "error"]
    on_bad_row: Literal["raise", "drop"]
    execution: Execution
    source: Source
    summary: SourceSummary
    types: Mapping[str, str]
    label_range: Interval
    prediction_ranges: tuple[Interval, ...]
    terms: tuple[tuple[int, Term], ...]
    counts: tuple[tuple[int, Term], ...]
    lists: bool = False
    label_is_index: bool = False
    keep: tuple[str, ...] = ()
    reduction: Reduction | None = None
    preset: Preset | None = None

    @property
    def groupings(self) -> tuple[tuple[str, ...], ...]:
        """The groupings that are summed."""
        return self.by or ((),)

    @property
    def keys(self) -> tuple[str, ...]:
        """The slice columns, each once."""
        return tuple(dict.fromkeys(key for keys in self.by for key in keys))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once."""
        weight = () if self.weight is None else (self.weight,)
        return tuple(dict.fromkeys((self.label, *(m.column for m in self.models), *weight, *self.keys, *self.keep)))

    def epsilon_of(self, model: Model) -> float:
        """Return the smallest probability of an outcome before a model's loss is clipped; 0 if it never is."""
        if self.saturation != "clip":
            return 0.0
        if self.preset is None:
            return SATURATION_EPSILON
        if self.preset.epsilon is not None:
            return self.preset.epsilon
        return _machine_epsilon(self.source.schema.field(model.column).type)

    def clip(self, model: Model) -> tuple[float, float] | None:
        """Return what the preset clips a model's predictions to before a loss that can saturate sees them."""
        epsilon = self.epsilon_of(model)
        if self.preset is None or not self.preset.clips_both_sides or epsilon == 0.0:
            return None
        bounds = {"prob": (epsilon, 1.0 - epsilon), "logprob": (math.log(epsilon), math.log1p(-epsilon))}
        return bounds.get(model.space)

    def unsaturated(self, model: Model) -> tuple[float, float]:
        """Return predictions of a model between which none is clipped or rules out an outcome."""
        low, high = UNSATURATED.get(model.space, SPACE_BOUNDS[model.space])
        epsilon = 2.0 * self.epsilon_of(model)
        if model.space == "prob":
            return max(low, epsilon), min(high, 1.0 - epsilon)
        if model.space == "logprob" and epsilon > 0.0:
            return max(low, math.log(epsilon)), min(high, -epsilon)
        return low, high

    def form(self, loss: Loss) -> Loss:
        """Return the loss whose formula is computed for a loss: what the preset has stand in for it, or itself."""
        return loss if self.preset is None else self.preset.form(loss)

    @property
    def buffer_bytes(self) -> int:
        """Memory of all threads' buffers for the batch in work."""
        return _buffer_bytes(self.execution, len(self.columns))

    @property
    def read_options(self) -> ReadOptions:
        """What the source needs to know."""
        return _read_options(self.execution, len(self.columns), self.by)

    @property
    def bytes_per_cell(self) -> int:
        """Memory that one slice takes: in each state that is alive at once, and as values of the result."""
        state = 8 * (len(self.counts) + len(self.terms) * ACCUMULATOR_WORDS) + _KEY_BYTES
        # The running tasks' states, the merged one, and twice that while it grows.
        states = self.execution.threads + 3
        return states * state + _VALUE_BYTES * len(self.metrics) * len(self.models)

    @property
    def longest_list(self) -> int:
        """How many candidates a list may have: as many as a thread's part of the memory has room for."""
        return max(self.execution.batch_rows, self.read_options.task_bytes // _CANDIDATE_BYTES)

    @property
    def cells_bytes(self) -> int:
        """The part of the memory that slices may take: a quarter, when there are slices."""
        return _cells_bytes(self.execution.memory_bytes, self.by)

    @property
    def max_cells(self) -> int:
        """How many slices fit in that part."""
        return max(1, self.cells_bytes // self.bytes_per_cell)

    @property
    def memory_bound(self) -> int:
        """Upper bound of the memory that the scan takes beyond the imported libraries, bytes."""
        options = self.read_options
        task = options.task_bytes if self.summary.largest_task_bytes is None else self.summary.largest_task_bytes
        return _FIXED_BYTES + self.execution.threads * task + self.buffer_bytes + self.cells_bytes

    def asked(self) -> dict[str, Any]:
        """Return what was asked, as plain values: all that can change a number, and nothing else."""
        return {
            "label": self.label,
            "models": {m.name: {m.space: m.column} for m in self.models},
            "weight": self.weight,
            "metrics": [metric.label for metric in self.metrics],
            "by": [list(keys) for keys in self.by],
            "label_domain": self.label_domain,
            **({"list_reduction": self.list_reduction} if self.lists else {}),
            **({} if self.reduction is None else {"reduction": self.reduction}),
            **({} if self.preset is None else {"preset": self.preset.name}),
            "saturation": self.saturation,
            "on_bad_row": self.on_bad_row,
        }

    @property
    def conventions(self) -> list[str]:
        """What the preset does to what was asked, in words."""
        if self.preset is None:
            return []
        losses = [metric.loss for metric in self.metrics if isinstance(metric, MeanLoss)]
        spaces = [model.space for model in self.models]
        return self.preset.conventions(losses, spaces, clips=self.saturation == "clip")

    def defined(self) -> list[list[str]]:
        """Return what tells apart defined losses of one name: the formula and the domains of each."""
        losses = [metric.loss for metric in self.metrics if isinstance(metric, MeanLoss)]
        plain = [loss.loss if isinstance(loss, OverLists) else loss for loss in losses]
        return [
            [
                loss.full_name,
                loss.source,
                repr(loss.label_range),
                *(repr(loss.prediction_range(s)) for s in loss.formulas),
            ]
            for loss in plain
            if type(loss) not in LOSSES
        ]

    @property
    def fingerprint(self) -> str:
        """A hash of what was asked."""
        content = json.dumps([self.asked(), self.defined()] if self.defined() else self.asked(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def make_plan(
    log: object,
    *,
    label: str,
    predictions: Mapping[str, Prediction] | None = None,
    logit: str | Mapping[str, str] | None = None,
    prob: str | Mapping[str, str] | None = None,
    logprob: str | Mapping[str, str] | None = None,
    margin: str | Mapping[str, str] | None = None,
    value: str | Mapping[str, str] | None = None,
    weight: str | None = None,
    metrics: Sequence[object] | object | None = None,
    by: Sequence[str | Sequence[str]] | str | None = (),
    keep: Sequence[str] = (),
    label_domain: str = "01",
    reduction: str | None = None,
    list_reduction: str | None = None,
    preset: str | None = None,
    saturation: str = "clip",
    on_bad_row: str = "raise",
    on_bad_file: str = "raise",
    reader: str = "pyarrow",
    verify_checksums: bool = False,
    memory: int | str = DEFAULT_MEMORY,
    threads: int | None = None,
    batch_rows: int | None = None,
    device: str = "cpu",
) -> Plan:
    """Check a request against the log's schema; parameters are those of `fastloss.evaluate`.

    Besides, `keep` names columns of any type that are read only to be passed on.
    """
    if device != "cpu":
        raise UsageError(f"device is {device!r}; allowed in this version: 'cpu'.")
    spaces = {"logit": logit, "prob": prob, "logprob": logprob, "margin": margin, "value": value}
    models = _models(predictions, spaces)
    given = split_names(metrics) if isinstance(metrics, str) else metrics
    given = given if given is None or isinstance(given, list | tuple) else [given]
    named = None if given is None else [parse_metric(m) for m in given]
    if named is not None and not named:
        raise UsageError("No metric was asked for; name at least one, such as 'log_loss'.")
    conventions = preset_of(preset)
    if list_reduction is None:
        list_reduction = "row" if conventions is None else conventions.list_reduction
    lists_reduced: Literal["row", "element"] = _one_of("list_reduction", list_reduction, ("row", "element"))
    # The mean needs no word where nothing else would be done.
    reduction_asked = None if reduction == "mean" and conventions is None else reduction_of(reduction)
    groupings = _groupings(by)
    _check_spaces(named or [], models)
    keys = list(dict.fromkeys(key for grouping in groupings for key in grouping))
    for column in (label, weight, *(m.column for m in models)):
        if column is not None and not isinstance(column, str):
            raise UsageError(f"A column is named by {column!r}; allowed: a string.")
    numeric = list(dict.fromkeys([label, *(m.column for m in models), *([] if weight is None else [weight])]))
    memory_bytes = parse_bytes(memory)
    room = memory_bytes - _cells_bytes(memory_bytes, groupings) - _FIXED_BYTES
    columns = list(dict.fromkeys([*numeric, *keys, *keep]))
    chosen_threads, batch_rows = _threads_and_batch_rows(threads, batch_rows, memory_bytes, room, len(columns))
    execution = Execution(
        reader=_one_of("reader", reader, ("pyarrow", "polars")),
        verify_checksums=bool(verify_checksums),
        threads=chosen_threads,
        memory_bytes=memory_bytes,
        batch_rows=batch_rows,
        on_bad_file=_one_of("on_bad_file", on_bad_file, ("raise", "skip")),
    )
    options = _read_options(execution, len(columns), groupings)
    with suggesting_to_skip(execution.on_bad_file):
        source = open_source(log, options, columns)
    types = _check_columns(source.schema, numeric, keys, keep, weight)
    lists, label_is_index = _shapes(source.schema, label, models)
    if named is None:
        named = default_metrics((m.space for m in models), "index" if label_is_index else "list" if lists else "row")
        _check_spaces(named, models)
    chosen = [_over_columns(metric, label, models, lists, label_is_index, lists_reduced) for metric in named]
    chosen = [_reduced(metric, reduction_asked, conventions) for metric in chosen]
    chosen = _each_once(chosen)
    domain = _label_domain(_one_of("label_domain", label_domain, ("01", "pm1")), chosen)
    with suggesting_to_skip(execution.on_bad_file):
        summary = source.summary(columns, options)
    plan = Plan(
        label=label,
        models=tuple(models),
        weight=weight,
        metrics=tuple(chosen),
        by=groupings,
        label_domain=domain,
        list_reduction=lists_reduced,
        saturation=_one_of("saturation", saturation, ("clip", "exact", "error")),
        on_bad_row=_one_of("on_bad_row", on_bad_row, ("raise", "drop")),
        execution=execution,
        source=source,
        summary=summary,
        types=types,
        label_range=_intersection(metric.label_range(model.space) for metric in chosen for model in models),
        prediction_ranges=tuple(_intersection(m.prediction_range(model.space) for m in chosen) for model in models),
        terms=_terms(models, chosen, weighted=weight is not None),
        counts=_counts(models, chosen),
        lists=lists,
        label_is_index=label_is_index,
        keep=tuple(keep),
        reduction=reduction_asked,
        preset=conventions,
    )
    while plan.memory_bound > memory_bytes and threads is None and plan.execution.threads > 1:
        # Many cores share the memory: as many of them read as there is room for pieces of the largest row group.
        fewer = dataclasses.replace(plan.execution, threads=plan.execution.threads - 1)
        summary = source.summary(columns, _read_options(fewer, len(columns), groupings))
        plan = dataclasses.replace(plan, execution=fewer, summary=summary)
    if plan.memory_bound > memory_bytes:
        raise UsageError(
            f"memory is {format_bytes(memory_bytes)}, and reading the largest row group in the smallest pieces needs "
            f"{format_bytes(plan.memory_bound)}. Raise memory or lower threads."
        )
    return plan


@contextlib.contextmanager
def suggesting_to_skip(on_bad_file: str) -> Iterator[None]:
    """Add to a ReadError what the user can do about it."""
    try:
        yield
    except ReadError as error:
        if on_bad_file == "skip":
            raise
        text = str(error).rstrip(".")
        raise ReadError(f"{text}. Mend or remove it; on_bad_file='skip' leaves out what cannot be read.") from error


def _buffer_bytes(execution: Execution, n_columns: int) -> int:
    return execution.threads * execution.batch_rows * 8 * (n_columns + _SCRATCH_COLUMNS)


def _read_options(execution: Execution, n_columns: int, groupings: Sequence[object]) -> ReadOptions:
    room = execution.memory_bytes - _FIXED_BYTES - _cells_bytes(execution.memory_bytes, groupings)
    return ReadOptions(
        reader=execution.reader,
        verify_checksums=execution.verify_checksums,
        batch_rows=execution.batch_rows,
        task_bytes=max(_SMALLEST_TASK_BYTES, (room - _buffer_bytes(execution, n_columns)) // execution.threads),
        skip_bad_files=execution.on_bad_file == "skip",
    )


def _cells_bytes(memory_bytes: int, groupings: Sequence[object]) -> int:
    return memory_bytes // 4 if groupings else 0


def _threads_and_batch_rows(
    threads: int | None, batch_rows: int | None, memory_bytes: int, room: int, n_columns: int
) -> tuple[int, int]:
    """Choose what the user left open so that the smallest pieces of a log fit in the memory; refuse what cannot."""
    row_bytes = 8 * (n_columns + _SCRATCH_COLUMNS)
    rows = _SMALLEST_BATCH_ROWS if batch_rows is None else _positive("batch_rows", batch_rows)
    thread_bytes = _SMALLEST_TASK_BYTES + rows * row_bytes
    chosen = max(1, min(available_cpus(), room // thread_bytes)) if threads is None else _positive("threads", threads)
    if room < chosen * thread_bytes:
        raise UsageError(
            f"memory is {format_bytes(memory_bytes)}; {chosen} thread{'s' if chosen > 1 else ''} with batches of "
            f"{rows} rows need {format_bytes(memory_bytes + chosen * thread_bytes - room)}. Raise memory"
            f"{' or lower threads' if chosen > 1 else ''}."
        )
    if batch_rows is None:
        # A quarter for the batches in work leaves the rest to what is read.
        rows = min(_LARGEST_BATCH_ROWS, max(rows, room // (4 * chosen * row_bytes)))
    return chosen, rows


def _models(
    predictions: Mapping[str, Prediction] | None, spaces: Mapping[str, str | Mapping[str, str] | None]
) -> list[Model]:
    models = []
    if predictions is not None and not isinstance(predictions, Mapping):
        raise UsageError(f"predictions is {predictions!r}; allowed: predictions by name, such as {{'a': logit('s')}}.")
    for name, prediction in (predictions or {}).items():
        if not isinstance(prediction, Prediction):
            raise UsageError(f"predictions[{name!r}] is {prediction!r}; allowed: logit('column'), prob('column'), ….")
        models.append(Model(name, prediction.space, prediction.column))
    for space in SPACES:
        given = spaces[space]
        named = {given: given} if isinstance(given, str) else (given or {})
        if not isinstance(named, Mapping):
            raise UsageError(f"{space} is {given!r}; allowed: a column, or columns by the names of their models.")
        models += [Model(name, space, column) for name, column in named.items()]
    if not models:
        raise UsageError(f"No prediction was given; name a column with {', '.join(f'{s}=' for s in SPACES)}.")
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UsageError(f"Two predictions are called {max(names, key=names.count)!r}; give each a name of its own.")
    return models


def _groupings(by: Sequence[str | Sequence[str]] | str | None) -> tuple[tuple[str, ...], ...]:
    given = [by] if isinstance(by, str) else () if by is None else by
    groupings = []
    if not isinstance(given, list | tuple):
        raise UsageError(f"by is {by!r}; allowed: a column, or a list of columns and of tuples of columns.")
    for keys in given:
        grouping = tuple(keys) if isinstance(keys, list | tuple) else (keys,)
        if not grouping or not all(isinstance(k, str) for k in grouping) or len(set(grouping)) < len(grouping):
            raise UsageError(f"by holds {keys!r}; allowed: a column, or several different columns for their cross.")
        groupings.append(grouping)
    return tuple(dict.fromkeys(groupings))


def _label_domain(given: Literal["01", "pm1"], metrics: Iterable[Metric]) -> Literal["01", "pm1"]:
    losses = (getattr(metric, "loss", None) for metric in metrics)
    if any(loss is not None and loss.label_domain == "pm1" for loss in losses):
        return "pm1"
    return given


def _intersection(ranges: Iterable[Interval]) -> Interval:
    listed = list(ranges)
    low = max(listed, key=lambda r: (r.low, r.low_open))
    high = min(listed, key=lambda r: (r.high, not r.high_open))
    return Interval(low.low, high.high, low.low_open, high.high_open, any(r.without_zero for r in listed))


def _terms(models: Sequence[Model], metrics: Sequence[Metric], *, weighted: bool) -> tuple[tuple[int, Term], ...]:
    """List the sums to keep; a weight of rows that have none is their count, which needs no sum."""
    terms: dict[tuple[int, Term], None] = {}
    for index, model in enumerate(models):
        for term in (WEIGHT, *(term for metric in metrics for term in metric.terms(model.space))):
            if term.is_count or (term.quantity in ("weight", "saturated_weight") and not weighted):
                continue
            if term in (WEIGHT, LABEL):
                terms[(-1, term)] = None
            if term not in (WEIGHT, LABEL) or len(models) > 1:
                terms[(index, term)] = None
    return tuple(terms)


def _counts(models: Sequence[Model], metrics: Sequence[Metric]) -> tuple[tuple[int, Term], ...]:
    """List the rows to count, the used rows of the models first and in their order."""
    counts: dict[tuple[int, Term], None] = {(index, ROWS): None for index in range(len(models))}
    for index, model in enumerate(models):
        counts |= {(index, term): None for m in metrics for term in m.terms(model.space) if term.is_count}
    return tuple(counts)


def _check_spaces(metrics: Sequence[Metric], models: Sequence[Model]) -> None:
    for metric in metrics:
        for model in models:
            if model.space not in metric.spaces:
                raise UsageError(
                    f"{metric.label} reads {' or '.join(f'{s}=' for s in metric.spaces)}; "
                    f"the prediction {model.column!r} was declared {model.space}=."
                )


def _shapes(schema: pa.Schema, label: str, models: Sequence[Model]) -> tuple[bool, bool]:
    """Return whether predictions are lists, and whether labels are indices into them."""
    shapes = {model.column: is_list_type(schema.field(model.column).type) for model in models}
    if len(set(shapes.values())) > 1:
        of_lists = next(column for column, is_list in shapes.items() if is_list)
        of_numbers = next(column for column, is_list in shapes.items() if not is_list)
        raise SchemaError(
            f"column {of_lists!r} holds lists and column {of_numbers!r} numbers; evaluate them one after the other."
        )
    lists = any(shapes.values())
    label_is_list = is_list_type(schema.field(label).type)
    if label_is_list and not lists:
        column = next(iter(shapes))
        raise SchemaError(
            f"the label column {label!r} holds lists, and the prediction column {column!r} has type "
            f"{schema.field(column).type}; both must hold lists, or both numbers."
        )
    return lists, lists and not label_is_list


def _over_columns(
    metric: Metric, label: str, models: Sequence[Model], lists: bool, label_is_index: bool, list_reduction: str
) -> Metric:
    """Return a metric as it applies to columns of this shape, or refuse what does not apply."""
    loss = getattr(metric, "loss", None)
    column = models[0].column
    if isinstance(loss, OverLists):
        raise UsageError(
            f"OverLists of {metric.label} is for calls on arrays; name the loss itself, and list_reduction= beside it."
        )
    if not lists:
        if isinstance(loss, ListwiseLoss):
            raise UsageError(f"{metric.label} reads lists of predictions, and column {column!r} holds numbers.")
        return metric
    if not isinstance(metric, MeanLoss) or loss is None:
        raise UsageError(f"{metric.label} reads one number a row, and column {column!r} holds lists; name losses.")
    if isinstance(loss, ListwiseLoss) and label_is_index and loss.label_kind != "index":
        raise UsageError(
            f"{metric.label} reads a label for each candidate, and the label column {label!r} holds numbers; "
            "for the index of the right candidate use 'sparse_categorical_crossentropy'."
        )
    if isinstance(loss, ListwiseLoss) and not label_is_index and loss.label_kind == "index":
        raise UsageError(
            f"{metric.label} reads the index of the right candidate, and the label column {label!r} holds lists; "
            "for a label of each candidate use 'categorical_crossentropy'."
        )
    if isinstance(loss, ListwiseLoss):
        return metric
    if label_is_index:
        raise UsageError(
            f"{metric.label} reads a label for each candidate, and the label column {label!r} holds numbers, column "
            f"{column!r} lists; both must hold lists."
        )
    return MeanLoss(OverLists(loss, list_reduction))


def _each_once(metrics: Sequence[Metric]) -> list[Metric]:
    """Leave out metrics named twice; two that are not the same must not share a name."""
    known: dict[str, Metric] = {}
    for metric in metrics:
        if known.setdefault(metric.label, metric) != metric:
            raise UsageError(
                f"Two different losses are called {metric.label!r}; define them with names of their own, "
                "or evaluate them one after the other."
            )
    return list(known.values())


def _reduced(metric: Metric, reduction: Reduction | None, preset: Preset | None) -> Metric:
    """Return a metric with the reduction and the conventions that were asked for, where it is a loss."""
    if not isinstance(metric, MeanLoss):
        return metric
    if reduction is None:
        reduction = "mean" if preset is None else preset.reduction_of(metric.loss)
    return MeanLoss(metric.loss, reduction, preset)


def _machine_epsilon(kind: pa.DataType) -> float:
    """Return the distance from 1 to the next number of a column's type; other than floats count as float64."""
    if is_list_type(kind) or pa.types.is_dictionary(kind):
        return _machine_epsilon(kind.value_type)
    return 2.0**-10 if pa.types.is_float16(kind) else 2.0**-23 if pa.types.is_float32(kind) else 2.0**-52


def _check_columns(
    schema: pa.Schema, numeric: Sequence[str], keys: Sequence[str], keep: Sequence[str], weight: str | None
) -> dict[str, str]:
    for column in (*numeric, *keys, *keep):
        if not isinstance(column, str):
            raise UsageError(f"A column is named by {column!r}; allowed: a string.")
        if column not in schema.names:
            raise SchemaError(f"The log has no column {column!r}. {nearest_names(column, schema.names)}")
        if schema.names.count(column) > 1:
            raise SchemaError(f"The log has {schema.names.count(column)} columns called {column!r}; rename them.")
    for column in numeric:
        kind = schema.field(column).type
        if is_list_type(kind) and column == weight:
            raise SchemaError(f"the weight column {column!r} has type {kind}; one number a row is needed.")
        (check_list_type if is_list_type(kind) else check_numeric_type)(column, kind)
    for key in keys:
        check_key_type(key, schema.field(key).type)
    return {column: str(schema.field(column).type) for column in dict.fromkeys((*numeric, *keys))}


def _one_of(name: str, given: str, allowed: Sequence[str]) -> Any:
    if given not in allowed:
        raise UsageError(f"{name} is {given!r}; allowed: {' or '.join(repr(a) for a in allowed)}.")
    return given


def _positive(name: str, given: int) -> int:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise UsageError(f"{name} is {given!r}; allowed: a whole number from 1.")
    return given


def available_cpus() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_bytes(given: int | str) -> int:
    """Read a number of bytes such as 536870912, '512MiB' or '1GB'."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(given))
    if isinstance(given, bool) or match is None or match[2].lower() not in _UNITS:
        raise UsageError(f"memory is {given!r}; allowed: bytes, or a number with KB, MB, GB, KiB, MiB or GiB.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(count: int) -> str:
    """Write a number of bytes for a person."""
    return f"{count / (1 << 20):,.0f} MiB" if count >= 1 << 20 else f"{count:,} bytes"
