"""The rows that are used, in the order of their slices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Keys, NumberArray
from fastloss.engine.device import Device
from fastloss.engine.features import Feature, FeatureSet
from fastloss.engine.inputs import Inputs
from fastloss.engine.selection import Mask
from fastloss.engine.workspace import Workspace, read_only
from fastloss.metrics.conventions import InputTransform, LossEvaluation
from fastloss.states.base import SliceRuns
from fastloss.states.ledger import Place
from fastloss.states.slices import SliceTable
from fastloss_kernels.inverse_links import INVERSE_LINKS

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
T = TypeVar("T")

# Sorting rows by slice pays from about so many rows a slice on; below, each row is added where it belongs.
_ROWS_A_RUN = 16


class Memo:
    """Arrays that are computed when they are first asked for."""

    def __init__(self) -> None:
        self._computed: dict[object, Any] = {}

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """Return what is known under a key, or compute it."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: T = self._computed[key]
        return found


class Arrangement:
    """Some rows of a batch, in the order of the first grouping's slices, and where the slices of each grouping stand.

    Attributes
    ----------
    rows : numpy.ndarray of int64, or None
        The rows of the batch in this order; None for all of them as they stand.
    n_rows, n_batch_rows : int
        How many there are, and how many the batch has.
    runs : tuple of SliceRuns
        Where they belong in each grouping.
    is_whole : bool
        Whether there are no slices.
    is_total : tuple of bool
        Which groupings are the total.
    is_shared : bool
        Whether several models use these rows.
    memo : Memo
        What they share.
    """

    def __init__(
        self,
        tables: Sequence[SliceTable],
        keys: Mapping[str, Keys],
        keep: Mask | None,
        n_batch_rows: int,
        workspace: Workspace,
        device: Device,
        *,
        is_shared: bool,
    ) -> None:
        self.is_shared = is_shared
        self._workspace = workspace
        self._take = device.sums.make_take_rows()
        self.n_batch_rows = n_batch_rows
        self._wide: Floats | None = None
        self.memo = Memo()
        self._taken: dict[int, tuple[NumberArray, NumberArray]] = {}
        self.rows: Integers | None = None if keep is None else np.flatnonzero(keep)
        self.n_rows = n_batch_rows if self.rows is None else len(self.rows)
        sort = device.sums.make_sort_by_slice()
        runs = []
        for number, table in enumerate(tables):
            if not table.keys:
                runs.append(SliceRuns(None, np.array([0, self.n_rows]), np.zeros(1, dtype=np.int64)))
                continue
            columns = [keys[key] for key in table.keys]
            codes = [key.codes if self.rows is None else key.codes[self.rows] for key in columns]
            n_codes = math.prod(len(key.values) for key in columns)
            if n_codes * _ROWS_A_RUN > self.n_rows:
                runs.append(SliceRuns(None, None, table.positions(codes, columns)))
                continue
            numbers, parts_of = _number_combinations(codes, [len(key.values) for key in columns])
            order: Integers | None = np.empty(self.n_rows, dtype=np.int64)
            starts = np.empty(n_codes + 1, dtype=np.int64)
            sort(numbers, n_codes, order, starts)
            present = np.flatnonzero(np.diff(starts))
            starts = np.append(starts[present], self.n_rows)
            if number == 0:
                self.rows = order if self.rows is None else self.rows[order]
                order = None
            runs.append(SliceRuns(order, starts, table.positions(parts_of(present), columns)))
        self.runs = tuple(runs)
        self.is_total = tuple(not table.keys for table in tables)
        self.is_whole = all(self.is_total)

    @property
    def batch_rows(self) -> Integers:
        """The rows of the batch, in this order."""
        return np.arange(self.n_batch_rows) if self.rows is None else self.rows

    def take(self, values: NumberArray) -> NumberArray:
        """Return the values of these rows; each array is gathered once."""
        if self.rows is None:
            return values
        known = self._taken.get(id(values))
        if known is not None:
            return known[1]
        wide = values
        if values.dtype != np.float64:
            # One array for all columns stays in the cache.
            if self._wide is None:
                self._wide = self._workspace.floats(self.n_batch_rows)
            np.copyto(self._wide, values)
            wide = read_only(self._wide)
        out = self._workspace.floats(self.n_rows)
        self._take(wide, self.rows, out)
        # The array is kept beside what was gathered, so that its identity stays its own.
        self._taken[id(values)] = values, read_only(out)
        return self._taken[id(values)][1]


@dataclass
class UsedRows:
    """The rows of a batch that one set of rows holds, as updates read them.

    Attributes
    ----------
    arrangement : Arrangement
        Their order and their slices.
    inputs : RowInputs or ListInputs
        Predictions and labels, in that order.
    weight : numpy.ndarray of float64, float32 or int8, or None
        Their weights; None where each row weighs 1.
    space : str
        The space of the predictions.
    may_saturate : bool
        Whether a loss of some row may be clipped or infinite.
    place : Place
        Where the batch stands.
    workspace : Workspace
        Memory for what an update computes.
    device : Device
        Where kernels run.
    features : mapping of str to Feature or FeatureSet
        The features of all rows of the batch, in its order.
    """

    arrangement: Arrangement
    inputs: Inputs
    weight: NumberArray | None
    space: str
    may_saturate: bool
    place: Place
    workspace: Workspace
    device: Device
    features: Mapping[str, Feature | FeatureSet] = field(default_factory=dict)
    _memo: Memo = field(default_factory=Memo)

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return self.arrangement.n_rows

    @property
    def runs(self) -> tuple[SliceRuns, ...]:
        """Where the rows belong in each grouping."""
        return self.arrangement.runs

    @property
    def is_whole(self) -> bool:
        """Whether there are no slices."""
        return self.arrangement.is_whole

    @property
    def terms(self) -> Floats:
        """An array for one number a row, which every update may overwrite."""
        return self._memo.once("terms", lambda: self.workspace.floats(self.n_rows))

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, computed once for these rows; no update may overwrite it."""
        return self._memo.once(key, compute)

    def predicted_means(self) -> Floats:
        """Return the mean of the label that each row's prediction stands for, float64, read-only."""

        def compute() -> Floats:
            score = self.inputs.arguments[0]
            inverse_link = INVERSE_LINKS.get(self.space)
            if inverse_link is None and score.dtype == np.float64:
                return read_only(score)
            means = self.workspace.floats(self.n_rows)
            if inverse_link is None:
                np.copyto(means, score)
            else:
                self.device.value(inverse_link, lists=False)(*self.inputs.arguments, (), means)
            return read_only(means)

        return self._memo.once("predicted means", compute)

    def transformed(self, transform: InputTransform) -> Inputs:
        """Return the inputs as a loss reads them."""
        if not transform.changes(may_saturate=self.may_saturate):
            return self.inputs
        return self._memo.once(transform, lambda: self.inputs.transformed(transform, self.workspace, self.device))

    def scratch(self, n_scratch: int) -> tuple[Any, ...]:
        """Return what a loop of values takes between parameters and outputs."""
        return self._memo.once(("scratch", n_scratch), lambda: self.inputs.scratch(n_scratch, self.workspace))

    def weighted_derivatives(self, evaluation: LossEvaluation) -> tuple[Floats, Floats]:
        """Return the gradient and the hessian of each row's loss by its prediction, times its weight."""

        def compute() -> tuple[Floats, Floats]:
            inputs = self.transformed(evaluation.transform).writable(None, self.workspace)
            value, gradient, hessian = (self.workspace.floats(self.n_rows) for _ in range(3))
            loop = self.device.value_gradient_hessian(evaluation.formula, lists=False)
            loop(*inputs.arguments, evaluation.parameters, value, gradient, hessian)
            if self.weight is not None:
                np.multiply(gradient, self.weight, out=gradient)
                np.multiply(hessian, self.weight, out=hessian)
            return gradient, hessian

        return self._memo.once(("derivatives", evaluation), compute)

    def saturated(self, evaluation: LossEvaluation) -> Mask | None:
        """Return the rows whose loss is clipped or infinite; None where there can be none."""
        test, parameters = evaluation.saturated, evaluation.saturation_parameters
        if test is None or not self.may_saturate:
            return None

        def compute() -> Mask:
            flags = np.empty(self.n_rows, dtype=np.bool_)
            self.device.flag(test, lists=self.inputs.lists)(*self.inputs.arguments, parameters, flags)
            return flags

        return self._memo.once((test, parameters), compute)

    def first_row(self, flags: Mask) -> tuple[int, int]:
        """Return the position among these rows, and the row of the batch, of the first flagged row of the batch."""
        positions = np.flatnonzero(flags)
        rows = self.arrangement.batch_rows[positions]
        flagged = np.zeros(self.arrangement.n_batch_rows, dtype=np.bool_)
        flagged[rows] = True
        row = self.place.first(flagged)
        return int(positions[np.flatnonzero(rows == row)[0]]), row


def _number_combinations(
    codes: Sequence[NDArray[np.int32]], sizes: Sequence[int]
) -> tuple[Integers, Callable[[Integers], list[Integers]]]:
    """Number the combinations of few key values.

    Returns
    -------
    numbers : numpy.ndarray of int64, shape (n_rows,)
        The number of each row's combination; not all numbers need occur.
    parts_of : callable
        From numbers to the codes in each key column.
    """
    numbers = codes[0].astype(np.int64)
    for column, size in zip(codes[1:], sizes[1:], strict=True):
        numbers = numbers * size + column

    def parts_of(chosen: Integers) -> list[Integers]:
        parts = []
        for size in reversed(sizes):
            chosen, part = np.divmod(chosen, size)
            parts.append(part)
        return parts[::-1]

    return numbers, parts_of
