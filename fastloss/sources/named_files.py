"""Logs that are named by paths: the format of their files says what reads them."""

from __future__ import annotations

from collections.abc import Sequence

from fastloss.sources.base import ReadOptions, Source
from fastloss.sources.file_formats import PARQUET, format_of_log
from fastloss.sources.file_lists import entries_of
from fastloss.sources.file_log import FileLog
from fastloss.sources.listing import list_files
from fastloss.sources.parquet.source import ParquetSource


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> Source:
    """Open files, globs, folders and URLs; see `fastloss.sources.open_source`."""
    files = list_files(entries_of(log) or [])
    format = format_of_log(files)
    return ParquetSource(files, options) if format is PARQUET else FileLog(files, format, options)
