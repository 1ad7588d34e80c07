"""The engine: batches of rows into statistics, through kernels that release the interpreter lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from fastloss.budget import Execution, format_bytes, memory_for_slices
from fastloss.columns.base import Batch, TaskKeys
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.batches import make_checks, split_batch
from fastloss.engine.checks import CheckedBatch, refuse_bad_rows, saturation_error
from fastloss.engine.device import DEVICES, Device
from fastloss.engine.gathering import GatheredRows, Gathering, group_names, pieces_of_groups
from fastloss.engine.selection import Mask
from fastloss.engine.slices import Arrangement, UsedRows
from fastloss.engine.updates.base import Update
from fastloss.engine.updates.registry import UPDATES
from fastloss.engine.workspace import Workspace
from fastloss.errors import UsageError
from fastloss.metrics.base import ModelFacts
from fastloss.metrics.conventions import LossEvaluation
from fastloss.metrics.quantities import SaturatedRows
from fastloss.metrics.resolve import Evaluation
from fastloss.states.base import RowSet, StateSpec, bounded_bytes
from fastloss.states.counts import Count
from fastloss.states.evaluation import EvaluationState
from fastloss.states.ledger import Place


class SlicesOutgrownError(UsageError):
    """Raised where slices outgrow the memory; `groupings` are those to blame, by their keys."""

    def __init__(self, message: str, groupings: tuple[tuple[str, ...], ...] = ()) -> None:
        super().__init__(message)
        self.groupings = groupings


class _RowSetWork(NamedTuple):
    """The work on one set of rows of a model."""

    model: ModelFacts
    rows: RowSet
    updates: tuple[tuple[int, Update], ...]
    saturating: tuple[LossEvaluation, ...]


class Engine:
    """Evaluates batches of one request. It may be called from several threads at once.

    Parameters
    ----------
    evaluation : Evaluation
        What is computed.
    execution : Execution
        How the log is read.
    device : Device, optional
        Where kernels run; left out, what `execution` names.
    specs : sequence of StateSpec, optional
        The statistics to keep; left out, those of `evaluation`.
    gathered : sequence of Gathering
        Where the rows of groups, and of slices too many for a state, go.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        execution: Execution,
        device: Device | None = None,
        specs: Sequence[StateSpec] | None = None,
        gathered: Sequence[Gathering] = (),
    ) -> None:
        self._gathered = tuple(gathered)
        self._of_groups = [
            Engine(rows.group.evaluation, execution, device) for rows in gathered if isinstance(rows, GatheredRows)
        ]
        self._evaluation = evaluation
        self._execution = execution
        self._device = DEVICES[execution.device] if device is None else device
        self._specs = evaluation.specs if specs is None else tuple(specs)
        self._bounded = [(n, bounded_bytes(spec)) for n, spec in enumerate(self._specs) if bounded_bytes(spec)]
        self._checks = make_checks(evaluation, self._device)
        self._work = self._row_set_work()
        self._local = threading.local()
        # What the states take that are alive at once: an estimate that threads may update at the same time.
        self._merged_bytes = 0
        self._task_bytes = 0
        # The part of the memory for slices that has another use.
        self.gathered_bytes = 0

    def _row_set_work(self) -> list[_RowSetWork]:
        work = []
        for rows in sorted({spec.rows for spec in self._specs}):
            of_rows = [(number, spec) for number, spec in enumerate(self._specs) if spec.rows == rows]
            saturating = [
                spec.counted.evaluation
                for _, spec in of_rows
                if isinstance(spec, Count) and isinstance(spec.counted, SaturatedRows)
            ]
            updates = tuple((number, UPDATES[type(spec)](spec, self._device)) for number, spec in of_rows)
            work.append(_RowSetWork(self._evaluation.models[rows.model], rows, updates, tuple(saturating)))
        return work

    def identity(self) -> EvaluationState:
        """Return the state of no rows."""
        state = EvaluationState.identity(self._evaluation.groupings, self._specs)
        state.groups = tuple(engine.identity() for engine in self._of_groups)
        state.staged = tuple([] for _ in self._gathered)
        return state

    @property
    def workspace(self) -> Workspace:
        """The memory of the calling thread."""
        found = self._local.__dict__.get("workspace")
        if found is None:
            found = self._local.workspace = Workspace()
        assert isinstance(found, Workspace)
        return found

    def split_batch(self, batch: Batch) -> Iterator[Batch]:
        """Return a batch whole, or one of lists in pieces of no more candidates than a batch has rows."""
        return split_batch(self._evaluation, self._execution, batch)

    def update(
        self,
        state: EvaluationState,
        batch: Batch,
        place: Place,
        first_number: int = 0,
        task_keys: Sequence[TaskKeys | None] = (),
    ) -> None:
        """Add the rows of a batch to a state.

        Parameters
        ----------
        state : EvaluationState
            The state of the task.
        batch : Batch
            The rows.
        place : Place
            Where they stand.
        first_number : int
            The number of the first of them in the order of the log.
        task_keys : sequence of TaskKeys or None
            For each group key, what is known of the keys in this task.

        Raises
        ------
        DataError
            If a row is saturated and the request forbids it.
        UsageError
            If the slices outgrow the memory.
        """
        state.ledger.n_read += batch.n_read
        state.ledger.n_filtered += batch.n_read - batch.n_rows
        if batch.n_rows == 0:
            return
        # What overflows is counted as infinite, and says so in the result.
        with np.errstate(all="ignore"), self.workspace.scope():
            checked = self._checks.check(state.ledger, batch, place)
            self._add(state, batch, checked, place)
            # What is staged outlives the batch, and the workspace of this thread.
            keys_of = task_keys or [None] * len(self._gathered)
            for rows, staged, keys in zip(self._gathered, state.staged, keys_of, strict=True):
                edges = None if keys is None else keys.at_edges(batch)
                staged.append(rows.rows_of(batch, checked, first_number, edges))

    def settle(self, state: EvaluationState, *, is_whole: bool) -> None:
        """Gather the rows that a state has staged, and evaluate the groups that are whole: they count from now on.

        `is_whole` says that the task has no more rows; before that, those wait that need to.
        """
        for number, rows in enumerate(self._gathered):
            if rows.waits_for_task and not is_whole:
                continue
            for batch in rows.settle(state.staged[number]):
                self._of_groups[number].update_groups(state.groups[number], batch)
            state.staged[number].clear()

    def update_groups(self, state: EvaluationState, groups: GroupedBatch) -> None:
        """Add groups to a state of groups."""
        for piece in pieces_of_groups(groups, self._execution.batch_rows, state.ledger):
            self.update(state, piece, Place(groups.origin, None, -1, names=group_names(piece)))
        self.finish_task(state)

    def _add(self, state: EvaluationState, batch: Batch, checked: CheckedBatch, place: Place) -> None:
        keys = {key: batch.keys(key) for key in self._evaluation.request.keys}
        # Models whose rows are the same rows share their order and their slices.
        by_mask: dict[int, tuple[Mask | None, list[_RowSetWork]]] = {}
        for work in self._work:
            keep_of = checked.models[work.model.index].keep
            if work.rows in keep_of:
                keep = keep_of[work.rows]
                by_mask.setdefault(id(keep), (keep, []))[1].append(work)
        for keep, works in by_mask.values():
            with self.workspace.scope():
                arrangement = Arrangement(
                    state.tables, keys, keep, batch.n_rows, self.workspace, self._device, is_shared=len(works) > 1
                )
                self._check_memory(state, merged=False)
                weight = None if checked.weight is None else arrangement.take(checked.weight)
                for work in works:
                    model_rows = checked.models[work.model.index]
                    rows = UsedRows(
                        arrangement=arrangement,
                        inputs=model_rows.inputs.take(arrangement),
                        weight=weight,
                        space=work.model.space,
                        may_saturate=model_rows.may_saturate,
                        place=place,
                        workspace=self.workspace,
                        device=self._device,
                        features=checked.features,
                    )
                    self._refuse_saturated(work, rows)
                    for number, update in work.updates:
                        update(rows, [table.columns[number] for table in state.tables])

    def _refuse_saturated(self, work: _RowSetWork, rows: UsedRows) -> None:
        if self._evaluation.request.saturation != "error":
            return
        for evaluation in work.saturating:
            flags = rows.saturated(evaluation)
            if flags is not None and flags.any():
                position, row = rows.first_row(flags)
                found = rows.inputs.describe(position, work.model.space)
                raise saturation_error(rows.place, row, work.model, evaluation.loss.name, found)

    def finish_task(self, state: EvaluationState) -> None:
        """Refuse the bad rows of a task, if the request does not drop them.

        Raises
        ------
        DataError
            If the task holds a bad row and bad rows are not dropped.
        """
        refuse_bad_rows(self._evaluation, state.ledger)
        self.settle(state, is_whole=True)

    def check_merged(self, state: EvaluationState) -> None:
        """Refuse a merged state whose slices outgrow the memory, beside those of the tasks that run."""
        self._check_memory(state, merged=True)
        for engine, groups in zip(self._of_groups, state.groups, strict=True):
            engine.check_merged(groups)

    def _slices_bytes(self, state: EvaluationState) -> int:
        """Return what the slices take beside the bounded part of columns, which has memory of its own."""
        bounded = sum(
            min(table.columns[number].nbytes, most) for table in state.tables for number, most in self._bounded
        )
        return state.nbytes - bounded

    def _check_memory(self, state: EvaluationState, *, merged: bool) -> None:
        execution = self._execution
        if not execution.sliced:
            return
        if merged:
            # Half as much again while it grows.
            self._merged_bytes = self._slices_bytes(state) * 3 // 2
        else:
            self._task_bytes = max(self._task_bytes, self._slices_bytes(state))
        needed = self._merged_bytes + execution.threads * self._task_bytes
        if needed <= execution.slices_bytes - self.gathered_bytes:
            return
        table = max(state.tables, key=lambda table: table.nbytes)
        if self._evaluation.slices_are_features or not table.keys:
            columns = " and ".join(table.keys or self._evaluation.feature_sets)
            n_categories = f"{table.n_slices:,} " if table.keys else ""
            raise UsageError(
                f"the {n_categories}categories in {columns} take {format_bytes(needed)} so far, and "
                f"{format_bytes(execution.memory_bytes)} of memory leave {format_bytes(execution.slices_bytes)} for "
                f"them. Leave them out, or raise memory, to {format_bytes(memory_for_slices(2 * needed))} or more."
            )
        raise SlicesOutgrownError(
            f"by {' × '.join(table.keys)} brings the slices to {table.n_slices:,} so far, which take "
            f"{format_bytes(needed)}, and {format_bytes(execution.memory_bytes)} of memory leave "
            f"{format_bytes(execution.slices_bytes)} for them. Slice by fewer values, or raise memory, to "
            f"{format_bytes(memory_for_slices(2 * needed))} or more.",
            (table.keys,),
        )
