"""A Parquet log: files as one sequence of row groups."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

import pyarrow as pa

from fastloss.columns.base import Batch
from fastloss.columns.nested import with_fields
from fastloss.columns.pruning import Pruning
from fastloss.errors import ReadError, UsageError
from fastloss.executors import ThreadExecutor
from fastloss.files import Stamp
from fastloss.sources.base import ReadOptions, SourceSummary, Task
from fastloss.sources.joining import joined
from fastloss.sources.key_ranges import NO_KEYS, RangedRowGroup
from fastloss.sources.listing import LogFile
from fastloss.sources.parquet.decoders import decoder_of
from fastloss.sources.parquet.footers import (
    Footer,
    PlannedFile,
    RowGroup,
    changed,
    content_of,
    find_damage,
    held_bytes,
    opened,
    plan_file,
    reading,
    stamp_of,
)
from fastloss.sources.parquet.key_ranges import key_range
from fastloss.sources.parquet.partitions import Selection
from fastloss.sources.parquet.pruning import Bounds, files_that_may_hold
from fastloss.sources.planned_files import PlannedFiles
from fastloss.sources.survey import FoundColumns, Survey

T = TypeVar("T")

_STORE_CONNECTIONS = 16
_FOOTERS_AT_ONCE = 64
_FOOTER_BYTES_AT_ONCE = 8 << 20

_Files = list[tuple[PlannedFile, tuple[RowGroup, ...]]]
_Read = tuple[LogFile, Footer | ReadError, FoundColumns | None]


class _Plan(NamedTuple):
    """What the files have, those to read, and what a filter rules out: whole files, and row groups of the others."""

    survey: Survey
    files: _Files
    pruned_files: int = 0
    pruned_row_groups: int = 0


class ParquetSource(PlannedFiles[_Plan]):
    """A Parquet log: files as one sequence of row groups.

    Files may store a selected column under different types of one kind, such as numbers of any width; the log's type
    is what all of them are together, whatever their order. A missing column (unless ``missing_as_null``) or another
    kind of value is an error that names both files, raised before a row is read.

    Parameters
    ----------
    files : sequence of LogFile
        The files.
    options : ReadOptions
        How to read; ``skip_bad_files``, ``missing_as_null`` and ``task_bytes`` also shape the summary.
    keys : mapping of str to DataType, optional
        The types of the partition keys; left out, they are told from the values.

    Raises
    ------
    UsageError
        If the reader cannot read from there.
    ReadError
        If the first file (with ``skip_bad_files``: every file) cannot be opened.
    """

    def __init__(
        self, files: Sequence[LogFile], options: ReadOptions, keys: Mapping[str, pa.DataType] | None = None
    ) -> None:
        super().__init__(files, options, keys)
        self._check_reader(options)
        self._name = uuid.uuid4().hex
        fields = [field for field in self._first_of(self._schema_of) if field.name not in self._key_types]
        key_fields = [pa.field(key, kind) for key, kind in self._key_types.items()]
        stored = [field for field in with_fields(pa.schema(fields)) if field.name not in self._key_types]
        self._schema = pa.schema([*stored, *key_fields])

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns against every file, then return the tasks: files as listed, row groups in file order.

        Parameters
        ----------
        columns : sequence of str
            Columns to read, partition keys among them.
        options : ReadOptions
            How to read.

        Returns
        -------
        iterator of Task

        Raises
        ------
        SchemaError
            If a column is missing from a file and is not read as null there, or is there under another kind of type.
        ReadError
            If a footer cannot be read or contradicts itself, and bad files are not skipped.
        """
        self._check_reader(options)
        names = tuple(columns)
        tasks = self._tasks(self._plan(names, options.pruning), names, options)
        # In a store a task waits for its file, and many wait at once.
        return joined(tasks, options) if self._is_local else tasks

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return the sizes of these columns as the footers promise them; raises as ``tasks`` does."""
        planned = self._plan(tuple(columns), options.pruning)
        row_groups = [row_group for _, groups in planned.files for row_group in groups]
        return SourceSummary(
            files=len(planned.files),
            row_groups=len(row_groups),
            rows=sum(group.n_rows for group in row_groups),
            stored_bytes=sum(group.stored_bytes for group in row_groups),
            largest_task_bytes=max((held_bytes(g, len(columns), options) for g in row_groups), default=0),
            largest_task_rows=max((group.n_rows for group in row_groups), default=0),
            skipped=list(self._skipped.items()),
            pruned_files=planned.pruned_files,
            pruned_row_groups=planned.pruned_row_groups,
            differences=[types for name in columns if (types := planned.survey.types_of(name)).differ],
        )

    def inputs(self, columns: Sequence[str]) -> list[Stamp]:
        """Return the files whose rows the tasks of these columns give, as they were planned; raises as ``tasks``."""
        return [stamp_of(entry.file, entry.content) for entry, _ in self._plan(tuple(columns), None).files]

    def key_ranges(self, column: str, columns: Sequence[str], options: ReadOptions) -> Iterator[RangedRowGroup] | None:
        """Return the range of a column in each row group of the tasks, or None if footers do not tell.

        Footers are read once more, as long as the iterator is asked. Raises as ``tasks`` does.
        """
        if column in self._key_types:
            return None
        plan = self._plan(tuple(columns), options.pruning)
        return self._key_ranges(plan, column)

    def _key_ranges(self, plan: _Plan, column: str) -> Iterator[RangedRowGroup]:
        kind = plan.survey.type_of(column)
        planned = {entry.file.origin: (entry, row_groups) for entry, row_groups in plan.files}

        def look(file: LogFile) -> list[RangedRowGroup]:
            entry, row_groups = planned[file.origin]
            stored = next((stored for stored in entry.columns if stored.name == column), None)
            if stored is None:
                # The file lacks the column: it is null there.
                return [RangedRowGroup(entry.file.origin, group.number, NO_KEYS) for group in row_groups]
            with reading(entry.file), opened(entry.file, self._name) as (parquet, handle):
                if content_of(entry.file, handle) != entry.content:
                    raise changed(entry.file)
                found = [key_range(parquet.metadata, group.number, stored, kind) for group in row_groups]
            return [
                RangedRowGroup(entry.file.origin, group.number, range)
                for group, range in zip(row_groups, found, strict=True)
            ]

        for found in self._of_each([entry.file for entry, _ in plan.files], look):
            yield from found

    def _of_each(self, files: Sequence[LogFile], read: Callable[[LogFile], T]) -> Iterator[T]:
        """Yield what is read of each file, in their order."""
        if self._is_local:
            yield from map(read, files)
            return
        # A store answers each footer after some tens of milliseconds: ask for many at once. Local files gain nothing.
        found: dict[str, T] = {}
        for first in range(0, len(files), _STORE_CONNECTIONS):
            asked = files[first : first + _STORE_CONNECTIONS]
            # Threads that an interrupt leaves behind do not keep the process.
            executor = ThreadExecutor(_STORE_CONNECTIONS)
            executor.fold(asked, read, lambda file, one: found.update({file.origin: one}))
            yield from (found.pop(file.origin) for file in asked)

    def _check_reader(self, options: ReadOptions) -> None:
        decoder = decoder_of(options.reader)
        if options.verify_checksums and not decoder.VERIFIES_CHECKSUMS:
            raise UsageError(
                f"reader={options.reader!r} cannot verify checksums; use reader='pyarrow', or do not verify."
            )
        if not decoder.READS_STORES and not self._is_local:
            raise UsageError(f"reader={options.reader!r} reads local files only; use reader='pyarrow' for URLs.")

    def _schema_of(self, file: LogFile) -> pa.Schema:
        with reading(file), opened(file, self._name) as (parquet, _):
            return parquet.schema_arrow

    # Planning: from footers to a few numbers

    def _plan_files(self, columns: Sequence[str], pruning: Pruning | None) -> _Plan:
        files = self._readable()
        selected_keys = [name for name in columns if name in self._key_types]
        n_files = len(files)
        if pruning is not None and selected_keys:
            files = files_that_may_hold(pruning, files, {name: self._key_types[name] for name in selected_keys})
        bounds = None if pruning is None else Bounds(pruning, self._schema)

        survey = Survey(columns, self._key_types)
        planned: _Files = []
        for some in self._footers(files, survey):
            damage = iter(find_damage([footer for _, footer, _ in some if isinstance(footer, Footer)]))
            for file, footer, found in some:
                try:
                    if not isinstance(footer, Footer):
                        raise footer
                    if (error := next(damage)) is not None:
                        raise error
                    with reading(file):
                        planned.append(plan_file(self._name, footer))
                        if bounds is not None:
                            bounds.add(footer)
                    assert found is not None
                    survey.count(found, file.origin)
                except ReadError as error:
                    self._skip_or_raise(file, error)
        if bounds is None:
            return _Plan(survey, planned, n_files - len(files))
        kept = bounds.row_groups_that_may_hold(planned)
        pruned = sum(len(groups) for _, groups in planned) - sum(len(groups) for _, groups in kept)
        return _Plan(survey, [(file, groups) for file, groups in kept if groups], n_files - len(files), pruned)

    def _footers(self, files: Sequence[LogFile], survey: Survey) -> Iterator[list[_Read]]:
        """Yield the files' footers, or what is wrong with them, some at a time."""
        some: list[_Read] = []
        n_bytes = 0
        for read in self._of_each(files, functools.partial(self._read_footer, survey=survey)):
            some.append(read)
            footer = read[1]
            n_bytes += footer.metadata.serialized_size if isinstance(footer, Footer) else 0
            if len(some) >= _FOOTERS_AT_ONCE or n_bytes >= _FOOTER_BYTES_AT_ONCE:
                yield some
                some, n_bytes = [], 0
        yield some

    def _read_footer(self, file: LogFile, survey: Survey) -> _Read:
        try:
            with reading(file), opened(file, self._name) as (parquet, handle):
                found = survey.look(parquet.schema_arrow)
                footer = Footer(file, content_of(file, handle), handle.size(), parquet.metadata, found.stored)
                return file, footer, found
        except ReadError as error:
            return file, error, None

    def _tasks(self, plan: _Plan, columns: tuple[str, ...], options: ReadOptions) -> Iterator[Task]:
        selection = Selection(columns, self._key_types, plan.survey.missing_types(columns))
        index = 0
        for entry, row_groups in plan.files:
            for row_group in row_groups:
                yield Task(
                    index=index,
                    origin=entry.file.origin,
                    row_group=row_group.number,
                    first_row=0,
                    n_rows=row_group.n_rows,
                    stored_bytes=row_group.stored_bytes,
                    decoded_bytes=held_bytes(row_group, len(columns), options),
                    read=functools.partial(_read, entry, row_group, selection, options),
                )
                index += 1


def _read(file: PlannedFile, row_group: RowGroup, selection: Selection, options: ReadOptions) -> Iterator[Batch]:
    """Read a row group whole or not at all, in any process."""
    number, promised = row_group.number, row_group.n_rows
    with reading(file.file, number):
        # Of a store it is known where the file is opened.
        if file.file.is_local and content_of(file.file) != file.content:
            raise changed(file.file)
        decoder = decoder_of(options.reader)
        is_too_large = row_group.decoded_bytes > options.task_bytes
        has_fields = any(column.steps for column in file.columns)
        if (is_too_large and not decoder.READS_PIECES) or (has_fields and not decoder.READS_FIELDS):
            decoder = decoder_of("pyarrow")
        delivered = 0
        for batch in decoder.read(file, row_group, selection, options):
            delivered += batch.n_rows
            if delivered > promised:
                break
            if batch.n_rows:
                yield batch
        if delivered != promised:
            raise ReadError(
                f"{file.file.origin!r}, row group {number}, promises {promised} rows and delivers "
                f"{delivered}{' or more' if delivered > promised else ''}; the file is damaged."
            )
