"""The CPU engine: record batches in, exact sums out, through serial kernels that release the interpreter lock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.columns import encode_keys, to_float64
from fastloss.errors import DataError, UsageError
from fastloss.metrics.form import LABEL, WEIGHT, Term
from fastloss.plan import Model, Plan
from fastloss.sources.base import Task
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import BAD_CAUSES, Cause, Ledger, Location
from fastloss.states.sums import CellKey, CellSums
from fastloss_kernels.cpu import pointwise, sums
from fastloss_kernels.links import MEAN_ROWS
from fastloss_kernels.losses.form import SPACES

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

_LARGEST = float(np.finfo(np.float64).max)
_SMALLEST = 5e-324
# A cross of keys with more combinations than this many times the batch is numbered by sorting.
_DENSE_FACTOR = 4
_NORMALIZE_ROWS = 1 << 28


class CpuEngine:
    """Evaluates tasks of one plan; safe to call from several threads at once."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._terms = {key: column for column, key in enumerate(plan.terms)}
        self._add_terms = sums.make_add_terms()
        self._sort_by_cell = sums.make_sort_by_cell()
        self._add_by_cell = sums.make_add_by_cell()
        self._normalize = sums.make_normalize()
        self._count_outside = sums.make_count_outside()
        low, high = plan.label_range.low, plan.label_range.high
        if plan.label_domain == "pm1" and (low, high) == (0.0, 1.0):
            low = -1.0
        self._label_range = (max(low, -_LARGEST), min(high, _LARGEST))

    def identity(self) -> EvaluationState:
        """Return the state of no rows."""
        plan = self._plan
        return EvaluationState.identity(len(plan.groupings), len(plan.models), len(plan.terms))

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
        for batch in task.read():
            self._add_batch(state, batch, task)
            rows_since_carry += batch.num_rows
            if rows_since_carry > _NORMALIZE_ROWS:
                self._carry(state)
                rows_since_carry = 0
        self._carry(state)
        if self._plan.on_bad_row == "raise":
            self._refuse_bad_rows(state.ledger)
        return state

    def _carry(self, state: EvaluationState) -> None:
        for grouping in state.groupings:
            self._normalize(grouping.words.reshape(-1, grouping.words.shape[-1]))

    def _add_batch(self, state: EvaluationState, batch: pa.RecordBatch, task: Task) -> None:
        plan = self._plan
        selection = _Selection(state.ledger, task, batch.num_rows)
        state.ledger.n_read += batch.num_rows
        numbers: dict[str, tuple[Floats, Mask | None]] = {}

        def column(name: str) -> tuple[Floats, Mask | None]:
            if name not in numbers:
                values, valid = to_float64(batch.column(name), name)
                # Kernels are compiled for writable arrays alone; a read-only view would compile them anew.
                numbers[name] = (values if values.flags.writeable else values.copy(), valid)
            return numbers[name]

        weight = None
        if plan.weight is not None:
            weight, valid = column(plan.weight)
            selection.drop_null(valid, plan.weight, "null_weight")
            self._check_weight(selection, weight, plan.weight)
        label, valid = column(plan.label)
        selection.drop_null(valid, plan.label, "null_label")
        self._check_range(selection, label, plan.label, *self._label_range)

        keys = {key: encode_keys(batch.column(key)) for key in plan.keys}
        checked: dict[tuple[str, str], _Selection] = {}
        parts = []
        for model in plan.models:
            score, valid = column(model.column)
            # Two models may read one column: what it drops is counted once.
            if (model.column, model.space) not in checked:
                own = checked[model.column, model.space] = selection.copy()
                own.drop_null(valid, model.column, "null_prediction")
                self._check_range(own, score, model.column, *SPACES[model.space])
            parts.append((model, score, checked[model.column, model.space]))
        alike = all(own.keep is parts[0][2].keep for _, _, own in parts)

        cells: _Cells | None = None
        for index, (model, score, own) in enumerate(parts):
            used = own.keep
            if cells is None or not alike:
                cells = _Cells(self, state, keys, used, batch.num_rows)
                kept_weight = None if weight is None else _kept(weight, used)
                kept_label = _kept(label, used)
                if plan.label_domain == "pm1":
                    kept_label = 0.5 * kept_label + 0.5
                self._add_shared(cells, -1 if alike else index, kept_label, kept_weight)
            cells.count(index)
            self._add_model(cells, index, model, _kept(score, used), kept_label, kept_weight, task)

    def _add_shared(self, cells: _Cells, index: int, label: Floats, weight: Floats | None) -> None:
        if (column := self._column(index, WEIGHT)) is not None and weight is not None:
            cells.add(weight, column)
        if (column := self._column(index, LABEL)) is not None:
            # Summed in the column's own labels' space: metrics are defined on labels in [0, 1] or on values.
            cells.add(label if weight is None else label * weight, column)

    def _column(self, index: int, term: Term) -> int | None:
        # With a single model its rows are those that all models use alike.
        return self._terms.get((index if len(self._plan.models) > 1 else -1, term))

    def _add_model(
        self,
        cells: _Cells,
        index: int,
        model: Model,
        score: Floats,
        label: Floats,
        weight: Floats | None,
        task: Task,
    ) -> None:
        plan = self._plan
        buffer = np.empty_like(score)
        for (owner, term), column in self._terms.items():
            if owner != index or term in (WEIGHT, LABEL):
                continue
            terms = buffer
            if term.quantity == "prediction":
                if model.space in MEAN_ROWS:
                    pointwise.make_value(MEAN_ROWS[model.space])(score, label, (), buffer)
                else:
                    terms = score
            elif term.loss is not None and term.quantity == "loss":
                parameters = term.loss.parameters(model.space, plan.epsilon)
                pointwise.make_value(term.loss.rows[model.space])(score, label, parameters, buffer)
            elif term.loss is not None and term.quantity == "saturated_rows":
                self._add_saturated(cells, index, term, model, (score, label, weight), task)
                continue
            else:
                continue
            if weight is not None:
                terms = np.multiply(terms, weight, out=buffer)
            cells.add(terms, column)

    def _add_saturated(
        self,
        cells: _Cells,
        index: int,
        term: Term,
        model: Model,
        columns: tuple[Floats, Floats, Floats | None],
        task: Task,
    ) -> None:
        score, label, weight = columns
        loss = term.loss
        assert loss is not None
        flag = np.empty(len(score), dtype=np.bool_)
        parameters = loss.parameters(model.space, self._plan.epsilon)
        pointwise.make_flag(loss.saturated[model.space])(score, label, parameters, flag)
        if not flag.any():
            return
        if self._plan.saturation == "error":
            raise DataError(
                f"{task.origin}: column {model.column!r} rules out an outcome that happened, so {loss.name} is "
                f"infinite there (first {model.space} {score[flag.argmax()]!r} at label {label[flag.argmax()]!r}); "
                "use saturation='clip' or 'exact'."
            )
        rows = flag.astype(np.float64)
        cells.add(rows, self._terms[(index, term)])
        column = self._terms[(index, Term("saturated_weight", loss))]
        cells.add(rows if weight is None else rows * weight, column)

    def _check_range(self, selection: _Selection, values: Floats, name: str, low: float, high: float) -> None:
        n_nan, n_outside = self._count_outside(values, low, high)
        if n_nan:
            selection.drop(np.isnan(values), name, "nan", values)
        if n_outside:
            selection.drop((values < low) | (values > high), name, "outside_domain", values)

    def _check_weight(self, selection: _Selection, weight: Floats, name: str) -> None:
        n_nan, n_outside = self._count_outside(weight, _SMALLEST, _LARGEST)
        if n_nan:
            selection.drop(np.isnan(weight), name, "nan", weight)
        if n_outside:
            selection.drop(weight < 0.0, name, "negative_weight", weight)
            selection.drop(weight > _LARGEST, name, "infinite_weight", weight)
            selection.drop(weight == 0.0, name, "zero_weight", weight)

    def _refuse_bad_rows(self, ledger: Ledger) -> None:
        bad = {cause: count for cause, count in ledger.dropped.items() if cause.name in BAD_CAUSES}
        if not bad:
            return
        first = min(bad, key=lambda cause: ledger.first[cause][:2])
        raise DataError(self._describe(first, ledger.first[first], sum(bad.values())))

    def _describe(self, cause: Cause, place: Location, count: int) -> str:
        plan = self._plan
        role, low, high, hint = "weight", 0.0, _LARGEST, ""
        if cause.column != plan.weight:
            role, (low, high) = "label", self._label_range
            if cause.column != plan.label:
                space = next(m.space for m in plan.models if m.column == cause.column)
                role, (low, high) = space, SPACES[space]
                hint = " If these are logits, declare them logit=." if space == "prob" else ""
            elif place.value == -1.0:
                hint = " If labels are -1 and +1, use label_domain='pm1'."
        allowed = "finite numbers from 0" if role == "weight" else _interval_text(low, high)
        return (
            f"{place.describe()}: {role} column {cause.column!r} is {place.value!r}; allowed: {allowed}.{hint} "
            f"{count:,} bad row{'s' if count > 1 else ''} in this part; "
            "on_bad_row='drop' leaves such rows out and counts them."
        )

    def check_state(self, state: EvaluationState) -> None:
        """Refuse slices that would outgrow the memory."""
        if sum(len(grouping.cells) for grouping in state.groupings) > self._plan.max_cells:
            largest = max(range(len(state.groupings)), key=lambda i: len(state.groupings[i].cells))
            raise UsageError(
                f"by {' × '.join(self._plan.groupings[largest])} brings the slices to more than "
                f"{self._plan.max_cells:,}, and each takes {self._plan.bytes_per_cell:,} bytes; "
                "slice by fewer values or raise memory."
            )


def _interval_text(low: float, high: float) -> str:
    if low <= -_LARGEST and high >= _LARGEST:
        return "numbers"
    if low <= -_LARGEST:
        return f"numbers up to {high:g}"
    return f"numbers from {low:g} to {high:g}"


def _kept(values: Floats, keep: Mask | None) -> Floats:
    return values if keep is None else values[keep]


class _Selection:
    """Which rows of a batch are still in use; drops are counted in the ledger as they happen."""

    def __init__(self, ledger: Ledger, task: Task, n_rows: int, keep: Mask | None = None) -> None:
        self._ledger = ledger
        self._task = task
        self._n_rows = n_rows
        self._first_row = ledger.n_read
        self.keep = keep

    def copy(self) -> _Selection:
        other = _Selection(self._ledger, self._task, self._n_rows, self.keep)
        other._first_row = self._first_row
        return other

    def drop_null(self, valid: Mask | None, column: str, cause: str) -> None:
        if valid is not None:
            self.drop(~valid, column, cause, None)

    def drop(self, unwanted: Mask, column: str, cause: str, values: Floats | None) -> None:
        if self.keep is not None:
            unwanted = unwanted & self.keep
        count = int(np.count_nonzero(unwanted))
        if count == 0:
            return
        row = int(unwanted.argmax())
        found = None if values is None else float(values[row])
        place = Location(self._task.index, self._first_row + row, self._task.origin, self._task.row_group, found)
        self._ledger.drop(Cause(cause, column), count, place)
        self.keep = ~unwanted if self.keep is None else self.keep & ~unwanted


class _Cells:
    """The cells of a batch's used rows in every grouping, and the sums that terms are added to."""

    def __init__(
        self,
        engine: CpuEngine,
        state: EvaluationState,
        keys: dict[str, tuple[NDArray[Any], list[Any]]],
        keep: Mask | None,
        n_rows: int,
    ) -> None:
        self._engine = engine
        self._n_used = n_rows if keep is None else int(np.count_nonzero(keep))
        # Each grouping with its rows in the order of its cells, where each cell starts, and each cell's row.
        self._sorted: list[tuple[CellSums, tuple[NDArray[np.int64], ...] | None]] = []
        for sums_of_grouping, columns in zip(state.groupings, engine._plan.groupings, strict=True):
            if not columns:
                sums_of_grouping.rows_of([()])
                self._sorted.append((sums_of_grouping, None))
                continue
            cells, names = _number_cells([keys[c] for c in columns], keep)
            order = np.empty(self._n_used, dtype=np.int64)
            starts = np.empty(len(names) + 1, dtype=np.int64)
            engine._sort_by_cell(cells, len(names), order, starts)
            rows = sums_of_grouping.rows_of(names)
            engine.check_state(state)
            self._sorted.append((sums_of_grouping, (order, starts, rows)))

    def count(self, model: int) -> None:
        for grouping, cells in self._sorted:
            if cells is None:
                grouping.counts[0, model] += self._n_used
            else:
                _, starts, rows = cells
                grouping.counts[rows, model] += np.diff(starts)

    def add(self, terms: Floats, column: int) -> None:
        for grouping, cells in self._sorted:
            if cells is None:
                self._engine._add_terms(terms, grouping.words[0, column])
            else:
                self._engine._add_by_cell(terms, *cells, grouping.words, column)


def _number_cells(
    keys: Sequence[tuple[NDArray[Any], list[Any]]], keep: Mask | None
) -> tuple[NDArray[np.int64], list[CellKey]]:
    """Number the combinations of key values that occur, from 0, and return each row's number and their names."""
    codes = [c.astype(np.int64, copy=False) if keep is None else c[keep].astype(np.int64) for c, _ in keys]
    values = [v for _, v in keys]
    combined, n_combined = codes[0], len(values[0])
    for code, value in zip(codes[1:], values[1:], strict=True):
        combined = combined * len(value) + code
        n_combined *= len(value)
    if n_combined <= _DENSE_FACTOR * len(combined) + 1024:
        present = np.flatnonzero(np.bincount(combined, minlength=n_combined))
        if len(present) < n_combined:
            numbers = np.empty(n_combined, dtype=np.int64)
            numbers[present] = np.arange(len(present))
            combined = numbers[combined]
    else:
        present, combined = np.unique(combined, return_inverse=True)
    names: list[CellKey] = []
    for number in present.tolist():
        name: list[Any] = []
        rest = number
        for value in reversed(values):
            rest, index = divmod(rest, len(value))
            name.append(value[index])
        names.append(tuple(reversed(name)))
    return combined, names
