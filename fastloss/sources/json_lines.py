"""Files of JSON objects, one on each line, plain or compressed; a key that a line lacks is null."""

from __future__ import annotations

import functools
import glob
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fastloss.sources.base import ReadOptions
from fastloss.sources.file_log import Part
from fastloss.sources.listing import LogFile
from fastloss.sources.text_files import TYPED_LINES, read_columns, typed_columns, whole_file

if TYPE_CHECKING:
    import polars as pl

READS_STORES = False

_WAY_OUT = "mend the line, or from Python give pl.scan_ndjson(…) with other options as the log"


def schema(file: LogFile) -> pa.Schema:
    """Return the columns of a file."""
    return typed_columns(functools.partial(_scan, file), _WAY_OUT)


def parts(file: LogFile, columns: Sequence[str], options: ReadOptions) -> list[Part]:
    """Return the one part of a file."""
    return whole_file(file)


def read(
    file: LogFile, part: Part, columns: Sequence[str], schema: pa.Schema, options: ReadOptions
) -> Iterator[pa.RecordBatch]:
    """Read some columns of a file; see `fastloss.sources.file_log.FileReader`."""
    yield from read_columns(file, columns, schema, functools.partial(_scan, file), _WAY_OUT)


def _scan(file: LogFile, types: Mapping[str, Any]) -> pl.LazyFrame:
    import polars as pl

    return pl.scan_ndjson(glob.escape(file.path), schema_overrides=dict(types), infer_schema_length=TYPED_LINES)
