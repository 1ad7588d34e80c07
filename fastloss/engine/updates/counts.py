"""Counts: rows, positives, candidates, and rows whose loss is clipped or infinite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.engine.device import Device
from fastloss.engine.inputs import RowInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update, add_once
from fastloss.engine.updates.list_auc import count_candidates, count_kind
from fastloss.metrics.quantities import (
    Candidates,
    ClippedRows,
    InfiniteRows,
    ListAucCandidates,
    ListsOfKind,
    Positives,
    Rows,
    SaturatedRows,
)
from fastloss.states.counts import Count, CountColumn
from fastloss_kernels.calibration import CLIPPED

# count(rows): a flag or a number for each row; None where nothing is to be counted.
Counting = Callable[[UsedRows], NDArray[Any] | None]


def _candidates(quantity: Candidates, device: Device) -> Counting:
    return lambda rows: rows.inputs.candidates()


def _saturated(quantity: SaturatedRows, device: Device) -> Counting:
    return lambda rows: rows.saturated(quantity.evaluation)


def _infinite(quantity: InfiniteRows, device: Device) -> Counting:
    evaluation = quantity.evaluation

    def count(rows: UsedRows) -> NDArray[Any] | None:
        saturated = rows.saturated(evaluation)
        if saturated is None or not saturated.any():
            return None
        exact, inputs = rows.terms, rows.inputs
        loop = device.value(evaluation.exact_formula, lists=inputs.lists)
        loop(*inputs.arguments, evaluation.exact_parameters, *rows.scratch(evaluation.n_scratch), exact)
        return np.isinf(exact)

    return count


def _clipped(quantity: ClippedRows, device: Device) -> Counting:
    low, high = CLIPPED[quantity.space]

    def count(rows: UsedRows) -> NDArray[Any] | None:
        if not rows.may_saturate:
            return None
        assert isinstance(rows.inputs, RowInputs)
        score = rows.inputs.score.astype(np.float64)
        return (score < low) | (score > high)

    return count


_COUNTINGS: Mapping[type, Callable[[Any, Device], Counting]] = {
    Candidates: _candidates,
    SaturatedRows: _saturated,
    ClippedRows: _clipped,
    InfiniteRows: _infinite,
    ListsOfKind: count_kind,
    ListAucCandidates: count_candidates,
}


def make_count_update(spec: Count, device: Device) -> Update:
    """Make the update of a count of rows, or of what is in them."""
    if isinstance(spec.counted, Rows):

        def count_rows(rows: UsedRows, columns: Sequence[CountColumn]) -> None:
            for column, runs in zip(columns, rows.runs, strict=True):
                column.add_lengths(runs)

        return count_rows
    if isinstance(spec.counted, Positives):

        def count_positives(rows: UsedRows, columns: Sequence[CountColumn]) -> None:
            inputs = rows.inputs
            assert isinstance(inputs, RowInputs)
            add_once(spec, spec.counted, rows, columns, lambda column, runs: column.add(inputs.label > 0.0, runs))

        return count_positives
    counting = _COUNTINGS[type(spec.counted)](spec.counted, device)

    def update(rows: UsedRows, columns: Sequence[CountColumn]) -> None:
        counted = counting(rows)
        if counted is None:
            return
        for column, runs in zip(columns, rows.runs, strict=True):
            column.add(counted, runs)

    return update
