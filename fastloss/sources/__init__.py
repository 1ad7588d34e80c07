"""Sources of rows: Parquet files, Arrow streams and frames, Polars lazy frames, behind one protocol."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fastloss.errors import UsageError
from fastloss.sources.base import ReadOptions, Source, SourceSummary, Task
from fastloss.sources.parquet.decoders import check_reader

__all__ = ["ReadOptions", "Source", "SourceSummary", "Task", "open_source"]


def open_source(log: object, options: ReadOptions, columns: Sequence[str] | None = None) -> Source:
    """Open a log for reading; its schema is known afterwards, and no row has been read.

    Parameters
    ----------
    log : str, path, list of these, or a table-like object
        A Parquet file, a glob (``**`` too), a folder, a URL (``s3://``, ``gs://``), a list or tuple of any of these;
        an object with ``__arrow_c_stream__`` (pyarrow tables and readers, Polars frames, …); a pyarrow record batch;
        a Polars lazy frame.
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
    """
    check_reader(options.reader)
    for name in ("batch_rows", "task_bytes"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} is {getattr(options, name)}; it must be at least 1.")

    if isinstance(log, (str, os.PathLike)):
        log = [log]
    if isinstance(log, (list, tuple)):
        paths = [_path(entry) for entry in log]
        if not paths:
            raise UsageError("the list of logs is empty; name at least one file, folder or glob.")
        from fastloss.sources.parquet.source import ParquetSource

        return ParquetSource(paths, options)
    # A lazy frame is known by its module, so that Polars is imported only where the caller already has it.
    if type(log).__name__ == "LazyFrame" and type(log).__module__.startswith("polars."):
        from fastloss.sources.polars_lazy import PolarsLazySource

        return PolarsLazySource(log)
    if hasattr(log, "__arrow_c_stream__") or hasattr(log, "__arrow_c_array__"):
        from fastloss.sources.arrow_stream import ArrowStreamSource

        return ArrowStreamSource(log, columns)
    raise UsageError(
        f"a log of type {type(log).__name__} cannot be read; give a path, a glob, a folder, a list of paths, "
        "a Polars lazy frame, or an object with __arrow_c_stream__ (pyarrow, Polars, pandas, DuckDB)."
    )


def _path(entry: object) -> str:
    text = os.fspath(entry) if isinstance(entry, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise UsageError(f"a list of logs may hold paths only, and holds a {type(entry).__name__}.")
    if not text:
        raise UsageError("a path is empty; name a file, a folder or a glob.")
    return text
