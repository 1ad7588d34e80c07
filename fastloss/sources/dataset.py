"""Rows from a pyarrow dataset: its scanner reads the selected columns, batch by batch, anew for each reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastloss.columns.nested import with_fields
from fastloss.sources.arrow_stream import batch_tasks, column_positions, narrowed
from fastloss.sources.base import ReadOptions, SourceSummary, Task

# The scanner reads so many batches, of so many files, ahead of the one that is evaluated; by itself 16 of 4.
_BATCHES_AHEAD = 4
_FILES_AHEAD = 1


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> DatasetSource:
    """Open a dataset; see `fastloss.sources.open_source`."""
    return DatasetSource(log)


class DatasetSource:
    """A pyarrow dataset as a sequence of batches; it can be read any number of times.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
        The dataset. What it reads its files with, and which schema they have, is its own affair.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    @property
    def schema(self) -> pa.Schema:
        """The dataset's schema, fields of structs among the columns."""
        return with_fields(self._dataset.schema)

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns, then scan the dataset and return its batches as tasks, in its own order.

        Parameters
        ----------
        columns : sequence of str
            Columns to read; the scanner is narrowed to them.
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
        stored, positions = narrowed(self._dataset.schema, columns)
        return batch_tasks(self._scan(stored, options), list(columns), positions, options)

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what is known without a scan, which is nothing; raises as ``tasks`` does."""
        column_positions(self._dataset.schema, columns)
        return SourceSummary(files=0, row_groups=0, rows=None, stored_bytes=None, largest_task_bytes=None)

    def inputs(self, columns: Sequence[str]) -> None:
        """Return None: not every dataset tells what it reads."""

    def _scan(self, columns: list[str], options: ReadOptions) -> Iterator[pa.RecordBatch]:
        scanner = self._dataset.scanner(
            columns=columns,
            batch_size=options.batch_rows,
            batch_readahead=_BATCHES_AHEAD,
            fragment_readahead=_FILES_AHEAD,
        )
        yield from scanner.to_batches()
