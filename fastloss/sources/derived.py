"""A log with derived columns and a filter: another source, whose batches are changed as they are read."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from fastloss.columns.base import Batch
from fastloss.columns.buckets import Quantiles
from fastloss.columns.derivation import Derivation
from fastloss.columns.pruning import Pruning
from fastloss.errors import DataError, SchemaError
from fastloss.expressions import is_name
from fastloss.files import Stamp
from fastloss.request import Request
from fastloss.sources.base import ReadOptions, Source, SourceSummary, Task, gives_rows_once, survey
from fastloss.sources.key_ranges import RangedRowGroup, ranges_in


class DerivedSource:
    """A source with the columns and the rows that a derivation makes of another's.

    Parameters
    ----------
    source : Source
        The log.
    derivation : Derivation
        What is made of its rows.
    """

    def __init__(self, source: Source, derivation: Derivation) -> None:
        self._source = source
        self._derivation = derivation

    @property
    def schema(self) -> pa.Schema:
        """The log's columns, then the derived ones."""
        return self._derivation.schema

    def quantiles(self, columns: Sequence[str]) -> dict[str, Quantiles]:
        """Return the columns of quantiles that are to be found before these columns can be read."""
        return self._derivation.quantiles(columns)

    def with_numbers(self) -> DerivedSource:
        """Return the log with the numbers that quantiles are of in their columns."""
        return DerivedSource(self._source, self._derivation.with_numbers())

    def with_edges(self, edges: Mapping[str, Sequence[float]]) -> DerivedSource:
        """Return the log with the quantiles that were found, by column."""
        return DerivedSource(self._source, self._derivation.with_edges(edges))

    def stored(self, columns: Sequence[str]) -> tuple[str, ...]:
        """Return the columns of the log that these columns and the filter take."""
        return self._derivation.stored(columns)

    @property
    def gives_rows_once(self) -> bool:
        """Whether the log is a stream that cannot be read a second time."""
        return gives_rows_once(self._source)

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Return the log's tasks; a batch has the rows that the filter keeps. Raises as the log's own source does."""
        names = tuple(columns)
        for task in self._source.tasks(self._derivation.stored(names), self.pruned(options)):
            yield self._derived(task, names)

    def _derived(self, task: Task, columns: tuple[str, ...]) -> Task:
        read = functools.partial(_read, task.read, task.origin, task.row_group, self._derivation, columns)
        return dataclasses.replace(task, read=read, parts=tuple(self._derived(part, columns) for part in task.parts))

    def key_ranges(self, column: str, columns: Sequence[str], options: ReadOptions) -> Iterator[RangedRowGroup] | None:
        """Return the range of a column of the log in each row group of the tasks; None if it is not known."""
        if column in self._derivation.derived:
            return None
        return ranges_in(self._source, column, self._derivation.stored(columns), self.pruned(options))

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what is known of the columns that these are made of."""
        return self._source.summary(self._derivation.stored(columns), self.pruned(options))

    def pruned(self, options: ReadOptions) -> ReadOptions:
        """Return the options with the filter, as far as it reads the log's own columns."""
        where = self._derivation.stored_conditions
        return dataclasses.replace(options, pruning=Pruning(where) if where else None)

    def inputs(self, columns: Sequence[str]) -> list[Stamp] | None:
        """Return the files that the tasks of these columns read."""
        return self._source.inputs(self._derivation.stored(columns))


def derive(
    source: Source, request: Request, keep: Sequence[str], options: ReadOptions, possible: Sequence[str]
) -> Source:
    """Return a log with the derived columns and the filter that a request asks for, or the log if it asks for none.

    Its files are surveyed for what is read of them.

    Parameters
    ----------
    source : Source
        The log.
    request : Request
        What is asked of it.
    keep : sequence of str
        Columns that are read only to be passed on.
    options : ReadOptions
        How it will be read.
    possible : sequence of str
        All names of columns that the request may hold.

    Raises
    ------
    UsageError
        If an expression is none, or needs more than its row.
    SchemaError
        If an expression does not fit the log.
    """
    names = [request.label, *request.columns, *keep]
    known = set(source.schema.names)
    simple = all(name in known or is_name(name) for name in names)
    plain = request.positive is None and not (request.where or request.with_columns or request.mapped)
    if simple and plain:
        # Polars, which evaluates expressions, takes longer to load than a small log takes to read.
        survey(source, names, options)
        return source
    try:
        derivation = Derivation.of(source.schema, request, keep)
    except SchemaError:
        # A column may be in later files alone, or of another type in all of them together.
        survey(source, possible, options)
        derivation = Derivation.of(source.schema, request, keep)
    derived, schema = DerivedSource(source, derivation), source.schema
    survey(source, derivation.stored(names), derived.pruned(options))
    if not source.schema.equals(schema):
        derived = DerivedSource(source, Derivation.of(source.schema, request, keep))
    return derived if derivation else source


def _read(
    read: Callable[[], Iterator[Batch]],
    origin: str,
    row_group: int | None,
    derivation: Derivation,
    columns: tuple[str, ...],
) -> Iterator[Batch]:
    for batch in read():
        try:
            yield derivation.apply(batch, columns)
        except DataError as error:
            where = origin if row_group is None else f"{origin}, row group {row_group}"
            raise DataError(f"{where}: {error}") from error
