"""A log of files that are no Parquet: one sequence of parts, read by the module of their format.

The rules are those of Parquet logs: files may store a column in different types of one kind, a column that some lack
is an error or null there, ``key=value`` folders are columns, and a bad file is an error or left out.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

import pyarrow as pa

from fastloss.columns.arrays import is_text
from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.nested import ColumnPath, with_fields
from fastloss.columns.pruning import Pruning
from fastloss.errors import ReadError, UsageError
from fastloss.files import Stamp
from fastloss.sources.arrow_stream import narrowed, take_columns
from fastloss.sources.base import ReadOptions, SourceSummary, Task
from fastloss.sources.file_formats import Format
from fastloss.sources.joining import joined
from fastloss.sources.listing import LogFile
from fastloss.sources.parquet.footers import Content, changed, content_of, reading, stamp_of
from fastloss.sources.parquet.partitions import key_column
from fastloss.sources.parquet.pruning import files_that_may_hold
from fastloss.sources.planned_files import PlannedFiles
from fastloss.sources.survey import Survey

if TYPE_CHECKING:
    from fastloss.columns.base import Batch


class Part(NamedTuple):
    """A part of a file that is read whole or not at all.

    Attributes
    ----------
    number : int or None
        Its position in the file; None for the whole file.
    n_rows : int or None
        The rows that it promises; None where only reading tells.
    stored_bytes : int
        What its selected columns take in the file, or the file's size where nothing tells.
    decoded_bytes : int or None
        What reading it holds at once; None where it is read in pieces whose size does not depend on it.
    """

    number: int | None
    n_rows: int | None
    stored_bytes: int
    decoded_bytes: int | None


class FileReader(Protocol):
    """The members of a format's module. What they raise is turned into a ReadError that names the file.

    Attributes
    ----------
    READS_STORES : bool
        Whether it reads from stores, through `LogFile.filesystem`.
    """

    READS_STORES: bool

    def schema(self, file: LogFile) -> pa.Schema:
        """Return the columns of a file."""

    def parts(self, file: LogFile, columns: Sequence[str], options: ReadOptions) -> list[Part]:
        """Return the parts of a file, for these of its columns."""

    def read(
        self, file: LogFile, part: Part, columns: Sequence[str], schema: pa.Schema, options: ReadOptions
    ) -> Iterator[pa.RecordBatch]:
        """Yield these columns of a part, in this order and in batches of any length.

        `schema` is that of the log's first file; a column whose type the file does not tell may be given in the type
        that it has there. A batch refers to no list element or dictionary entry that is not there, whatever the file
        says.
        """


class _PlannedFile(NamedTuple):
    """A file, what it must still hold, the columns to read, and where the selected ones are in these."""

    file: LogFile
    content: Content
    columns: list[str]
    paths: list[ColumnPath]
    parts: list[Part]


class _Plan(NamedTuple):
    """What the files have, those to read, and how many others a filter rules out."""

    survey: Survey
    files: list[_PlannedFile]
    pruned_files: int


class _Selection(NamedTuple):
    """The columns asked for, and the types of those that are partition keys, and of those that some files lack."""

    columns: tuple[str, ...]
    key_types: Mapping[str, pa.DataType]
    missing_types: Mapping[str, pa.DataType]

    def of_file(self, stored: pa.RecordBatch, planned: _PlannedFile) -> pa.RecordBatch:
        """Return the columns of some rows of a file."""
        names = [path.name for path in planned.paths]
        found = dict(zip(names, take_columns(stored, names, planned.paths).columns, strict=True))
        keys = dict(planned.file.keys)
        for name in self.columns:
            if name in self.key_types:
                found[name] = key_column(keys.get(name), self.key_types[name], stored.num_rows)
            elif name not in found:
                found[name] = pa.nulls(stored.num_rows, self.missing_types[name])
        return pa.RecordBatch.from_arrays([found[name] for name in self.columns], names=list(self.columns))


class FileLog(PlannedFiles[_Plan]):
    """Files of one format as a sequence of parts.

    Parameters
    ----------
    files : sequence of LogFile
        The files.
    format : Format
        Their format.
    options : ReadOptions
        How to read; ``skip_bad_files``, ``missing_as_null`` and ``task_bytes`` also shape the summary.

    Raises
    ------
    UsageError
        If the format is not read from there, or has no checksums that could be verified.
    ReadError
        If the first file (with ``skip_bad_files``: every file) cannot be opened.
    """

    def __init__(self, files: Sequence[LogFile], format: Format, options: ReadOptions) -> None:
        super().__init__(files, options)
        self._module = format.module
        reader = reader_of(format.module)
        if options.verify_checksums:
            raise UsageError(f"{format.name} files have no checksums that could be verified; read them without.")
        if not reader.READS_STORES and not self._is_local:
            raise UsageError(
                f"{format.name} files are read from this machine only; copy them, or write the log to Parquet."
            )
        self._first, self._file_schema = self._first_of(self._with_schema)
        fields = [field for field in with_fields(self._file_schema) if field.name not in self._key_types]
        self._schema = pa.schema(fields + [pa.field(key, kind) for key, kind in self._key_types.items()])

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns against every file, then return the tasks: files as listed, parts in file order.

        Raises
        ------
        SchemaError
            If a column is missing from a file and is not read as null there, or is there under another kind of type.
        ReadError
            If a file cannot be opened, and bad files are not skipped.
        """
        names = tuple(columns)
        tasks = self._tasks(self._plan(names, options.pruning), names, options)
        return joined(tasks, options) if self._is_local else tasks

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what the files tell of these columns; raises as ``tasks`` does."""
        planned = self._plan(tuple(columns), options.pruning)
        parts = [part for entry in planned.files for part in entry.parts]
        rows = [part.n_rows for part in parts if part.n_rows is not None]
        held = [part.decoded_bytes for part in parts if part.decoded_bytes is not None]
        return SourceSummary(
            files=len(planned.files),
            row_groups=len(parts),
            rows=sum(rows) if len(rows) == len(parts) else None,
            stored_bytes=sum(part.stored_bytes for part in parts),
            largest_task_bytes=max(held, default=0) if len(held) == len(parts) else None,
            largest_task_rows=max(rows, default=0) if len(rows) == len(parts) else None,
            skipped=list(self._skipped.items()),
            pruned_files=planned.pruned_files,
            differences=[types for name in columns if (types := planned.survey.types_of(name)).differ],
        )

    def inputs(self, columns: Sequence[str]) -> list[Stamp]:
        """Return the files whose rows the tasks of these columns give, as they were planned; raises as ``tasks``."""
        return [stamp_of(entry.file, entry.content) for entry in self._plan(tuple(columns), None).files]

    def _with_schema(self, file: LogFile) -> tuple[LogFile, pa.Schema]:
        with reading(file):
            return file, reader_of(self._module).schema(file)

    def _plan(self, columns: tuple[str, ...], pruning: Pruning | None) -> _Plan:
        if not columns:
            raise UsageError("no column is selected; select at least one.")
        return super()._plan(columns, pruning)

    def _plan_files(self, columns: Sequence[str], pruning: Pruning | None) -> _Plan:
        files = self._readable()
        n_files = len(files)
        keys = {name: kind for name, kind in self._key_types.items() if name in columns}
        if pruning is not None and keys:
            files = files_that_may_hold(pruning, files, keys)
        reader = reader_of(self._module)
        survey = Survey(columns, self._key_types, way_out="rename one of them")
        planned = []
        for file in files:
            try:
                with reading(file):
                    content = content_of(file)
                    schema = self._file_schema if file is self._first else reader.schema(file)
                    found = survey.look(schema)
                    names = [column.name for column in found.stored]
                    stored, paths = narrowed(schema, names) if names else ([], [])
                    parts = reader.parts(file, stored, self._options) if names else []
                    planned.append(_PlannedFile(file, content, stored, paths, parts))
                survey.count(found, file.origin)
            except ReadError as error:
                self._skip_or_raise(file, error)
        return _Plan(survey, planned, n_files - len(files))

    def _tasks(self, planned: _Plan, columns: tuple[str, ...], options: ReadOptions) -> Iterator[Task]:
        selection = _Selection(columns, self._key_types, planned.survey.missing_types(columns))
        index = 0
        for entry in planned.files:
            # What is sent to another process is the schema of the columns alone.
            held = pa.schema([field for field in self._file_schema if field.name in entry.columns])
            for part in entry.parts:
                yield Task(
                    index=index,
                    origin=entry.file.origin,
                    row_group=part.number,
                    first_row=0,
                    n_rows=part.n_rows,
                    stored_bytes=part.stored_bytes,
                    decoded_bytes=options.task_bytes if part.decoded_bytes is None else part.decoded_bytes,
                    read=functools.partial(
                        _read, self._module, entry._replace(parts=[part]), selection, held, options
                    ),
                )
                index += 1


def reader_of(module: str) -> FileReader:
    """Return the module of a format."""
    return cast("FileReader", importlib.import_module(module))


def _read(
    module: str, planned: _PlannedFile, selection: _Selection, schema: pa.Schema, options: ReadOptions
) -> Iterator[Batch]:
    """Read the only part that is left of a planned file, whole or not at all, in any process."""
    file, (part,) = planned.file, planned.parts
    with reading(file, part.number):
        if content_of(file) != planned.content:
            raise ReadError(f"{file.origin!r} changed after it was planned; read a complete log.")
        delivered = 0
        for batch in reader_of(module).read(file, part, planned.columns, schema, options):
            delivered += batch.num_rows
            for first in range(0, batch.num_rows, options.batch_rows):
                yield ArrowBatch(selection.of_file(batch.slice(first, options.batch_rows), planned))
        if part.n_rows not in (None, delivered):
            raise ReadError(
                f"{file.origin!r}, part {part.number}, promises {part.n_rows} rows and delivers {delivered}; "
                "the file is damaged."
            )
        # A store replaces a file whole, also while it is being read.
        if not file.is_local and content_of(file) != planned.content:
            raise changed(file)


def check_array(array: pa.Array) -> pa.Array:
    """Return an array whose offsets and indices lead to what is there; raises what Arrow raises if they do not."""
    kind = array.type
    array.validate(full=is_text(kind) or pa.types.is_nested(kind) or pa.types.is_dictionary(kind))
    return array
