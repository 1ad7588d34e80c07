"""Sums: the terms of the rows are computed, weighted, and added to their slices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.engine.device import Device
from fastloss.engine.inputs import RowInputs
from fastloss.engine.slices import UsedRows
from fastloss.engine.updates.base import Update, add_once
from fastloss.engine.updates.list_auc import auc_terms, weight_terms
from fastloss.metrics.conventions import LossEvaluation
from fastloss.metrics.quantities import (
    Candidates,
    Label,
    LabelFrom,
    LabelVariance,
    ListAuc,
    ListAucWeight,
    LossGradient,
    LossHessian,
    LossValue,
    PredictedMean,
    SaturatedWeight,
    SquaredGradient,
    Weight,
    WeightFrom,
)
from fastloss.states.base import SliceRuns
from fastloss.states.sums import Sum, SumColumn
from fastloss_kernels.inverse_links import INVERSE_LINKS

Floats = NDArray[np.float64]
# terms_of(rows): the terms of the rows, weighted; None where there is nothing to add.
Terms = Callable[[UsedRows], Floats | None]
# fill(rows, terms): compute one term for each row, without its weight.
Fill = Callable[[UsedRows, Floats], None]


def _predicted_mean(quantity: PredictedMean, device: Device) -> Fill:
    return lambda rows, terms: np.copyto(terms, rows.predicted_means())


def fill_losses(evaluation: LossEvaluation, device: Device) -> Fill:
    """Return what computes the loss of each row, or the loss or metric of each list."""

    def fill(rows: UsedRows, terms: Floats) -> None:
        inputs = rows.transformed(evaluation.transform)
        loop = device.value(evaluation.formula, lists=inputs.lists)
        loop(*inputs.arguments, evaluation.parameters, *rows.scratch(evaluation.n_scratch), terms)

    return fill


def _candidates(quantity: Candidates, device: Device) -> Fill:
    return lambda rows, terms: np.copyto(terms, rows.inputs.candidates())


_FILLS: Mapping[type, Callable[[Any, Device], Fill]] = {
    PredictedMean: _predicted_mean,
    LossValue: lambda quantity, device: fill_losses(quantity.evaluation, device),
    Candidates: _candidates,
}


def _weights(rows: UsedRows) -> Floats:
    """Return the weights themselves."""
    assert rows.weight is not None
    if rows.weight.dtype == np.float64:
        return rows.weight
    np.copyto(rows.terms, rows.weight)
    return rows.terms


def _weighted_labels(rows: UsedRows) -> Floats:
    """Return label times weight."""
    assert isinstance(rows.inputs, RowInputs)
    np.copyto(rows.terms, rows.inputs.label)
    return rows.terms if rows.weight is None else np.multiply(rows.terms, rows.weight, out=rows.terms)


def _weighted_label_variances(rows: UsedRows) -> Floats:
    """Return y·(1 − y) times weight."""
    assert isinstance(rows.inputs, RowInputs)
    np.subtract(1.0, rows.inputs.label, out=rows.terms)
    np.multiply(rows.terms, rows.inputs.label, out=rows.terms)
    return rows.terms if rows.weight is None else np.multiply(rows.terms, rows.weight, out=rows.terms)


def _saturated_weights(quantity: SaturatedWeight) -> Terms:
    def terms_of(rows: UsedRows) -> Floats | None:
        saturated = rows.saturated(quantity.evaluation)
        if saturated is None:
            return None
        np.copyto(rows.terms, saturated)
        return rows.terms if rows.weight is None else np.multiply(rows.terms, rows.weight, out=rows.terms)

    return terms_of


def _from_threshold(quantity: LabelFrom | WeightFrom) -> Terms:
    def terms_of(rows: UsedRows) -> Floats | None:
        inputs = rows.inputs
        assert isinstance(inputs, RowInputs)
        # NumPy would round a Python float to the column's float32 before it compares.
        reached = inputs.score >= np.float64(quantity.threshold)
        if isinstance(quantity, WeightFrom):
            np.copyto(rows.terms, reached)
        else:
            np.multiply(inputs.label, reached, out=rows.terms, casting="unsafe")
        return rows.terms if rows.weight is None else np.multiply(rows.terms, rows.weight, out=rows.terms)

    return terms_of


def _squared_gradients(quantity: SquaredGradient) -> Terms:
    def terms_of(rows: UsedRows) -> Floats:
        gradient, _ = rows.weighted_derivatives(quantity.evaluation)
        return np.multiply(gradient, gradient, out=rows.terms)

    return terms_of


_TERMS: Mapping[type, Callable[[Any], Terms]] = {
    SaturatedWeight: _saturated_weights,
    LabelFrom: _from_threshold,
    WeightFrom: _from_threshold,
    ListAuc: auc_terms,
    ListAucWeight: weight_terms,
    LossGradient: lambda quantity: lambda rows: rows.weighted_derivatives(quantity.evaluation)[0],
    LossHessian: lambda quantity: lambda rows: rows.weighted_derivatives(quantity.evaluation)[1],
    SquaredGradient: _squared_gradients,
}
# Terms that do not depend on the model.
_SHARED_TERMS: Mapping[type, Callable[[UsedRows], Floats]] = {
    Weight: _weights,
    Label: _weighted_labels,
    LabelVariance: _weighted_label_variances,
}


def make_sum_update(spec: Sum, device: Device) -> Update:
    """Make the update of a sum over rows."""
    if type(spec.quantity) in _TERMS:
        terms_of = _TERMS[type(spec.quantity)](spec.quantity)

        def update_of_terms(rows: UsedRows, columns: Sequence[SumColumn]) -> None:
            if (terms := terms_of(rows)) is not None:
                _add(terms, rows, columns, device)

        return update_of_terms
    if type(spec.quantity) in _SHARED_TERMS:
        shared_terms_of = _SHARED_TERMS[type(spec.quantity)]

        def update_once(rows: UsedRows, columns: Sequence[SumColumn]) -> None:
            def add(column: SumColumn, runs: SliceRuns) -> None:
                _add_terms(shared_terms_of(rows), rows, column, runs, device)

            add_once(spec, spec.quantity, rows, columns, add)

        return update_once
    fill = _FILLS[type(spec.quantity)](spec.quantity, device)
    add_at_once = _fused(spec, device)

    def update(rows: UsedRows, columns: Sequence[SumColumn]) -> None:
        if add_at_once is not None and rows.weight is None and rows.is_whole and not rows.inputs.lists:
            add_at_once(rows, columns[0].only_accumulator(rows.n_rows))
            return
        terms = rows.terms
        if rows.weight is not None and isinstance(spec.quantity, PredictedMean):
            np.multiply(rows.predicted_means(), rows.weight, out=terms)
        else:
            fill(rows, terms)
            if rows.weight is not None:
                np.multiply(terms, rows.weight, out=terms)
        _add(terms, rows, columns, device)

    return update


def _add(terms: Floats, rows: UsedRows, columns: Sequence[SumColumn], device: Device) -> None:
    for column, runs in zip(columns, rows.runs, strict=True):
        _add_terms(terms, rows, column, runs, device)


def _add_terms(terms: Floats, rows: UsedRows, column: SumColumn, runs: SliceRuns, device: Device) -> None:
    if rows.is_whole:
        device.sums.make_add_terms()(terms, column.only_accumulator(rows.n_rows))
    else:
        column.add(terms, runs)


def _fused(spec: Sum, device: Device) -> Callable[[UsedRows, NDArray[np.int64]], None] | None:
    """Return a loop that computes the terms and sums them without storing them, where there is one."""
    quantity = spec.quantity
    if isinstance(quantity, LossValue):
        evaluation = quantity.evaluation

        def add_losses(rows: UsedRows, accumulator: NDArray[np.int64]) -> None:
            inputs = rows.transformed(evaluation.transform)
            loop = device.sums.make_add_values(evaluation.formula)
            loop(*inputs.arguments, evaluation.parameters, accumulator)

        return add_losses
    if isinstance(quantity, PredictedMean):

        def add_means(rows: UsedRows, accumulator: NDArray[np.int64]) -> None:
            inverse_link = INVERSE_LINKS.get(rows.space)
            if inverse_link is None:
                np.copyto(rows.terms, rows.inputs.arguments[0])
                device.sums.make_add_terms()(rows.terms, accumulator)
            else:
                device.sums.make_add_values(inverse_link)(*rows.inputs.arguments, (), accumulator)

        return add_means
    return None
