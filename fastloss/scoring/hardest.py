"""The rows with the largest losses of a log, found task by task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastloss.budget import format_bytes
from fastloss.errors import SchemaError, UsageError
from fastloss.scoring.request import LOSS_COLUMNS, PLACE_COLUMNS
from fastloss.scoring.rows import ScoredBatch

# The hardest rows of the log may take this part of the memory; so may those of the task that each thread works on.
MEMORY_SHARE = 12
_BYTES_PER_VALUE = 64


def expected_bytes(n_rows: int, keep: Sequence[str]) -> int:
    """Return about how many bytes so many rows take."""
    return n_rows * _BYTES_PER_VALUE * (len(keep) + len(LOSS_COLUMNS) + len(PLACE_COLUMNS))


class HardestRows:
    """The rows with the largest losses among those added; of equal losses, the earlier rows.

    Parameters
    ----------
    n_rows : int
        How many rows to keep.
    keep : sequence of str
        The columns to keep of them.
    most_bytes : int
        The memory that they may take.

    Attributes
    ----------
    threshold : float
        Rows of a smaller loss are not among the hardest.
    """

    def __init__(self, n_rows: int, keep: Sequence[str], most_bytes: int) -> None:
        self.threshold = -float("inf")
        self._n_rows = n_rows
        self._keep = keep
        self._most_bytes = most_bytes
        self._tables: list[pa.Table] = []
        self._n_held = 0

    def identity(self) -> HardestRows:
        """Return the hardest of no rows, to be merged into these."""
        return HardestRows(self._n_rows, self._keep, self._most_bytes)

    def add(self, scored: ScoredBatch, task: int, *, threshold: float) -> None:
        """Add the rows of a batch.

        Parameters
        ----------
        scored : ScoredBatch
            The rows.
        task : int
            The task's index, by which the earlier of two rows is known.
        threshold : float
            Rows of a smaller loss are known not to be among the log's hardest.

        Raises
        ------
        UsageError
            If the hardest rows outgrow their memory.
        """
        batch, values, place = scored
        loss = values[0].to_numpy(zero_copy_only=False)
        # A NaN loss, should there ever be one, is the hardest of all.
        loss = np.where(np.isnan(loss), float("inf"), loss)
        large = loss >= max(threshold, self.threshold)
        if values[0].null_count:
            large &= values[0].is_valid().to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(large)
        if len(rows) == 0:
            return
        if len(rows) > self._n_rows:
            rows = np.sort(rows[np.argsort(-loss[rows], kind="stable")[: self._n_rows]])
        taken = pa.array(rows)
        columns = {f"keep {i}": _plain(batch.column(name).take(taken)) for i, name in enumerate(self._keep)}
        columns |= {name: column.take(taken) for name, column in zip(LOSS_COLUMNS, values, strict=True)}
        columns |= {
            "file": pa.repeat(place.origin, len(rows)),
            "row_group": pa.repeat(pa.scalar(place.row_group, pa.int64()), len(rows)),
            "row": pa.array(place.rows(rows), pa.int64()),
            "task": pa.repeat(pa.scalar(task, pa.int64()), len(rows)),
        }
        self._hold([pa.table(columns)])

    def merge(self, other: HardestRows) -> None:
        """Add the rows of another. The other stays as it is."""
        self._hold(other._tables)

    def table(self, schema: pa.Schema, value_types: Sequence[pa.DataType]) -> pa.Table:
        """Return the rows, the hardest first; without any, `schema` has the log's types of the kept columns."""
        self._prune()
        names = [*self._keep, *LOSS_COLUMNS, *PLACE_COLUMNS]
        if self._tables:
            return self._tables[0].drop_columns(["task"]).rename_columns(names)
        kept = [_plain(pa.array([], schema.field(name).type)) for name in self._keep]
        types = [*value_types, pa.string(), pa.int64(), pa.int64()]
        return pa.table([*kept, *(pa.array([], kind) for kind in types)], names=names)

    def _hold(self, tables: Sequence[pa.Table]) -> None:
        self._tables += tables
        self._n_held += sum(table.num_rows for table in tables)
        held_bytes = sum(table.nbytes for table in self._tables)
        if self._n_held > 2 * self._n_rows or held_bytes > self._most_bytes:
            self._prune()

    def _prune(self) -> None:
        if not self._tables:
            return
        try:
            # The files of a log may store one column in different widths.
            table = pa.concat_tables(self._tables, promote_options="permissive")
        except pa.ArrowException as error:
            raise SchemaError(f"a kept column has types that do not go together: {error}") from error
        loss = table.column("loss").to_numpy()
        loss = np.where(np.isnan(loss), float("inf"), loss)
        order = np.lexsort((table.column("row").to_numpy(), table.column("task").to_numpy(), -loss))[: self._n_rows]
        self._tables = [table.take(pa.array(order)).combine_chunks()]
        self._n_held = len(order)
        if self._tables[0].nbytes > self._most_bytes:
            raise UsageError(
                f"top is {self._n_rows:,}, and {self._n_held:,} rows with their lists and kept columns take "
                f"{format_bytes(self._tables[0].nbytes)}, more than there is room for; ask for fewer, or raise memory."
            )
        if self._n_held == self._n_rows:
            self.threshold = float(loss[order[-1]])


def _plain(column: pa.Array) -> pa.Array:
    """Return a column without a dictionary and without views: both would hold on to much more than these rows."""
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, column.type.value_type)
    return pc.cast(column, pa.large_string()) if pa.types.is_string_view(column.type) else column
