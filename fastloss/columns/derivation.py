"""What is made of a log's rows before they are evaluated: derived columns, and the rows that a filter keeps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from fastloss.columns.arrow import ArrowBatch
from fastloss.columns.base import Batch
from fastloss.columns.buckets import Bucketed, Quantiles, bind_buckets
from fastloss.columns.expressions import Expression, bind, bind_condition, is_positive
from fastloss.columns.mapping import MappedColumn, bind_map
from fastloss.errors import SchemaError, UsageError, nearest_names
from fastloss.expressions import PolarsExpression, is_name, refusal
from fastloss.request import Request

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Derivation:
    """Derived columns and filters, bound to a log. It can be pickled.

    Attributes
    ----------
    schema : pyarrow.Schema
        The log's columns, then the derived ones.
    derived : mapping of str to Expression, Bucketed or MappedColumn
        Each derived column; it may read those before it.
    where : tuple of Expression
        The conditions that a row must meet.
    """

    schema: pa.Schema
    derived: Mapping[str, Expression | Bucketed | MappedColumn]
    where: tuple[Expression, ...]

    @classmethod
    def of(cls, schema: pa.Schema, request: Request, keep: Sequence[str] = ()) -> Derivation:
        """Bind what a request asks for to the columns of a log.

        Wherever it names a column, what is no column and no plain name is an expression, and names its column.

        Raises
        ------
        UsageError
            If an expression is none, a derived column has the name of another, or quantiles would have to be known
            before the rows that they are of.
        SchemaError
            If an expression does not fit the log.
        """
        derived: dict[str, Expression | Bucketed | MappedColumn] = {}

        def derive(name: str, given: str | PolarsExpression) -> None:
            nonlocal schema
            derived[name] = bind_buckets(given, schema) or bind(given, schema)
            schema = schema.append(pa.field(name, derived[name].type))

        for name, given in request.with_columns or ():
            if name in schema.names:
                raise UsageError(
                    f"with_columns makes a column {name!r}, and the log has one of that name; choose another name."
                )
            derive(name, given)
        for mapped in request.mapped or ():
            if mapped.column not in schema.names and not is_name(mapped.column):
                derive(mapped.column, mapped.column)
            if mapped.name in schema.names:
                raise UsageError(
                    f"The log has a column {mapped.name!r}, as a mapped prediction is called; rename it in the log."
                )
            derived[mapped.name] = bind_map(mapped, schema)
            schema = schema.append(pa.field(mapped.name, derived[mapped.name].type))
        predictions = [model.column for model in request.models]
        weight = [] if request.weight is None else [request.weight]
        for name in (request.label, *predictions, *weight, *request.keys, *request.group_columns, *keep):
            if name not in schema.names and not is_name(name):
                derive(name, name)
        if request.positive is not None:
            if request.label not in schema.names:
                raise SchemaError(
                    f"The log has no column {request.label!r}. {nearest_names(request.label, schema.names)}"
                )
            derive(
                request.label_column, is_positive(request.label, schema.field(request.label).type, request.positive)
            )
        conditions = [part for given in request.where or () for part in bind_condition(given, schema).conjuncts()]
        derivation = cls(schema, derived, tuple(conditions))
        for condition in conditions:
            if names := derivation.quantiles(condition.columns):
                raise refusal(
                    condition.text,
                    f"it filters by {next(iter(names))!r}, whose quantiles are those of the rows that the filter "
                    "keeps; allowed: other columns, such as buckets by cut",
                )
        for name in derivation.quantiles(derived):
            if names := derivation.quantiles(derived[name].columns):
                raise refusal(
                    derived[name].text,
                    f"it needs the quantiles {next(iter(names))!r} before its own; allowed: other columns",
                )
        return derivation

    def __bool__(self) -> bool:
        """Say whether there is anything to do."""
        return bool(self.derived or self.where)

    def stored(self, columns: Iterable[str]) -> tuple[str, ...]:
        """Return the columns of the log that these columns and the filter take, each once."""
        wanted = (*columns, *(read for condition in self.where for read in condition.columns))
        return tuple(name for name in self._read(wanted) if name not in self.derived)

    def quantiles(self, columns: Iterable[str]) -> dict[str, Quantiles]:
        """Return the columns of quantiles that are to be found before these columns can be read."""
        found: dict[str, Quantiles] = {}
        for name in self._read(columns):
            column = self.derived.get(name)
            if isinstance(column, Bucketed) and isinstance(column.buckets, Quantiles):
                found[name] = column.buckets
        return found

    def _read(self, columns: Iterable[str]) -> Iterable[str]:
        """Return these columns and all that they are made of, each once."""
        found: dict[str, None] = {}

        def visit(name: str) -> None:
            if name not in found:
                found[name] = None
                for read in self.derived[name].columns if name in self.derived else ():
                    visit(read)

        for name in columns:
            visit(name)
        return found

    def with_numbers(self) -> Derivation:
        """Return a derivation whose columns of quantiles are the numbers that these are quantiles of."""
        return self._with({name: column.inner for name, column in self._bucketed(self.quantiles(self.derived))})

    def with_edges(self, edges: Mapping[str, Sequence[float]]) -> Derivation:
        """Return a derivation with the quantiles that were found, by column."""
        return self._with({name: column.with_edges(edges[name]) for name, column in self._bucketed(edges)})

    def _bucketed(self, names: Iterable[str]) -> Iterator[tuple[str, Bucketed]]:
        for name in names:
            column = self.derived[name]
            assert isinstance(column, Bucketed)
            yield name, column

    def _with(self, columns: Mapping[str, Expression | Bucketed | MappedColumn]) -> Derivation:
        schema = self.schema
        for name, column in columns.items():
            schema = schema.set(schema.names.index(name), pa.field(name, column.type))
        return replace(self, schema=schema, derived={**self.derived, **columns})

    @property
    def stored_conditions(self) -> tuple[Expression, ...]:
        """The conditions that read columns of the log alone, none derived."""
        return tuple(condition for condition in self.where if not self.derived.keys() & set(condition.columns))

    def apply(self, batch: Batch, columns: Sequence[str]) -> ArrowBatch:
        """Return the rows that are kept, with these columns."""
        assert isinstance(batch, ArrowBatch)
        rows = _Rows(batch.record_batch, self.derived)
        held: pl.Series | None = None
        for condition in self.where:
            found = condition.holds(rows.of(condition.columns))
            held = found if held is None else held & found
            if not held.any():
                break
        n_read = batch.n_rows
        if held is None or held.sum() == n_read:
            held = None
        else:
            rows.keep_only(held)
        arrays = rows.of(columns)
        some = pa.RecordBatch.from_arrays([arrays[name] for name in columns], names=list(columns))
        return ArrowBatch(some, held=held, n_read=n_read)


class _Rows:
    """The columns of some rows, derived when they are asked for."""

    def __init__(self, stored: pa.RecordBatch, derived: Mapping[str, Expression | Bucketed | MappedColumn]) -> None:
        self._arrays = dict(zip(stored.schema.names, stored.columns, strict=True))
        self._derived = derived
        self._held: pl.Series | None = None
        self._filtered: set[str] = set()

    def of(self, names: Iterable[str]) -> dict[str, pa.Array]:
        """Return columns by name."""
        return {name: self._column(name) for name in names}

    def keep_only(self, held: pl.Series) -> None:
        """Leave out the rows that are not marked, of every column."""
        self._held = held

    def _column(self, name: str) -> pa.Array:
        if name not in self._arrays:
            self._arrays[name] = self._derived[name].evaluate(self.of(self._derived[name].columns))
            if self._held is not None:
                # What it was made of has only the rows that are kept.
                self._filtered.add(name)
        elif self._held is not None and name not in self._filtered:
            self._arrays[name] = _filtered(self._arrays[name], self._held)
            self._filtered.add(name)
        return self._arrays[name]


def _filtered(array: pa.Array, held: pl.Series) -> pa.Array:
    import polars as pl

    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(_filtered(array.indices, held), array.dictionary)
    if pa.types.is_floating(array.type) or pa.types.is_integer(array.type):
        # Four times as fast as Arrow's filter.
        some = pl.Series(array).filter(held).to_arrow(compat_level=pl.CompatLevel.oldest())
        return some if some.type == array.type else some.cast(array.type)
    if pa.types.is_string_view(array.type):
        # Arrow has no filter for string views.
        array = array.cast(pa.large_string())
    return array.filter(held.to_arrow())
