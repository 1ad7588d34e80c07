"""List columns in the engine: which lists can be used, and the loops over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, Lists
from fastloss.engine.selection import Mask, Selection
from fastloss.errors import UsageError
from fastloss.metrics.presets import ListInputs
from fastloss.plan import Model, Plan
from fastloss.states.ledger import Cause
from fastloss_kernels.cpu import lists as loops
from fastloss_kernels.cpu.shares import make_divide_by_sum
from fastloss_kernels.domain import Interval, ListRow
from fastloss_kernels.losses import ListwiseLoss

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Why a list has no loss, by what `classify` finds.
_CAUSES: Mapping[int, str] = {
    loops.EMPTY: "empty_list",
    loops.MASKED: "all_masked",
    loops.NO_POSITIVE: "no_positive",
    loops.NO_PAIR: "no_pair",
    loops.TWO_INFINITIES: "two_infinite_predictions",
    loops.NO_SUCH_INDEX: "outside_domain",
}


class ListBatch(NamedTuple):
    """The lists of a batch as loops take them; masked candidates have the score NaN."""

    score: Floats
    score_offsets: Integers
    label: Floats
    label_offsets: Integers

    @property
    def longest(self) -> int:
        """The number of candidates of the longest list."""
        return int(np.diff(self.score_offsets).max(initial=0))

    def candidates(self, rows: Integers) -> Integers:
        """Return the number of unmasked candidates of each of these rows."""
        running = np.append(0, np.cumsum(~np.isnan(self.score)))
        return np.asarray(np.diff(running[self.score_offsets])[rows], dtype=np.int64)

    def prepared(self, inputs: ListInputs, clip: tuple[float, float] | None) -> ListBatch:
        """Return the lists as a preset prepares probabilities; `clip` is what it clips them to, if it does."""
        score, label = self.score, self.label
        if clip is not None:
            clip = clip[0], clip[1] if inputs.upper is None else inputs.upper
        if inputs.normalize == "first":
            score = self._shares(score)
        if clip is not None:
            score = np.clip(score, *clip)
            label = np.clip(label, *clip) if inputs.clips_labels else label
        if inputs.normalize == "last":
            score = self._shares(score)
        return self._replace(score=read_only(score), label=read_only(label))

    def _shares(self, score: Floats) -> Floats:
        shares = np.empty(len(score))
        make_divide_by_sum()(read_only(score), self.score_offsets, shares)
        return shares


class CheckedLists(NamedTuple):
    """For each model its lists, the rows that it may use (None: all), and whether some may be saturated."""

    lists: list[ListBatch]
    keep: list[Mask | None]
    may_saturate: list[bool]


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


def make_values(row: ListRow) -> Callable[..., None]:
    """Make ``values(score, score_offsets, label, label_offsets, lists, scratch, parameters, value_out)``."""
    kernel = loops.make_list_value(row)

    def values(*arguments: Any) -> None:
        *lists, scratch, parameters, value_out = arguments
        kernel(*lists, parameters, scratch, value_out)

    return values


def make_flag(test: Callable[..., bool]) -> Callable[..., None]:
    """Make ``flag(score, score_offsets, label, label_offsets, lists, scratch, parameters, flag_out)``."""
    kernel = loops.make_list_flag(test)

    def flag(*arguments: Any) -> None:
        *lists, _, parameters, flag_out = arguments
        kernel(*lists, parameters, flag_out)

    return flag


class ListChecks:
    """Reads the list columns of a plan's batches, and leaves out the lists that have no loss."""

    def __init__(self, plan: Plan, label_range: Interval, count_outside: Callable[..., tuple[int, int]]) -> None:
        self._plan = plan
        self._label_range = label_range
        self._count_outside = count_outside
        self._classify = loops.make_classify()
        losses = [loss for _, term in plan.terms if isinstance(loss := term.loss, ListwiseLoss)]
        self._losses = losses
        preset = plan.preset
        self._needs = sorted({loops.NEEDS[loss.needs if preset is None else preset.needs(loss)] for loss in losses})
        ignored = [loss.ignore_class for loss in losses]
        ignored += [] if preset is None else [preset.ignored_class]
        self._ignored = sorted({k for k in ignored if k is not None})
        longest = [n for loss in losses if (n := loss.longest_list) is not None]
        self._longest_list = min(longest, default=None)

    def check(self, usable: Selection, batch: Batch) -> CheckedLists:
        """Return the lists of each model; what cannot be used is counted in the selection's ledger."""
        label = self._index(usable, batch) if self._plan.label_is_index else self._labels(usable, batch)
        lists: dict[tuple[str, str], ListBatch] = {}
        selections: dict[tuple[str, str], Selection] = {}
        may_saturate = []
        counted: dict[Cause, Mask] = {}
        for model, allowed in zip(self._plan.models, self._plan.prediction_ranges, strict=True):
            key = (model.column, model.space)
            if key not in lists:
                selections[key] = usable.copy()
                lists[key] = self._scores(selections[key], batch, model, allowed, label, counted)
            low, high = self._plan.unsaturated(model)
            may_saturate.append(any(self._count_outside(lists[key].score, low, high)))
        keys = [(model.column, model.space) for model in self._plan.models]
        return CheckedLists([lists[key] for key in keys], [selections[key].keep for key in keys], may_saturate)

    def _labels(self, usable: Selection, batch: Batch) -> Lists:
        name = self._plan.label
        label = batch.lists(name)
        usable.drop_null(label.valid, Cause("null_label", name, "label"))
        self._drop_bad_elements(usable, label, name, "label", self._label_range)
        if self._plan.label_domain == "pm1":
            values = 0.5 * label.values + 0.5
            if label.elements_valid is not None:
                values[~label.elements_valid] = 0.0
            label = label._replace(values=read_only(values))
        return label

    def _index(self, usable: Selection, batch: Batch) -> Lists:
        name = self._plan.label
        numbers, valid = batch.numbers(name)
        values = numbers.astype(np.float64)
        usable.drop_null(valid, Cause("null_label", name, "label"))
        usable.drop(np.isnan(values), Cause("nan", name, "label"), values)
        for ignored in self._ignored:
            usable.drop(values == ignored, Cause("ignored_class", name, "label"), values)
        return Lists(read_only(values), np.arange(len(values) + 1), valid, None)

    def _drop_bad_elements(
        self, selection: Selection, lists: Lists, column: str, role: str, allowed: Interval
    ) -> None:
        low, high = allowed.bounds
        n_nan, n_outside = self._count_outside(lists.values, low, high)
        if n_nan:
            selection.drop_elements(np.isnan(lists.values), Cause("nan", column, role), lists)
        if n_outside or allowed.without_zero:
            outside = (lists.values < low) | (lists.values > high)
            if allowed.without_zero:
                outside |= lists.values == 0.0
            if lists.elements_valid is not None:
                # What stands for a null element is no number of the log.
                outside &= lists.elements_valid
            selection.drop_elements(outside, Cause("outside_domain", column, role), lists)

    def _scores(
        self,
        selection: Selection,
        batch: Batch,
        model: Model,
        allowed: Interval,
        label: Lists,
        counted: dict[Cause, Mask],
    ) -> ListBatch:
        score = batch.lists(model.column)
        selection.drop_null(score.valid, Cause("null_prediction", model.column, model.space))
        if not self._plan.label_is_index:
            different = score.lengths != label.lengths
            if different.any():
                selection.drop(different, Cause("different_lengths", model.column, model.space), None)
        if self._longest_list is not None:
            lengths = score.lengths
            too_long = Cause("list_too_long", model.column, model.space)
            selection.drop(lengths > self._longest_list, too_long, lengths)
        self._drop_bad_elements(selection, score, model.column, model.space, allowed)
        found = ListBatch(_masked(score, label, self._plan.label_is_index), score.offsets, label.values, label.offsets)
        lowest = max(loss.lowest_score(model.space) for loss in self._losses)
        for need in self._needs:
            rows = np.arange(batch.n_rows) if selection.keep is None else np.flatnonzero(selection.keep)
            classes = np.empty(len(rows), dtype=np.int8)
            self._classify(*found, rows, lowest, need, self._plan.label_is_index, classes)
            if not classes.any():
                continue
            for number, name in _CAUSES.items():
                unwanted = np.zeros(batch.n_rows, dtype=np.bool_)
                unwanted[rows[classes == number]] = True
                if number in (loops.NO_SUCH_INDEX, loops.NO_POSITIVE):
                    cause = Cause(name, self._plan.label, "label")
                    values = label.values if self._plan.label_is_index else None
                    # Each model finds them in the labels that all share.
                    selection.drop(unwanted, cause, values, counted.setdefault(cause, np.zeros_like(unwanted)))
                else:
                    selection.drop(unwanted, Cause(name, model.column, model.space), None)
        return found


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


def read_only(values: Floats) -> Floats:
    """Return a view with the layout that columns have: kernels are compiled for read-only numbers."""
    view = values.view()
    view.flags.writeable = False
    return view
