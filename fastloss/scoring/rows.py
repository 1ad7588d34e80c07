"""The loss, gradient and hessian of each row of a task, for columns of numbers and for columns of lists."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.budget import Execution
from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.base import Batch, kept_rows
from fastloss.engine.batches import make_checks, split_batch
from fastloss.engine.checks import refuse_bad_rows, saturation_error
from fastloss.engine.device import DEVICES
from fastloss.engine.inputs import Inputs
from fastloss.engine.selection import Mask
from fastloss.engine.workspace import Workspace
from fastloss.metrics.resolve import Evaluation
from fastloss.scoring.outputs import OutputCounts
from fastloss.sources.base import Task
from fastloss.states.ledger import Place

NumberT = TypeVar("NumberT", np.float64, np.bool_)


class ScoredBatch(NamedTuple):
    """Rows with their losses.

    Attributes
    ----------
    batch : pyarrow.RecordBatch
        The rows, with the columns as the log has them.
    values : list of pyarrow.Array
        Loss, gradient and hessian of each row, null where the row has none.
    place : Place
        Where the first row stands.
    """

    batch: pa.RecordBatch
    values: list[pa.Array]
    place: Place


class RowScorer:
    """Evaluates the one loss of the one model of a request. It may be called from several threads at once."""

    def __init__(self, evaluation: Evaluation, execution: Execution) -> None:
        (self._model,) = evaluation.models
        (loss,) = evaluation.losses
        self._evaluation = evaluation
        self._execution = execution
        self._loss = self._model.evaluation(loss)
        self._rows = self._model.rows(self._loss.needs)
        self._unit = evaluation.conventions.unit(loss)
        self._device = DEVICES[execution.device]
        self._checks = make_checks(evaluation, self._device)
        self._local = threading.local()

    def score_task(self, task: Task, counts: OutputCounts) -> Iterator[ScoredBatch]:
        """Return the rows of a task with their losses, and count them.

        Raises
        ------
        ReadError
            If the task cannot be read.
        DataError
            If a row is saturated and the request forbids it. At the end, if the task holds a bad row and bad rows are
            not dropped.
        """
        for whole in task.read():
            for batch in split_batch(self._evaluation, self._execution, whole):
                assert isinstance(batch, ArrowBatch)
                place = Place(task.origin, task.row_group, task.first_row + counts.ledger.n_read, kept_rows(batch))
                yield ScoredBatch(batch.record_batch, self._score(batch, place, counts), place)
        refuse_bad_rows(self._evaluation, counts.ledger)

    def _score(self, batch: Batch, place: Place, counts: OutputCounts) -> list[pa.Array]:
        workspace: Workspace = self._local.__dict__.setdefault("workspace", Workspace())
        counts.ledger.n_read += batch.n_read
        counts.ledger.n_filtered += batch.n_read - batch.n_rows
        with np.errstate(all="ignore"), workspace.scope():
            (rows,) = self._checks.check(counts.ledger, batch, place).models
            keep = rows.keep[self._rows]
            inputs = rows.inputs.writable(keep, workspace)
            if rows.may_saturate:
                self._count_saturated(inputs, keep, place, counts)
            transform = self._loss.transform
            if transform.changes(may_saturate=rows.may_saturate):
                inputs = inputs.transformed(transform, workspace, self._device).writable(keep, workspace)
            return self._evaluate(inputs, keep, workspace)

    def _count_saturated(self, inputs: Inputs, keep: Mask | None, place: Place, counts: OutputCounts) -> None:
        if self._loss.saturated is None:
            return
        flags = np.empty(inputs.n_values, dtype=np.bool_)
        loop = self._device.flag(self._loss.saturated, lists=inputs.lists)
        loop(*inputs.arguments, self._loss.saturation_parameters, flags)
        if keep is not None:
            flags = _by_row(flags, keep) & keep
        counts.saturated += int(np.count_nonzero(flags))
        if self._evaluation.request.saturation == "error" and flags.any():
            row = int(flags.argmax())
            found = inputs.describe(row, self._model.space)
            raise saturation_error(place, row, self._model, self._loss.loss.name, found)

    def _evaluate(self, inputs: Inputs, keep: Mask | None, workspace: Workspace) -> list[pa.Array]:
        # In memory of their own, since they live on until they are written.
        values = np.empty(inputs.n_values)
        derivatives = [np.zeros(inputs.n_predictions) for _ in range(2)]
        loop = self._device.value_gradient_hessian(self._loss.formula, lists=inputs.lists)
        scratch = inputs.scratch(self._loss.n_scratch, workspace)
        loop(*inputs.arguments, self._loss.parameters, *scratch, values, *derivatives)
        if self._unit is not None:
            for column in (values, *derivatives):
                np.divide(column, self._unit.size, out=column)
        null = None if keep is None else ~keep
        loss = pa.array(values if keep is None else _by_row(values, keep), mask=null, from_pandas=False)
        if inputs.offsets is None:
            return [loss, *(pa.array(column, mask=null, from_pandas=False) for column in derivatives)]
        offsets = pa.array(inputs.offsets, pa.int64())
        nulls = None if null is None else pa.array(null)
        return [loss, *(pa.LargeListArray.from_arrays(offsets, pa.array(d), mask=nulls) for d in derivatives)]


def _by_row(values: NDArray[NumberT], keep: Mask) -> NDArray[NumberT]:
    """Return one value for each row of the batch, where there may be values of the used rows alone."""
    if len(values) == len(keep):
        return values
    spread = np.zeros(len(keep), dtype=values.dtype)
    spread[keep] = values
    return spread


def value_types(evaluation: Evaluation) -> list[pa.DataType]:
    """Return the types of a `ScoredBatch`'s values: numbers, and lists of them for derivatives by lists."""
    derivative = pa.large_list(pa.float64()) if evaluation.lists else pa.float64()
    return [pa.float64(), derivative, derivative]
