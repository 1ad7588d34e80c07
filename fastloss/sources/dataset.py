"""Rows from a pyarrow dataset, by its own scanner."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from fastloss.sources.base import ReadOptions
from fastloss.sources.scans import ScanSource

# The scanner reads so many batches, of so many files, ahead of the one that is evaluated; by itself 16 of 4.
_BATCHES_AHEAD = 4
_FILES_AHEAD = 1


def open_log(log: Any, options: ReadOptions, columns: Sequence[str] | None) -> ScanSource:
    """Open a dataset; see `fastloss.sources.open_source`."""
    return ScanSource(log.schema, functools.partial(_scan, log))


def _scan(dataset: Any, columns: list[str], options: ReadOptions) -> Iterator[pa.RecordBatch]:
    scanner = dataset.scanner(
        columns=columns,
        batch_size=options.batch_rows,
        batch_readahead=_BATCHES_AHEAD,
        fragment_readahead=_FILES_AHEAD,
    )
    yield from scanner.to_batches()
