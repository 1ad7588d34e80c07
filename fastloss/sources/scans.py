"""Rows that another library scans: a function from columns to record batches, called anew for each reading."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa

from fastloss.columns.nested import with_fields
from fastloss.sources.arrow_stream import batch_tasks, column_positions, narrowed, summary_of_stream
from fastloss.sources.base import ReadOptions, SourceSummary, Task

Scan = Callable[[list[str], ReadOptions], Iterable[pa.RecordBatch]]


class ScanSource:
    """A scan as a sequence of batches; it can be read any number of times.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns.
    scan : callable
        From some of the columns to record batches that have these in any order. What it holds is its own affair.
    """

    def __init__(self, schema: pa.Schema, scan: Scan) -> None:
        self._columns = schema
        self._scan = scan

    @property
    def schema(self) -> pa.Schema:
        """The columns, fields of structs among them."""
        return with_fields(self._columns)

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns, then scan those that hold them and return the batches as tasks, in the scan's own order.

        Parameters
        ----------
        columns : sequence of str
            Columns to read.
        options : ReadOptions
            Only ``batch_rows`` matters here.

        Returns
        -------
        iterator of Task

        Raises
        ------
        SchemaError
            If a column is missing.
        ReadError
            While iterating: if the scan fails.
        """
        stored, positions = narrowed(self._columns, columns)
        return batch_tasks(self._batches(stored, options), list(columns), positions, options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what is known without a scan, which is nothing; raises as ``tasks`` does."""
        column_positions(self._columns, columns)
        return summary_of_stream(None)

    def inputs(self, columns: Sequence[str]) -> None:
        """Return None: not every scan tells what it reads."""

    def _batches(self, columns: list[str], options: ReadOptions) -> Iterator[pa.RecordBatch]:
        for batch in self._scan(columns, options):
            yield batch.select(columns)
