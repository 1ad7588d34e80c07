"""Loops of a list formula over ragged lists: the value alone, or value, gradients and hessians; serial and parallel.

Lists lie one after the other in arrays of candidates; ``offsets`` int64 ``(n_lists + 1,)`` says where each begins. A
label that is an index has a list of length 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import prange

from fastloss_kernels.cpu.pointwise import may_run_parallel, require_range
from fastloss_kernels.jit import compile_cpu, formula
from fastloss_kernels.losses.form import LIST_READERS

if TYPE_CHECKING:
    from fastloss_kernels.losses.form import ListLoss, ListRow

# Lists of about so many candidates are one thread's work at a time.
_PARALLEL_BLOCKS_PER_ARRAY = 64


@functools.cache
def make_list_value(row: ListRow) -> Callable[..., None]:
    """Make ``value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out)``.

    Scores and labels float64 of all candidates; `lists` int64 ``(n,)`` the numbers of the lists to evaluate, and
    `value_out` float64 ``(n,)`` their values, in that order; `scratch` float64 ``(2, longest list)``.
    """

    def value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                scratch[0, : stop - start],
                scratch[1, : stop - start],
                False,
            )

    return compile_cpu(value, formulas=(row,))


@functools.cache
def make_list_value_gradient_hessian(row: ListRow, parallel: bool = False) -> Callable[..., None]:
    """Make ``value_gradient_hessian(…, lists, parameters, value_out, gradient_out, hessian_out)``.

    As `make_list_value`; `gradient_out` and `hessian_out` are float64 of all candidates, and those of lists that are
    not evaluated stay as they are.
    """

    @formula
    def block(score, score_offsets, label, label_offsets, lists, parameters, value_out, gradient_out, hessian_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                gradient_out[start:stop],
                hessian_out[start:stop],
                True,
            )

    def value_gradient_hessian(
        score, score_offsets, label, label_offsets, lists, parameters, value_out, gradient_out, hessian_out
    ):
        block(score, score_offsets, label, label_offsets, lists, parameters, value_out, gradient_out, hessian_out)

    def value_gradient_hessian_parallel(
        score, score_offsets, label, label_offsets, lists, parameters, value_out, gradient_out, hessian_out
    ):
        n_lists = lists.shape[0]
        for b in prange(_PARALLEL_BLOCKS_PER_ARRAY):
            first = n_lists * b // _PARALLEL_BLOCKS_PER_ARRAY
            last = n_lists * (b + 1) // _PARALLEL_BLOCKS_PER_ARRAY
            block(
                score,
                score_offsets,
                label,
                label_offsets,
                lists[first:last],
                parameters,
                value_out[first:last],
                gradient_out,
                hessian_out,
            )

    function = value_gradient_hessian_parallel if parallel else value_gradient_hessian
    return compile_cpu(function, parallel=parallel, formulas=(row,))


@functools.cache
def make_list_flag(test: Callable[..., bool]) -> Callable[..., None]:
    """Make ``flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out)`` of a list test."""

    def flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            flag_out[i] = test(
                score[score_offsets[k] : score_offsets[k + 1]],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
            )

    return compile_cpu(flag, formulas=(test,))


# What a list may be: fit for the loss, or why not.
USABLE, EMPTY, MASKED, NO_POSITIVE, NO_PAIR, TWO_INFINITIES, NO_SUCH_INDEX = range(7)
NEEDS = {"candidate": 0, "positive": 1, "pair": 2}


@functools.cache
def make_classify() -> Callable[..., None]:
    """Make ``classify(score, score_offsets, label, label_offsets, lists, lowest, needs, is_index, class_out)``.

    `class_out` int8 ``(n,)`` receives `USABLE` or why a list is not. A score below `lowest`, or NaN, is masked; where
    −∞ is, two scores of ∞ cannot both have the probability 1. `needs` is one of `NEEDS`. The label of an index has
    one number, else one for each candidate.
    """

    def classify(score, score_offsets, label, label_offsets, lists, lowest, needs, is_index, class_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            scores = score[start:stop]
            n_present = 0
            n_infinite = 0
            for j in range(scores.shape[0]):
                n_present += scores[j] >= lowest
                n_infinite += scores[j] == np.inf
            labels = label[label_offsets[k] : label_offsets[k + 1]]
            positive = False
            low = np.inf
            high = -np.inf
            if needs == 1 and not is_index:
                for j in range(labels.shape[0]):
                    if labels[j] > 0.0:
                        positive = True
                        break
            elif needs == 2 and not is_index:
                for j in range(scores.shape[0]):
                    here = scores[j] >= lowest
                    low = min(low, labels[j] if here else np.inf)
                    high = max(high, labels[j] if here else -np.inf)
            found = USABLE
            if stop == start:
                found = EMPTY
            elif n_present == 0:
                found = MASKED
            elif n_infinite > 1 and lowest > -np.inf:
                found = TWO_INFINITIES
            elif is_index:
                y = labels[0]
                found = USABLE if (y == np.floor(y)) & (y >= 0.0) & (y < stop - start) else NO_SUCH_INDEX
            elif needs == 1 and not positive:
                found = NO_POSITIVE
            elif needs == 2 and not low < high:
                found = NO_PAIR
            class_out[i] = found

    return compile_cpu(classify)


class Lists(NamedTuple):
    """Lists of numbers, one after the other.

    Attributes
    ----------
    values : numpy.ndarray of float64, shape (n_candidates,)
        NaN where masked.
    offsets : numpy.ndarray of int64, shape (n_lists + 1,)
    void : numpy.ndarray of bool, shape (n_lists,)
        Lists that are null or hold a NaN of their own.
    like : callable
        ``like(values) -> lists``: numbers for the same candidates in the form in which these lists were given.
    """

    values: np.ndarray
    offsets: np.ndarray
    void: np.ndarray
    like: Callable[[np.ndarray], Any]

    @property
    def n_lists(self) -> int:
        """How many lists there are."""
        return len(self.offsets) - 1


def lists_of(given: Any) -> Lists:
    """Read a 2-D array, or a sequence of arrays, as lists; None is a null list or element, and NaN voids its list."""
    for reader in LIST_READERS:
        if (found := reader(given)) is not None:
            return Lists(*found)
    if isinstance(given, np.ndarray) and given.ndim == 2:
        n_lists, length = given.shape
        values = np.ascontiguousarray(given, dtype=np.float64)
        offsets = np.arange(0, n_lists * length + 1, length) if length else np.zeros(n_lists + 1, dtype=np.int64)
        shape = given.shape
        void = np.isnan(values).any(axis=1)
        return Lists(values.reshape(-1), offsets.astype(np.int64), void, lambda found: found.reshape(shape))
    arrays = [None if entry is None else np.asarray(entry, dtype=np.float64) for entry in given]
    if any(array is not None and array.ndim != 1 for array in arrays):
        raise ValueError("Lists are needed: a 2-D array, a list column, or a sequence of 1-D arrays.")
    filled = [np.empty(0) if array is None else array for array in arrays]
    offsets = np.zeros(len(filled) + 1, dtype=np.int64)
    np.cumsum([len(array) for array in filled], out=offsets[1:])
    # None has become NaN, too: it masks its candidate, and does not void the list.
    nulls = [sum(x is None for x in entry) if isinstance(entry, list | tuple) else 0 for entry in given]
    void = np.array(
        [array is None or np.isnan(array).sum() > n for array, n in zip(arrays, nulls, strict=True)], dtype=np.bool_
    )
    parts = offsets[1:-1]
    return Lists(np.concatenate([*filled, np.empty(0)]), offsets, void, lambda found: np.split(found, parts))


def evaluate_lists(loss: ListLoss, space: str, label: Any, score: Any, *, derivatives: bool) -> tuple[Any, ...]:
    """Evaluate a loss on lists: values float64 ``(n_lists,)`` and, if asked, gradients and hessians.

    Gradients and hessians have the form of the scores: a 2-D array, a list of arrays, a list column. Lists
    that are void, or lack what the loss needs, have NaN.

    Raises
    ------
    ValueError
        If the lists of label and score differ in number or length, or a number lies outside its domain.
    """
    scores = lists_of(score)
    is_index = loss.label_kind == "index"
    labels = _indices_of(loss, label) if is_index else lists_of(label)
    if labels.n_lists != scores.n_lists:
        raise ValueError(f"label has {labels.n_lists} rows and {space} has {scores.n_lists}; they must be equal.")
    usable = ~(labels.void | scores.void)
    different = usable & (np.diff(labels.offsets) != np.diff(scores.offsets))
    if different.any() and not is_index:
        k = int(different.argmax())
        lengths = [int(lists.offsets[k + 1] - lists.offsets[k]) for lists in (labels, scores)]
        raise ValueError(f"List {k} has {lengths[0]} labels and {lengths[1]} candidates; they must be equal.")
    require_range(space, scores.values, loss.prediction_range(space))
    if not is_index:
        labels, scores = _masked_alike(labels, scores)
        require_range("label", labels.values, loss.label_range)
    lists = np.flatnonzero(usable)
    arrays = (_read_only(scores.values), scores.offsets, _read_only(labels.values), labels.offsets)
    classes = np.empty(len(lists), dtype=np.int8)
    make_classify()(*arrays, lists, loss.lowest_score(space), NEEDS[loss.needs], is_index, classes)
    if (classes == NO_SUCH_INDEX).any():
        k = int(lists[(classes == NO_SUCH_INDEX).argmax()])
        n_candidates = int(scores.offsets[k + 1] - scores.offsets[k])
        raise ValueError(
            f"label of list {k} is {float(labels.values[k])!r}; allowed: the index of one of its "
            f"{n_candidates} candidates, from 0."
        )
    lists = lists[classes == USABLE]
    values = np.full(scores.n_lists, np.nan)
    found = np.empty(len(lists))
    parameters = loss.parameters(space)
    if not derivatives:
        longest = int(np.diff(scores.offsets).max(initial=0))
        make_list_value(loss.rows[space])(*arrays, lists, parameters, np.empty((2, longest)), found)
        values[lists] = found
        return (values,)
    gradient, hessian = np.full(len(scores.values), np.nan), np.full(len(scores.values), np.nan)
    kernel = make_list_value_gradient_hessian(loss.rows[space], may_run_parallel(len(scores.values)))
    kernel(*arrays, lists, parameters, found, gradient, hessian)
    values[lists] = found
    return values, scores.like(gradient), scores.like(hessian)


def _read_only(values: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written to, as those of columns: a kernel is compiled anew for other arrays."""
    view = values.view()
    view.flags.writeable = False
    return view


def _masked_alike(labels: Lists, scores: Lists) -> tuple[Lists, Lists]:
    """Mask the candidates whose label is masked."""
    elements = np.flatnonzero(np.isnan(labels.values))
    rows = np.searchsorted(labels.offsets, elements, side="right") - 1
    used = ~(labels.void | scores.void)[rows]
    elements, rows = elements[used], rows[used]
    if len(elements) == 0:
        return labels, scores
    label_values, score_values = labels.values.copy(), scores.values.copy()
    label_values[elements] = 0.0
    score_values[elements - labels.offsets[rows] + scores.offsets[rows]] = np.nan
    return labels._replace(values=label_values), scores._replace(values=score_values)


def _indices_of(loss: ListLoss, label: Any) -> Lists:
    indices = np.array(label, dtype=np.float64)
    if indices.ndim != 1:
        raise ValueError(f"{loss.name} reads one index for each list; label has the shape {indices.shape}.")
    ignored = getattr(loss, "ignore_class", None)
    void = np.isnan(indices) | (False if ignored is None else indices == ignored)
    return Lists(indices, np.arange(len(indices) + 1), void, lambda found: found)
