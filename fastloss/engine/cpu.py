"""The CPU engine: batches in, exact sums out, through serial kernels that release the interpreter lock."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, Keys, NumberArray
from fastloss.engine import lists as list_engine
from fastloss.engine.lists import ListBatch, ListChecks, pieces, read_only
from fastloss.engine.selection import Mask, Selection
from fastloss.errors import DataError, UsageError
from fastloss.metrics.form import (
    CANDIDATES,
    LABEL,
    USED_CANDIDATES,
    WEIGHT,
    ZERO_WEIGHT_CANDIDATES,
    ZERO_WEIGHT_ROWS,
    Term,
)
from fastloss.metrics.presets import ListInputs
from fastloss.plan import Model, Plan
from fastloss.sources.base import Task
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import BAD_CAUSES, Cause, Ledger, Location
from fastloss.states.sums import CellKey, CellSums
from fastloss_kernels.cpu import pointwise, sums
from fastloss_kernels.domain import Interval, Row
from fastloss_kernels.exact_sum import ADDITIONS_BEFORE_CARRY
from fastloss_kernels.inverse_links import INVERSE_LINKS
from fastloss_kernels.losses import ListwiseLoss, Loss

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = 5e-324
# A cross of keys with more combinations than this many times the batch is numbered by sorting.
_DENSE_FACTOR = 4
# What a loop over rows reads first: score and label, or the arrays of lists, the rows and scratch.
Inputs = tuple[Any, ...]
# The owner of the sums over rows that all models use alike.
_ALL_MODELS = -1


# What is wrong with a list as a whole.
_LIST_FAULTS = {
    "different_lengths": "has a list of another length than the label's; allowed: a label for each candidate",
    "two_infinite_predictions": "has two candidates at infinity; allowed: one, whose probability then is 1",
    "list_too_long": "has a list of more candidates than max_pairs allows; raise max_pairs or shorten the lists",
}


class CheckedBatch(NamedTuple):
    """The numbers of a batch, and which of its rows each model may use (None: all).

    Where predictions are lists, `lists` has them for each model; `label` and `scores` are empty then. `weightless`
    marks the rows left out for a weight of 0, None where there are none.
    """

    label: NumberArray
    weight: NumberArray | None
    scores: list[NumberArray]
    keep: list[Mask | None]
    may_saturate: list[bool]
    lists: list[ListBatch] | None = None
    weightless: Mask | None = None


# What a loss reads: the predictions as they are, as the preset clips them, or lists as it prepares them.
Reads = Literal["as they are", "clipped"] | ListInputs


class _TermWork(NamedTuple):
    """How to compute one term of a model, or to sum it at once; without kernels it is the prediction itself."""

    column: int
    values: Callable[..., None] | None
    total: Callable[..., None] | None
    parameters: tuple[float, ...]
    reads: Reads = "as they are"


class _SaturationWork(NamedTuple):
    """How to find the rows of a model whose loss was clipped or is infinite."""

    saturated_count: int
    infinite_count: int
    weight_column: int | None
    test: Callable[..., None]
    parameters: tuple[float, ...]
    value: Callable[..., None]
    exact_parameters: tuple[float, ...]
    loss: str


class CpuEngine:
    """Evaluates tasks of one plan; safe to call from several threads at once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._make_values: Callable[..., Callable[..., None]] = (
            list_engine.make_values if plan.lists else pointwise.make_value
        )
        self._make_flag: Callable[..., Callable[..., None]] = (
            list_engine.make_flag if plan.lists else pointwise.make_flag
        )
        self._columns = {key: column for column, key in enumerate(plan.terms)}
        self._terms = [self._term_works(index, model) for index, model in enumerate(plan.models)]
        self._saturations = [self._saturation_works(index, model) for index, model in enumerate(plan.models)]
        self._local = threading.local()
        self.add_terms = sums.make_add_terms()
        self.take_rows = sums.make_take_rows()
        self.sort_by_cell = sums.make_sort_by_cell()
        self.add_by_cell = sums.make_add_by_cell()
        self._normalize = sums.make_normalize()
        self._count_outside = sums.make_count_outside()
        label_range = plan.label_range
        if plan.label_domain == "pm1":
            # A label of 0 would be a soft one half; far more often it says that the domain is 0 and 1.
            low, high = 2.0 * label_range.low - 1.0, 2.0 * label_range.high - 1.0
            label_range = Interval(low, high, *label_range[2:4], without_zero=True)
        self._label_range = label_range
        self._counts_weightless = any(term.quantity.startswith("zero_weight") for _, term in plan.counts)
        losses = [plan.form(term.loss) for _, term in plan.terms if term.loss is not None]
        self._n_scratch = max((loss.n_scratch for loss in losses if isinstance(loss, ListwiseLoss)), default=0)
        self._list_checks = ListChecks(plan, label_range, self._count_outside) if plan.lists else None

    def _term_works(self, index: int, model: Model) -> list[_TermWork]:
        works = []
        for (owner, term), column in self._columns.items():
            if owner != index:
                continue
            row: Row | None = None
            parameters: tuple[float, ...] = ()
            if term == CANDIDATES:
                works.append(_TermWork(column, None, None, ()))
                continue
            if term.quantity == "prediction":
                row = INVERSE_LINKS.get(model.space)
            elif term.quantity == "loss" and term.loss is not None:
                form = self._plan.form(term.loss)
                row, parameters = (
                    form.formulas[model.space],
                    form.parameters(model.space, self._plan.epsilon_of(model)),
                )
            else:
                continue
            values = None if row is None else self._make_values(row)
            total = None if row is None or self._plan.lists else sums.make_add_values(row)
            works.append(_TermWork(column, values, total, parameters, self.reads(model, term.loss)))
        return works

    def reads(self, model: Model, loss: Loss | None) -> Reads:
        """Return how the preset, if there is one, has a loss read a model's predictions."""
        preset = self._plan.preset
        if preset is None or loss is None:
            return "as they are"
        prepared = preset.list_inputs.get(loss.name) if model.space == "prob" else None
        if prepared is not None:
            return prepared
        clipped = model.space in loss.saturated and self._plan.clip(model) is not None
        return "clipped" if clipped else "as they are"

    def _saturation_works(self, index: int, model: Model) -> list[_SaturationWork]:
        works = []
        for number, (owner, term) in enumerate(self._plan.counts):
            loss = term.loss
            if owner == index and term.quantity == "saturated_rows" and loss is not None:
                works.append(
                    _SaturationWork(
                        saturated_count=number,
                        infinite_count=self._plan.counts.index((index, Term("infinite_rows", loss))),
                        weight_column=self._columns.get((index, Term("saturated_weight", loss))),
                        test=self._make_flag(loss.saturated[model.space]),
                        parameters=loss.parameters(model.space, self._plan.epsilon_of(model)),
                        value=self._make_values(loss.formulas[model.space]),
                        exact_parameters=loss.parameters(model.space, 0.0),
                        loss=loss.name,
                    )
                )
        return works

    def identity(self) -> EvaluationState:
        """Return the state of no rows."""
        plan = self._plan
        return EvaluationState.identity(len(plan.groupings), len(plan.counts), len(plan.terms))

    def run(self, task: Task) -> EvaluationState:
        """Evaluate one task, whole or not at all.

        Raises
        ------
        ReadError
            If the task cannot be read.
        DataError
            If it holds a bad row and the plan does not drop bad rows, or a saturated row and the plan forbids it.
        """
        state = self.identity()
        rows_since_carry = 0
        for batch in self.pieces(task):
            # What overflows is counted as infinite, and says so in the result.
            with np.errstate(all="ignore"):
                self._add_batch(state, batch, task)
            rows_since_carry += batch.n_rows
            if rows_since_carry > ADDITIONS_BEFORE_CARRY:
                self._carry(state)
                rows_since_carry = 0
        self._carry(state)
        if self._plan.on_bad_row == "raise":
            self.refuse_bad_rows(state.ledger)
        return state

    def pieces(self, task: Task) -> Iterator[Batch]:
        """Return a task's batches, those of lists cut so that a piece has no more candidates than a batch has rows."""
        for batch in task.read():
            if self._plan.lists:
                yield from pieces(batch, self._plan.execution.batch_rows, self._plan.longest_list)
            else:
                yield batch

    def check_state(self, state: EvaluationState) -> None:
        """Refuse slices that would outgrow the memory."""
        if sum(len(grouping.cells) for grouping in state.groupings) > self._plan.max_cells:
            largest = max(range(len(state.groupings)), key=lambda i: len(state.groupings[i].cells))
            raise UsageError(
                f"by {' × '.join(self._plan.groupings[largest])} brings the slices to more than "
                f"{self._plan.max_cells:,}, and each takes {self._plan.bytes_per_cell:,} bytes; "
                "slice by fewer values or raise memory."
            )

    def finish(self, state: EvaluationState) -> None:
        """Bring a merged state into the form that is read fastest."""
        self._carry(state)

    def _carry(self, state: EvaluationState) -> None:
        for grouping in state.groupings:
            self._normalize(grouping.words.reshape(-1, grouping.words.shape[-1]))

    def buffer(self, name: object, n_rows: int) -> Floats:
        """Return this thread's array of that name, as long as asked.

        Arrays of a batch's size allocated anew cost a page fault for every 512 numbers.
        """
        buffers: dict[object, Floats] = self._local.__dict__.setdefault("buffers", {})
        if name not in buffers or len(buffers[name]) < n_rows:
            buffers[name] = np.empty(n_rows)
        return buffers[name][:n_rows]

    def as_float64(self, values: NumberArray, name: object) -> Floats:
        """Return numbers as float64, read-only, in a buffer of that name."""
        out = self.buffer(name, len(values))
        np.copyto(out, values)
        return read_only(out)

    def check_batch(self, ledger: Ledger, batch: Batch, task: Task) -> CheckedBatch:
        """Read a batch's numbers, and count in the ledger each row that cannot be used."""
        plan = self._plan
        n_rows = batch.n_rows
        usable = Selection(ledger, task, ledger.n_read)
        ledger.n_read += n_rows
        weight = weightless = None
        if plan.weight is not None:
            weight, valid = batch.numbers(plan.weight)
            usable.drop_null(valid, Cause("null_weight", plan.weight, "weight"))
            weightless = self._check_weight(usable, weight, plan.weight)
        if self._list_checks is not None:
            lists = self._list_checks.check(usable, batch)
            return CheckedBatch(np.empty(0), weight, [], lists.keep, lists.may_saturate, lists.lists, weightless)
        label, valid = batch.numbers(plan.label)
        usable.drop_null(valid, Cause("null_label", plan.label, "label"))
        n_nan, n_outside = self._count_outside(label, *self._label_range.bounds)
        self._drop_nan(usable, label, plan.label, "label", n_nan)
        self._drop_outside(usable, label, Cause("outside_domain", plan.label, "label"), n_outside, self._label_range)

        scores, selections, may_saturate = [], [], []
        of_column: dict[str, Selection] = {}
        of_space: dict[tuple[str, str], Selection] = {}
        for model, allowed in zip(plan.models, plan.prediction_ranges, strict=True):
            score, valid = batch.numbers(model.column)
            scores.append(score)
            # One pass usually shows that all is well: the range in which nothing saturates is the narrower one.
            low, high = plan.unsaturated(model)
            n_nan, n_outside = self._count_outside(score, max(low, allowed.bounds[0]), min(high, allowed.bounds[1]))
            may_saturate.append(n_outside > 0)
            # Two models may read one column: what it drops is counted once.
            if model.column not in of_column:
                of_column[model.column] = usable.copy()
                of_column[model.column].drop_null(valid, Cause("null_prediction", model.column, model.space))
                self._drop_nan(of_column[model.column], score, model.column, model.space, n_nan)
            if (model.column, model.space) not in of_space:
                own = of_space[model.column, model.space] = of_column[model.column].copy()
                outside = Cause("outside_domain", model.column, model.space)
                self._drop_outside(own, score, outside, n_outside, allowed)
            selections.append(of_space[model.column, model.space])
        keep = [selection.keep for selection in selections]
        return CheckedBatch(label, weight, scores, keep, may_saturate, weightless=weightless)

    def _add_batch(self, state: EvaluationState, batch: Batch, task: Task) -> None:
        plan = self._plan
        n_rows = batch.n_rows
        first_row = state.ledger.n_read
        label, weight, scores, keep, may_saturate, lists, weightless = self.check_batch(state.ledger, batch, task)
        keys = {key: batch.keys(key) for key in plan.keys}
        alike = all(mask is keep[0] for mask in keep)
        cells: _Cells | None = None
        for index in range(len(plan.models)):
            if cells is None or not alike:
                cells = _Cells(self, state, keys, keep[index], n_rows)
                used_weight = None if weight is None else cells.arrange(weight, "used weight")
                used_label = label if lists is not None else cells.arrange(label, "used label")
                if plan.label_domain == "pm1" and lists is None:
                    used_label = self.as_float64(0.5 * used_label.astype(np.float64) + 0.5, "used label")
                self._add_shared(cells, _ALL_MODELS if alike else index, used_label, used_weight)
            cells.count(index)
            if lists is None:
                inputs: Inputs = (cells.arrange(scores[index], "used score"), used_label)
            else:
                longest = lists[index].longest
                n_scratch = 2 + self._n_scratch
                scratch = self.buffer("scratch", n_scratch * longest).reshape(n_scratch, longest)
                inputs = (*lists[index], cells.rows, scratch)
                self._count_candidates(cells, index, USED_CANDIDATES, lists[index])
            of_model = None if lists is None else lists[index]
            self._add_model(cells, index, inputs, used_weight, of_model, may_saturate[index])
            if may_saturate[index]:
                self._add_saturated(cells, index, inputs, used_weight, task, first_row)
        if weightless is not None and self._counts_weightless:
            self._count_weightless(_Cells(self, state, keys, weightless, n_rows), lists)

    def _count_candidates(self, cells: _Cells, index: int, term: Term, lists: ListBatch) -> None:
        if (index, term) in self._plan.counts:
            cells.add_counts(lists.candidates(cells.rows), self._plan.counts.index((index, term)))

    def _count_weightless(self, cells: _Cells, lists: list[ListBatch] | None) -> None:
        for number, (index, term) in enumerate(self._plan.counts):
            if term == ZERO_WEIGHT_ROWS:
                cells.count(number)
            elif term == ZERO_WEIGHT_CANDIDATES and lists is not None:
                self._count_candidates(cells, index, term, lists[index])

    def _add_shared(self, cells: _Cells, index: int, label: NumberArray, weight: NumberArray | None) -> None:
        # With a single model its rows are those that all models use alike.
        owner = index if len(self._plan.models) > 1 else _ALL_MODELS
        terms = self.buffer("terms", cells.n_used)
        if weight is not None:
            np.copyto(terms, weight)
            cells.add(terms, self._columns[owner, WEIGHT])
        if (owner, LABEL) in self._columns:
            np.copyto(terms, label)
            cells.add(terms if weight is None else np.multiply(terms, weight, out=terms), self._columns[owner, LABEL])

    def _add_model(
        self,
        cells: _Cells,
        index: int,
        inputs: Inputs,
        weight: NumberArray | None,
        lists: ListBatch | None,
        may_saturate: bool,
    ) -> None:
        terms = self.buffer("terms", cells.n_used)
        model = self._plan.models[index]
        prepared: dict[Reads, Inputs] = {"as they are": inputs}
        if not may_saturate:
            prepared["clipped"] = inputs
        for column, values, total, parameters, reads in self._terms[index]:
            if reads not in prepared:
                prepared[reads] = self.prepare(reads, model, prepared["as they are"], lists)
            inputs = prepared[reads]
            if total is not None and weight is None and (accumulator := cells.only_accumulator(column)) is not None:
                total(*inputs, parameters, accumulator)
                continue
            if values is not None:
                values(*inputs, parameters, terms)
            elif lists is not None:
                np.copyto(terms, lists.candidates(cells.rows))
            else:
                np.copyto(terms, inputs[0])
            cells.add(terms if weight is None else np.multiply(terms, weight, out=terms), column)

    def prepare(self, reads: Reads, model: Model, inputs: Inputs, lists: ListBatch | None) -> Inputs:
        """Return what a loop reads, `inputs`, with the predictions as a preset has them; not for "as they are".

        Predictions that need no clipping, since no row may be saturated, are "clipped" as they are, too.
        """
        clip = self._plan.clip(model)
        if lists is not None:
            how = reads if isinstance(reads, ListInputs) else ListInputs()
            return (*lists.prepared(how, clip), *inputs[len(lists) :])
        assert clip is not None
        clipped = self.buffer("clipped score", len(inputs[0]))
        np.copyto(clipped, inputs[0])
        return (read_only(np.clip(clipped, *clip, out=clipped)), *inputs[1:])

    def _add_saturated(
        self,
        cells: _Cells,
        index: int,
        inputs: Inputs,
        weight: NumberArray | None,
        task: Task,
        first_row: int,
    ) -> None:
        for work in self._saturations[index]:
            flag = np.empty(cells.n_used, dtype=np.bool_)
            work.test(*inputs, work.parameters, flag)
            if not flag.any():
                continue
            if self._plan.saturation == "error":
                at, row = cells.first_row(flag)
                found = "" if self._plan.lists else _at(self._plan.models[index], inputs[0], inputs[1], at)
                raise saturation_error(task, first_row + row, self._plan.models[index], work.loss, found)
            cells.add_counts(flag, work.saturated_count)
            exact = self.buffer("terms", cells.n_used)
            work.value(*inputs, work.exact_parameters, exact)
            cells.add_counts(np.isinf(exact), work.infinite_count)
            if work.weight_column is not None and weight is not None:
                cells.add(np.multiply(flag, weight, out=exact), work.weight_column)

    def _drop_nan(self, selection: Selection, values: NumberArray, column: str, role: str, n_nan: int) -> None:
        if n_nan:
            selection.drop(np.isnan(values), Cause("nan", column, role), values)

    def _drop_outside(
        self, selection: Selection, values: NumberArray, cause: Cause, n_outside: int, allowed: Interval
    ) -> None:
        if n_outside:
            # NumPy would round a Python float to the column's float32 before it compares.
            low, high = map(np.float64, allowed.bounds)
            selection.drop((values < low) | (values > high), cause, values)
        if allowed.without_zero:
            selection.drop(values == 0.0, cause, values)

    def _check_weight(self, selection: Selection, weight: NumberArray, name: str) -> Mask | None:
        """Leave out rows for their weights, and return those whose weight is 0."""
        n_nan, n_outside = self._count_outside(weight, _SMALLEST, _LARGEST)
        self._drop_nan(selection, weight, name, "weight", n_nan)
        if n_outside:
            selection.drop(weight < 0.0, Cause("negative_weight", name, "weight"), weight)
            selection.drop(np.isinf(weight), Cause("infinite_weight", name, "weight"), weight)
            weightless: Mask = weight == 0.0
            if selection.keep is not None:
                weightless &= selection.keep
            if weightless.any():
                selection.drop(weightless, Cause("zero_weight", name, "weight"), weight)
                return weightless
        return None

    def refuse_bad_rows(self, ledger: Ledger) -> None:
        """Raise a DataError if the ledger of a task holds a bad row."""
        bad = {cause: count for cause, count in ledger.dropped.items() if cause.name in BAD_CAUSES}
        if not bad:
            return
        first = min(bad, key=lambda cause: ledger.first[cause][:2])
        raise DataError(self._describe(first, ledger.first[first], sum(bad.values())))

    def _describe(self, cause: Cause, place: Location, count: int) -> str:
        role, hint = cause.role, ""
        if cause.name in _LIST_FAULTS:
            return self._ending(f"{place.describe()}: column {cause.column!r} {_LIST_FAULTS[cause.name]}.", count)
        if role == "weight":
            allowed = "finite numbers from 0"
        elif role == "label":
            is_index = self._plan.label_is_index
            allowed = self._label_range.describe("label")
            if is_index:
                allowed = "the index of one of the list's candidates, from 0"
            if place.value == -1.0 and not is_index and 1.0 in self._label_range and 2.0 not in self._label_range:
                hint = " If labels are -1 and +1, use label_domain='pm1'."
            elif place.value == 0.0 and self._plan.label_domain == "pm1":
                hint = " If labels are 0 and 1, leave out label_domain='pm1'."
        else:
            index = next(i for i, m in enumerate(self._plan.models) if (m.column, m.space) == (cause.column, role))
            allowed = self._plan.prediction_ranges[index].describe(role)
            if role == "prob":
                hint = " If these are logits, declare them logit=."
        text = f"{place.describe()}: {role} column {cause.column!r} is {place.value!r}; allowed: {allowed}.{hint}"
        return self._ending(text, count)

    def _ending(self, text: str, count: int) -> str:
        rows = f"{count:,} bad row{'s' if count > 1 else ''} in this part"
        return f"{text} {rows}; on_bad_row='drop' leaves such rows out and counts them."


def _at(model: Model, score: NumberArray, label: NumberArray, row: int) -> str:
    return f" ({model.space} {float(score[row])!r} at label {float(label[row])!r})"


def saturation_error(task: Task, row: int, model: Model, loss: str, found: str) -> DataError:
    """Return the error of a saturated row, counted from the task's first, where the plan forbids it."""
    place = Location(task.index, task.first_row + row, task.origin, task.row_group, None).describe()
    # An infinite logit is never clipped.
    choices = "'exact'" if model.space == "logit" else "'clip' or 'exact'"
    return DataError(
        f"{place}: column {model.column!r} rules out an outcome that happened, so {loss} is infinite there"
        f"{found}; use saturation={choices}."
    )


class _Cells:
    """The used rows of a batch in the order of the first grouping's cells, and the sums that their terms go to."""

    def __init__(
        self,
        engine: CpuEngine,
        state: EvaluationState,
        keys: dict[str, Keys],
        keep: Mask | None,
        n_rows: int,
    ) -> None:
        self._engine = engine
        self._rows: Integers | None = None if keep is None else np.flatnonzero(keep)
        self._n_rows = n_rows
        self.n_used = n_rows if self._rows is None else len(self._rows)
        # Each grouping with the order of its cells (None: as the rows stand), where each begins, and its row.
        self._sorted: list[tuple[CellSums, tuple[Integers | None, Integers, Integers] | None]] = []
        for number, (grouping, columns) in enumerate(zip(state.groupings, engine._plan.groupings, strict=True)):
            if not columns:
                grouping.rows_of([()])
                self._sorted.append((grouping, None))
                continue
            codes, n_codes, name_of = _number_cells([keys[c] for c in columns], self._rows)
            order: Integers | None = np.empty(self.n_used, dtype=np.int64)
            starts = np.empty(n_codes + 1, dtype=np.int64)
            engine.sort_by_cell(codes, n_codes, order, starts)
            present = np.flatnonzero(np.diff(starts))
            starts = np.append(starts[present], self.n_used)
            names = [name_of(code) for code in present.tolist()]
            if number == 0:
                self._rows = order if self._rows is None else self._rows[order]
                order = None
            rows = grouping.rows_of(names)
            self._sorted.append((grouping, (order, starts, rows)))
        engine.check_state(state)

    @property
    def rows(self) -> Integers:
        """The used rows of the batch, in this order."""
        return np.arange(self._n_rows) if self._rows is None else self._rows

    def arrange(self, values: NumberArray, name: str) -> NumberArray:
        """Return the used rows' values in this order; in a buffer of that name, unless that is how they stand."""
        if self._rows is None:
            return values
        wide = values if values.dtype == np.float64 else self._engine.as_float64(values, "unordered")
        out = self._engine.buffer(name, self.n_used)
        self._engine.take_rows(wide, self._rows, out)
        return read_only(out)

    def count(self, number: int) -> None:
        """Count the used rows of each cell."""
        for grouping, cells in self._sorted:
            if cells is None:
                grouping.counts[0, number] += self.n_used
            else:
                _, starts, rows = cells
                grouping.counts[rows, number] += np.diff(starts)

    def first_row(self, flag: Mask) -> tuple[int, int]:
        """Return the position among the arranged rows, and the row of the batch, of the first flagged row."""
        positions = np.flatnonzero(flag)
        rows = positions if self._rows is None else self._rows[positions]
        return int(positions[rows.argmin()]), int(rows.min())

    def add_counts(self, counted: Mask | Integers, number: int) -> None:
        """Add flags or numbers of rows, arranged as `arrange` does, to a count of their cells."""
        for grouping, cells in self._sorted:
            if cells is None:
                grouping.counts[0, number] += np.sum(counted, dtype=np.int64)
                continue
            order, starts, rows = cells
            running = np.append(0, np.cumsum(counted if order is None else counted[order]))
            grouping.counts[rows, number] += np.diff(running[starts])

    def only_accumulator(self, column: int) -> Integers | None:
        """Return the accumulator that all rows' terms go to, if there are no slices."""
        grouping, cells = self._sorted[0]
        return grouping.words[0, column] if cells is None else None

    def add(self, terms: Floats, column: int) -> None:
        """Add terms, arranged as `arrange` does, to their cells in every grouping."""
        for grouping, cells in self._sorted:
            if cells is None:
                self._engine.add_terms(terms, grouping.words[0, column])
                continue
            order, starts, rows = cells
            ordered = terms
            if order is not None:
                ordered = self._engine.buffer("ordered terms", len(terms))
                self._engine.take_rows(terms, order, ordered)
            self._engine.add_by_cell(ordered, starts, rows, grouping.words, column)


def _number_cells(keys: Sequence[Keys], rows: Integers | None) -> tuple[Integers, int, Callable[[int], CellKey]]:
    """Number the combinations of key values, and return each row's number, how many there are, and what one means."""
    codes = [(key.codes if rows is None else key.codes[rows]).astype(np.int64) for key in keys]
    sizes = [len(key.values) for key in keys]

    def name_of(code: int) -> CellKey:
        name: list[Any] = []
        for key, size in zip(reversed(keys), reversed(sizes), strict=True):
            code, index = divmod(code, size)
            name.append(key.key_of(index))
        return tuple(reversed(name))

    n_combined = math.prod(sizes)
    if n_combined <= _DENSE_FACTOR * len(codes[0]) + 1024:
        combined = codes[0]
        for column, size in zip(codes[1:], sizes[1:], strict=True):
            combined = combined * size + column
        return combined, n_combined, name_of
    # Too many combinations to number, perhaps for 64 bits: number those that occur.
    present, numbers = np.unique(np.stack(codes), axis=1, return_inverse=True)
    names = [tuple(key.key_of(i) for key, i in zip(keys, cell, strict=True)) for cell in present.T.tolist()]
    return numbers.reshape(-1), len(names), names.__getitem__
