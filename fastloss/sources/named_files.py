"""Logs that are named by paths."""

from __future__ import annotations

from collections.abc import Sequence

from fastloss.sources.base import ReadOptions, Source
from fastloss.sources.file_lists import entries_of
from fastloss.sources.parquet.source import ParquetSource


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> Source:
    """Open files, globs, folders and URLs; see `fastloss.sources.open_source`."""
    return ParquetSource(entries_of(log) or [], options)
