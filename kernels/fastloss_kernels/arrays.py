"""Calls of a formula with arrays and lists: what a loss object does when it is called.

Arrays and sequences are checked, converted to float64 and given to the loops of the CPU. Nothing here knows a loss
class: a caller hands in the formula, its parameters and the ranges of label and prediction. This package knows no
Arrow; `register_list_reader` is how another package teaches it a kind of list column. The loops are imported by the
first call, since they need Numba.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastloss_kernels.domain import Interval, ListRow, Row

# Below this many rows, starting threads costs more than it saves.
PARALLEL_FROM_ROWS = 1 << 20

# The labels of a binary loss that are held as −1 and +1.
SIGNED_LABELS = Interval(-1.0, 1.0)

ListReader = Callable[[Any], "tuple[Any, ...] | None"]

_list_readers: list[ListReader] = []


def register_list_reader(reader: ListReader) -> None:
    """Teach every call with lists another kind of list column.

    ``reader(given)`` returns the fields of `Lists`, or None for what it does not know. Readers are asked in the order
    of their registration, before arrays and sequences are tried. The registration holds for the whole process, so a
    package registers its reader once, when it is imported: `fastloss.losses` registers Arrow and Polars columns.
    """
    if reader not in _list_readers:
        _list_readers.append(reader)


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
        """The number of lists."""
        return len(self.offsets) - 1


def evaluate_rows(
    row: Row,
    parameters: tuple[float, ...],
    score: Any,
    label: Any,
    *,
    space: str,
    score_range: Interval,
    label_range: Interval,
    signed_labels: bool = False,
    outputs: int = 1,
) -> tuple[np.ndarray, ...]:
    """Evaluate a pointwise formula on arrays of one shape.

    Anything that `numpy.asarray` reads is accepted: NumPy, Arrow, Polars and pandas columns. Nulls arrive as NaN.

    Parameters
    ----------
    row, parameters
        The formula and what it reads besides score and label.
    space : str
        What the predictions are called in messages.
    score_range, label_range : Interval
        The allowed predictions and labels.
    signed_labels : bool
        Whether labels are held as −1 to +1; the formula reads 0 to 1.
    outputs : {1, 3}
        The value, or value, gradient and hessian.

    Raises
    ------
    ValueError
        If the shapes differ, or a label or prediction lies outside its domain.
    """
    from fastloss_kernels.cpu import pointwise

    labels, scores = _numbers("label", label), _numbers(space, score)
    if labels.shape != scores.shape:
        raise ValueError(f"label has shape {labels.shape} and {space} has shape {scores.shape}; they must be equal.")
    require_range(space, scores, score_range)
    require_range("label", labels, SIGNED_LABELS if signed_labels else label_range)
    labels = 0.5 * labels + 0.5 if signed_labels else labels
    flat_score, flat_label = _kernel_array(scores), _kernel_array(labels)
    results = tuple(np.empty(flat_score.shape) for _ in range(outputs))
    make = pointwise.make_value if outputs == 1 else pointwise.make_value_gradient_hessian
    kernel = make(row, may_run_parallel(flat_score.size))
    kernel(flat_score, flat_label, parameters, *results)
    if outputs > 1:
        # A formula may have a derivative that does not depend on what is missing.
        missing = np.isnan(flat_score) | np.isnan(flat_label)
        for derivative in results[1:]:
            derivative[missing] = np.nan
    return tuple(result.reshape(labels.shape) for result in results)


def evaluate_lists(
    row: ListRow,
    parameters: tuple[float, ...],
    score: Any,
    label: Any,
    *,
    space: str,
    score_range: Interval,
    label_range: Interval,
    signed_labels: bool = False,
    lowest_score: float,
    needs: str,
    label_is_index: bool,
    ignored_index: int | None = None,
    longest_list: int | None = None,
    n_scratch: int = 0,
    ranked: bool = False,
    derivatives: bool,
) -> tuple[Any, ...]:
    """Evaluate a listwise formula: values float64 ``(n_lists,)`` and, if asked, gradients and hessians.

    Gradients and hessians have the form of the scores: a 2-D array, a list of arrays, a list column. Lists that are
    void, or lack what the loss needs, have NaN.

    Parameters
    ----------
    row, parameters
        The formula and what it reads besides scores and labels.
    space : str
        What the predictions are called in messages.
    score_range, label_range : Interval
        The allowed predictions and labels.
    signed_labels : bool
        Whether labels are held as −1 to +1; the formula reads 0 to 1.
    lowest_score : float
        The lowest score that is not masked.
    needs : {"candidate", "positive", "unmasked positive", "pair"}
        What a list must hold.
    label_is_index : bool
        Whether a label is the index of the right candidate.
    ignored_index : int, optional
        An index whose list has no loss.
    longest_list : int, optional
        The most candidates of a list, where time grows with their square.
    n_scratch : int
        How many arrays of scratch the formula needs.
    ranked : bool
        Whether the formula reads unmasked candidates in the order of their scores; it has no derivatives then.
    derivatives : bool
        Whether gradients and hessians are asked for.

    Raises
    ------
    ValueError
        If the lists of label and score differ in number or length, a list is too long, or a number lies outside its
        domain.
    """
    from fastloss_kernels.cpu import lists as list_loops

    scores = lists_of(score)
    labels = _indices_of(label, ignored_index) if label_is_index else lists_of(label)
    if labels.n_lists != scores.n_lists:
        raise ValueError(f"label has {labels.n_lists} rows and {space} has {scores.n_lists}; they must be equal.")
    usable = ~(labels.void | scores.void)
    different = usable & (np.diff(labels.offsets) != np.diff(scores.offsets))
    if different.any() and not label_is_index:
        k = int(different.argmax())
        lengths = [int(lists.offsets[k + 1] - lists.offsets[k]) for lists in (labels, scores)]
        raise ValueError(f"List {k} has {lengths[0]} labels and {lengths[1]} candidates; they must be equal.")
    if longest_list is not None:
        lengths = np.where(usable, np.diff(scores.offsets), 0)
        if (lengths > longest_list).any():
            k = int((lengths > longest_list).argmax())
            raise ValueError(
                f"List {k} has {int(lengths[k]):,} candidates; allowed: at most {longest_list:,} by max_pairs; "
                "raise max_pairs or shorten the list."
            )
    require_range(space, scores.values, score_range)
    if not label_is_index:
        labels, scores = _masked_alike(labels, scores, -1.0 if signed_labels else 0.0)
        require_range("label", labels.values, SIGNED_LABELS if signed_labels else label_range)
        labels = labels._replace(values=0.5 * labels.values + 0.5) if signed_labels else labels
    lists = np.flatnonzero(usable)
    arrays = (_read_only(scores.values), scores.offsets, _read_only(labels.values), labels.offsets)
    classes = np.empty(len(lists), dtype=np.int8)
    list_loops.make_classify()(*arrays, lists, lowest_score, list_loops.NEEDS[needs], label_is_index, classes)
    no_such_index = classes == list_loops.NO_SUCH_INDEX
    if no_such_index.any():
        k = int(lists[no_such_index.argmax()])
        n_candidates = int(scores.offsets[k + 1] - scores.offsets[k])
        raise ValueError(
            f"label of list {k} is {float(labels.values[k])!r}; allowed: the index of one of its "
            f"{n_candidates} candidates, from 0."
        )
    if needs in list_loops.REQUIRED_NEEDS:
        lacking = (classes == list_loops.NO_POSITIVE) | (classes == list_loops.NO_PAIR)
        if lacking.any():
            what = "label above 0" if list_loops.NO_POSITIVE in classes else "two labels to compare"
            raise ValueError(
                f"List {int(lists[lacking.argmax()])} has no {what}, which empty='error' refuses; allowed: 'skip', "
                "'zero' or 'one'."
            )
    lists = lists[classes == list_loops.USABLE]
    if ranked:
        arrays = _ranked(arrays, lowest_score)
    values = np.full(scores.n_lists, np.nan)
    found = np.empty(len(lists))
    scratch = list_loops.make_scratch(n_scratch, int(np.diff(scores.offsets).max(initial=0)))
    if not derivatives:
        list_loops.make_list_value(row)(*arrays, lists, parameters, scratch, found)
        values[lists] = found
        return (values,)
    gradient, hessian = np.full(len(scores.values), np.nan), np.full(len(scores.values), np.nan)
    kernel = list_loops.make_list_value_gradient_hessian(row, may_run_parallel(len(scores.values)))
    kernel(*arrays, lists, parameters, scratch, found, gradient, hessian)
    values[lists] = found
    return values, scores.like(gradient), scores.like(hessian)


def _ranked(arrays: tuple[np.ndarray, ...], lowest_score: float) -> tuple[np.ndarray, ...]:
    """Return the arrays of lists with their unmasked candidates in the order of their scores."""
    from fastloss_kernels.cpu import ranking

    n, offsets, empty = len(arrays[0]), np.empty_like(arrays[1]), np.empty(0)
    score, label = np.empty(n), np.empty(n)
    ranking.make_rank(0)(*arrays, _read_only(empty), lowest_score, 1.0, False, offsets, score, label, empty)
    return _read_only(score[: offsets[-1]]), offsets, _read_only(label[: offsets[-1]]), offsets


def lists_of(given: Any) -> Lists:
    """Read a 2-D array, or a sequence of arrays, as lists; None is a null list or element, and NaN voids its list."""
    for reader in _list_readers:
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


def _numbers(name: str, given: Any) -> np.ndarray:
    if isinstance(given, np.ma.MaskedArray):
        given = given.astype(np.float64).filled(np.nan)
    values = np.asarray(given)
    if values.dtype.kind not in "biufO":
        raise ValueError(f"{name} has the type {values.dtype}; allowed: real numbers or booleans.")
    if values.dtype.kind in "iu" and values.size and max(abs(int(values.max())), abs(int(values.min()))) > 2**53:
        raise ValueError(f"{name} holds an integer beyond 2**53, which float64 cannot hold; cast it to float64 first.")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} does not hold one number a row; of lists, OverLists(loss) takes the mean or the sum."
        ) from None


def _kernel_array(values: np.ndarray) -> np.ndarray:
    # Kernels are compiled for writable contiguous arrays alone; another layout would compile them anew.
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat if flat.flags.writeable else flat.copy()


def require_range(name: str, values: np.ndarray, allowed: Interval) -> None:
    """Raise a ValueError that names the first number outside a range; NaN is passed over."""
    low, high = allowed.bounds
    outside = (values < low) | (values > high)
    if allowed.without_zero:
        outside |= values == 0.0
    if outside.any():
        first = float(values[outside].flat[0])
        raise ValueError(f"{name} is {first!r}; allowed: {allowed.describe(name)}.")


def _read_only(values: np.ndarray) -> np.ndarray:
    """Return a view that cannot be written to, as those of columns: a kernel is compiled anew for other arrays."""
    view = values.view()
    view.flags.writeable = False
    return view


def _masked_alike(labels: Lists, scores: Lists, masked_label: float) -> tuple[Lists, Lists]:
    """Mask the candidates whose label is masked; their label becomes `masked_label`."""
    elements = np.flatnonzero(np.isnan(labels.values))
    rows = np.searchsorted(labels.offsets, elements, side="right") - 1
    used = ~(labels.void | scores.void)[rows]
    elements, rows = elements[used], rows[used]
    if len(elements) == 0:
        return labels, scores
    label_values, score_values = labels.values.copy(), scores.values.copy()
    label_values[elements] = masked_label
    score_values[elements - labels.offsets[rows] + scores.offsets[rows]] = np.nan
    return labels._replace(values=label_values), scores._replace(values=score_values)


def _indices_of(label: Any, ignored: int | None) -> Lists:
    indices = np.array(label, dtype=np.float64)
    if indices.ndim != 1:
        raise ValueError(f"label has the shape {indices.shape}; allowed: one index for each list.")
    void = np.isnan(indices) | (False if ignored is None else indices == ignored)
    return Lists(indices, np.arange(len(indices) + 1), void, lambda found: found)


def may_run_parallel(n_rows: int) -> bool:
    """Tell whether to use the parallel loop: only from the main thread, where no threading layer can abort."""
    mode = os.environ.get("FASTLOSS_THREADING", "auto")
    if mode != "auto":
        return mode == "parallel"
    return n_rows >= PARALLEL_FROM_ROWS and threading.current_thread() is threading.main_thread()
