"""Sources of rows: files, Arrow streams and frames, datasets, Polars lazy frames, behind one protocol."""

from __future__ import annotations

from collections.abc import Sequence

from fastloss.errors import UsageError
from fastloss.sources.base import ReadOptions, Source, SourceSummary, Task
from fastloss.sources.entries import names_files
from fastloss.sources.kinds import opener_of
from fastloss.sources.parquet.decoders import check_reader
from fastloss.sources.stores.options import check_families, check_storage_options

__all__ = ["ReadOptions", "Source", "SourceSummary", "Task", "open_source"]


def open_source(log: object, options: ReadOptions, columns: Sequence[str] | None = None) -> Source:
    """Open a log for reading; its schema is known afterwards, and no row has been read.

    Parameters
    ----------
    log : str, path, list of these, or a table-like object
        A file, a glob (``**`` too), a folder, a table, a URL (``s3://``, ``gs://``, ``abfs://``, ``https://``), ``@``
        and a text file that holds one of these on each line, a list or tuple of any of these; an object with
        ``__arrow_c_stream__`` (pyarrow tables and readers, Polars frames, …); a pyarrow record batch; a pyarrow
        dataset; a table of deltalake or pyiceberg; a Polars lazy frame; a generator or another iterable of record
        batches, of which the first is taken now.
    options : ReadOptions
        How to read.
    columns : sequence of str, optional
        The columns that will be read. Of a frame of another library, no other is converted.

    Returns
    -------
    Source

    Raises
    ------
    UsageError
        If the object is none of these, or no file matches.
    ReadError
        If the first file cannot be opened.
    SchemaError
        If a frame, a stream or a query gives no schema.
    StoreError
        If a store gives no answer in time, or refuses access.
    """
    check_reader(options.reader)
    check_storage_options(options.storage_options)
    for name in ("batch_rows", "task_bytes"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} is {getattr(options, name)}; it must be at least 1.")
    if not names_files(log):
        check_families(options.storage_options, ())
    return opener_of(log).open_log(log, options, columns)
