"""Checks of list columns: the lists that can be used, and by which metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, Lists
from fastloss.engine.checks import CheckedBatch, ModelRows, WeightChecks
from fastloss.engine.device import Device
from fastloss.engine.inputs import ListInputs
from fastloss.engine.selection import Mask, Selection
from fastloss.engine.ties import tie_keys
from fastloss.engine.workspace import read_only
from fastloss.errors import UsageError
from fastloss.metrics.base import ModelFacts
from fastloss.metrics.resolve import Evaluation
from fastloss.states import causes
from fastloss.states.base import LEFT_OUT, RowSet
from fastloss.states.causes import Cause
from fastloss.states.ledger import Ledger, Place
from fastloss_kernels.cpu import lists as loops
from fastloss_kernels.domain import Interval
from fastloss_kernels.losses import ListwiseLoss

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Why a list has no loss, by what `classify` finds.
_CAUSES: Mapping[int, str] = {
    loops.EMPTY: causes.EMPTY_LIST,
    loops.MASKED: causes.ALL_MASKED,
    loops.NO_POSITIVE: causes.NO_POSITIVE,
    loops.NO_PAIR: causes.NO_PAIR,
    loops.TWO_INFINITIES: causes.TWO_INFINITE_PREDICTIONS,
    loops.NO_SUCH_INDEX: causes.OUTSIDE_DOMAIN,
}

# The same where a list that lacks it is an error.
_REQUIRED = {loops.NO_POSITIVE: causes.MISSING_POSITIVE, loops.NO_PAIR: causes.MISSING_PAIR}


def pieces(batch: Batch, most_candidates: int, longest_list: int) -> Iterator[Batch]:
    """Cut a batch so that no list column has more elements in a piece, unless a single list has.

    Raises
    ------
    UsageError
        If a list is longer than `longest_list`.
    """
    lengths = [batch.list_lengths(column) for column in batch.list_columns]
    if not lengths or batch.n_rows == 0:
        yield batch
        return
    longest = np.maximum.reduce(lengths)
    if longest.max() > longest_list:
        raise UsageError(
            f"The log holds a list of {longest.max():,} elements, and the memory has room for {longest_list:,}; "
            "raise memory, or lower threads."
        )
    ends = np.cumsum(longest)
    first = 0
    while first < batch.n_rows:
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + most_candidates, side="right")))
        yield batch.slice(first, last - first)
        first = last


class ListChecks:
    """The checks of list columns."""

    def __init__(self, evaluation: Evaluation, device: Device) -> None:
        self._evaluation = evaluation
        self._count_outside = device.sums.make_count_outside()
        self._weights = WeightChecks(evaluation, device)
        self._label_range = evaluation.column_label_range
        self._classify = device.lists.make_classify()
        losses = [loss for loss in evaluation.losses if isinstance(loss, ListwiseLoss)]
        self._losses = losses
        self._ignored = evaluation.conventions.ignored_classes(losses)
        self._longest_list = min((n for loss in losses if (n := loss.longest_list) is not None), default=None)
        self._row_sets = [
            sorted({spec.rows for spec in evaluation.specs if spec.rows.model == model.index})
            for model in evaluation.models
        ]

    def check(self, ledger: Ledger, batch: Batch, place: Place) -> CheckedBatch:
        """Return a batch's lists; each row that is left out is counted in the ledger."""
        evaluation = self._evaluation
        usable = Selection(ledger, place)
        weight, zero_weight = self._weights.check(usable, batch)
        label = self._index(usable, batch) if evaluation.label_is_index else self._labels(usable, batch)
        found: dict[tuple[str, str], tuple[ListInputs, dict[tuple[str, ...], Mask | None]]] = {}
        models = []
        counted: dict[Cause, Mask] = {}
        for model, allowed in zip(evaluation.models, evaluation.prediction_ranges, strict=True):
            key = (model.column, model.space)
            if key not in found:
                found[key] = self._scores(usable.copy(), batch, model, allowed, label, counted)
            inputs, keep_of = found[key]
            low, high = evaluation.conventions.unsaturated(model.space, model.column)
            may_saturate = any(self._count_outside(inputs.score, low, high))
            keep: dict[RowSet, Mask | None] = {
                rows: keep_of[rows.needs] for rows in self._row_sets[model.index] if rows.needs in keep_of
            }
            if zero_weight is not None:
                keep[model.zero_weight_rows] = zero_weight
            models.append(ModelRows(inputs, keep, may_saturate))
        return CheckedBatch(weight, models)

    def _labels(self, usable: Selection, batch: Batch) -> Lists:
        name = self._evaluation.request.label_column
        label = batch.lists(name)
        usable.drop_null(label.valid, Cause(causes.NULL_LABEL, name, "label"))
        self._drop_bad_elements(usable, label, name, "label", self._label_range)
        if self._evaluation.label_domain == "pm1":
            values = 0.5 * label.values + 0.5
            if label.elements_valid is not None:
                values[~label.elements_valid] = 0.0
            label = label._replace(values=read_only(values))
        return label

    def _index(self, usable: Selection, batch: Batch) -> Lists:
        name = self._evaluation.request.label_column
        numbers, valid = batch.numbers(name)
        values = numbers.astype(np.float64)
        usable.drop_null(valid, Cause(causes.NULL_LABEL, name, "label"))
        usable.drop(np.isnan(values), Cause(causes.NAN, name, "label"), values)
        for ignored in self._ignored:
            usable.drop(values == ignored, Cause(causes.IGNORED_CLASS, name, "label"), values)
        return Lists(read_only(values), np.arange(len(values) + 1), valid, None)

    def _drop_bad_elements(
        self, selection: Selection, lists: Lists, column: str, role: str, allowed: Interval
    ) -> None:
        low, high = allowed.bounds
        n_nan, n_outside = self._count_outside(lists.values, low, high)
        if n_nan:
            selection.drop_elements(np.isnan(lists.values), Cause(causes.NAN, column, role), lists)
        if n_outside or allowed.without_zero:
            outside = (lists.values < low) | (lists.values > high)
            if allowed.without_zero:
                outside |= lists.values == 0.0
            if lists.elements_valid is not None:
                # Whatever stands for a null element does not come from the log.
                outside &= lists.elements_valid
            selection.drop_elements(outside, Cause(causes.OUTSIDE_DOMAIN, column, role), lists)

    def _scores(
        self,
        selection: Selection,
        batch: Batch,
        model: ModelFacts,
        allowed: Interval,
        label: Lists,
        counted: dict[Cause, Mask],
    ) -> tuple[ListInputs, dict[tuple[str, ...], Mask | None]]:
        """Return a model's lists, and which rows hold what is needed, by the needs."""
        evaluation = self._evaluation
        score = batch.lists(model.column)
        selection.drop_null(score.valid, Cause(causes.NULL_PREDICTION, model.column, model.space))
        if not evaluation.label_is_index:
            different = score.lengths != label.lengths
            if different.any():
                selection.drop(different, Cause(causes.DIFFERENT_LENGTHS, model.column, model.space), None)
        if self._longest_list is not None:
            lengths = score.lengths
            too_long = Cause(causes.LIST_TOO_LONG, model.column, model.space)
            selection.drop(lengths > self._longest_list, too_long, lengths)
        self._drop_bad_elements(selection, score, model.column, model.space, allowed)
        masked = _masked(score, label, evaluation.label_is_index)
        # The rows of groups have weights of their own.
        name = evaluation.request.weight
        weight = batch.lists(name).values if name is not None and name in batch.list_columns else None
        ties, different = tie_keys(batch, evaluation.request.ties, evaluation.request.id, score.offsets)
        if different is not None:
            assert evaluation.request.id is not None
            selection.drop(different, Cause(causes.DIFFERENT_LENGTHS, evaluation.request.id, "id"), None)
        inputs = ListInputs(masked, score.offsets, label.values, label.offsets, np.arange(batch.n_rows), weight, ties)
        # A metric of rankings has −∞ for the lowest score; a list that is nothing else is not used beside a loss.
        lowest = max((loss.lowest_score(model.space) for loss in self._losses), default=-np.inf)
        row_sets = [rows for rows in self._row_sets[model.index] if rows.is_used]
        keep: dict[tuple[str, ...], Mask | None] = {}
        if len(row_sets) == 1 and len(row_sets[0].needs) == 1:
            (need,) = row_sets[0].needs
            lacking = self._drop_by_class(selection, inputs, model, lowest, need, counted)
            return inputs, {(need,): selection.keep, **_left_out((need,), [lacking])}
        self._drop_by_class(selection, inputs, model, lowest, "candidate", counted)
        for rows in row_sets:
            # Each set begins with the rows that every metric can use.
            own = selection.copy()
            lacking_each = [
                self._drop_by_class(own, inputs, model, lowest, need, counted)
                for need in rows.needs
                if need not in ("candidate", "ranked candidate")
            ]
            keep |= {rows.needs: own.keep, **_left_out(rows.needs, lacking_each)}
        return inputs, keep

    def _drop_by_class(
        self,
        selection: Selection,
        inputs: ListInputs,
        model: ModelFacts,
        lowest: float,
        need: str,
        counted: dict[Cause, Mask],
    ) -> Mask | None:
        """Leave out the lists that lack what is needed, and return those that have a candidate; None if none does."""
        evaluation = self._evaluation
        lowest = -np.inf if need in loops.RANKED_NEEDS else lowest
        n_rows = len(inputs.rows)
        rows = np.arange(n_rows) if selection.keep is None else np.flatnonzero(selection.keep)
        classes = np.empty(len(rows), dtype=np.int8)
        arguments = (lowest, loops.NEEDS[need], evaluation.label_is_index, classes)
        self._classify(*replace(inputs, rows=rows).arguments, *arguments)
        if not classes.any():
            return None
        lacking: Mask | None = None
        for number, name in _CAUSES.items():
            unwanted = np.zeros(n_rows, dtype=np.bool_)
            unwanted[rows[classes == number]] = True
            if number in _REQUIRED and need in loops.REQUIRED_NEEDS:
                cause = Cause(_REQUIRED[number], evaluation.request.label_column, "label")
                selection.drop(unwanted, cause, None, counted.setdefault(cause, np.zeros_like(unwanted)))
                continue
            if number in (loops.NO_POSITIVE, loops.NO_PAIR) and unwanted.any():
                # Of one need, only one of the two is found.
                lacking = unwanted
            if number in (loops.NO_SUCH_INDEX, loops.NO_POSITIVE):
                cause = Cause(name, evaluation.request.label_column, "label")
                values = inputs.label if evaluation.label_is_index else None
                # Each model finds them in the labels that all share.
                selection.drop(unwanted, cause, values, counted.setdefault(cause, np.zeros_like(unwanted)))
            elif number == loops.NO_PAIR:
                # Two sets of rows of one column find the same lists.
                cause = Cause(name, model.column, model.space)
                selection.drop(unwanted, cause, None, counted.setdefault(cause, np.zeros_like(unwanted)))
            else:
                selection.drop(unwanted, Cause(name, model.column, model.space), None)
        return lacking


def _left_out(needs: tuple[str, ...], lacking: Sequence[Mask | None]) -> dict[tuple[str, ...], Mask]:
    """Return the lists that lack one of several needs, under the name of their set of rows; nothing if none does."""
    found = [mask for mask in lacking if mask is not None]
    return {(LEFT_OUT, *needs): np.logical_or.reduce(found)} if found else {}


def _masked(score: Lists, label: Lists, label_is_index: bool) -> Floats:
    """Return the scores, NaN where the score or its label is null."""
    label_nulls = None if label_is_index else label.elements_valid
    if score.elements_valid is None and label_nulls is None:
        return score.values
    values = score.values.copy()
    if score.elements_valid is not None:
        values[~score.elements_valid] = np.nan
    if label_nulls is not None:
        elements = np.flatnonzero(~label_nulls)
        rows = label.holders(elements)
        # Lists of different lengths are not used.
        same = score.lengths[rows] == label.lengths[rows]
        values[(elements - label.offsets[rows] + score.offsets[rows])[same]] = np.nan
    return read_only(values)
