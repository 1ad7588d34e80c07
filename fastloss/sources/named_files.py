"""Logs that are named by paths: a table, or files whose format says what reads them."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from fastloss.sources.base import ReadOptions, Source
from fastloss.sources.file_formats import PARQUET, format_of_log
from fastloss.sources.file_lists import entries_of
from fastloss.sources.file_log import FileLog
from fastloss.sources.listing import list_files
from fastloss.sources.parquet.source import ParquetSource
from fastloss.sources.stores.options import FAMILIES, check_families
from fastloss.sources.table_formats import named_table


def open_log(log: object, options: ReadOptions, columns: Sequence[str] | None) -> Source:
    """Open files, globs, folders, URLs and tables; see `fastloss.sources.open_source`."""
    entries = entries_of(log, options.stores) or []
    schemes = {entry.partition("://")[0] for entry in entries if "://" in entry}
    check_families(options.storage_options, {FAMILIES[scheme] for scheme in schemes if scheme in FAMILIES})
    table = named_table(entries)
    if table is not None and table.format.module is not None:
        source: Source = importlib.import_module(table.format.module).open_folder(table, options)
        return source
    files = list_files(entries, options.stores)
    format = format_of_log(files)
    return ParquetSource(files, options) if format is PARQUET else FileLog(files, format, options)
