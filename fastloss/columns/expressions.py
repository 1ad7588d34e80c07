"""Expressions bound to the columns of a log, and evaluated batch by batch by Polars.

An expression is refused unless Polars evaluates each row by itself, since a batch is no unit that the user knows.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import operator
import re
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fastloss.columns.arrays import is_text
from fastloss.errors import DataError, FastlossError, SchemaError, UsageError, nearest_names
from fastloss.expressions import (
    PolarsExpression,
    is_name,
    possible_columns,
    quote_dotted,
    refusal,
    refuse_buckets,
    refuse_queries,
    tokens_of,
)

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")

_OUTPUT = "__fastloss"
_FEW_ENTRIES = 4
_EVERY = {
    "second": "1s",
    "minute": "1m",
    "hour": "1h",
    "day": "1d",
    "week": "1w",
    "month": "1mo",
    "quarter": "1q",
    "year": "1y",
}
# Python's own recursion ends at 1,000, and each level takes several calls.
_MOST_DEPTH = 200
_NEEDS_MORE = (
    "it needs more than its row (an aggregate, a window, a shift, an order), and the log is read in batches; "
    "compute such a column when the log is written, or give a Polars lazy frame as the log"
)
# Nodes that Polars moves no slice past although each row is evaluated by itself, since they fail on a bad text; and
# those that cannot be tried alone, since only the types of both sides say what a text in them means.
_FALLIBLE = re.compile(r"(?:strict_cast|cast|str\.strptime|str\.to_\w+)")
_BY_ROW = re.compile(
    r"(?:sql_is_in|is_in|is_between|not|is_null|is_not_null|strict_cast|cast|str\.strptime|str\.to_\w+)"
)


@dataclass(frozen=True)
class Expression:
    """An expression bound to the columns of a log. It can be pickled.

    Attributes
    ----------
    text : str
        What the user wrote; for a Polars expression, what Polars prints.
    sql : str or None
        The text in Polars' SQL, its dotted names quoted where they are columns; None for a Polars expression.
    serialized : bytes or None
        The expression as Polars writes it: what the SQL means without the columns' types, where that is the same.
        None where it is not, as with ``day >= '2026-03-01'`` on dates.
    schema : pyarrow.Schema
        The columns that it reads, with their types.
    type : pyarrow.DataType
        The type of its values.
    """

    text: str
    sql: str | None
    serialized: bytes | None
    schema: pa.Schema
    type: pa.DataType

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        return tuple(self.schema.names)

    @cached_property
    def polars(self) -> pl.Expr | None:
        """The expression, where it needs no types."""
        import polars as pl

        return None if self.serialized is None else pl.Expr.deserialize(self.serialized)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is made of the rest."""
        return {name: value for name, value in self.__dict__.items() if name not in ("polars", "_last")}

    def conjuncts(self) -> tuple[Expression, ...]:
        """Return the conditions that must all hold, where this is one of several joined by AND."""
        if self.polars is None:
            return (self,)
        parts: list[pl.Expr] = []
        constants: list[pl.Expr] = []
        for part in _conjuncts(self.polars):
            (parts if part.meta.root_names() else constants).append(part)
        if len(parts) == 1:
            return (self,)
        for constant in constants:
            # It has no rows of its own.
            parts[-1] &= constant
        return tuple(
            Expression(
                self.text,
                None,
                part.meta.serialize(),
                pa.schema([self.schema.field(name) for name in dict.fromkeys(part.meta.root_names())]),
                pa.bool_(),
            )
            for part in parts
        )

    def evaluate(self, columns: Mapping[str, pa.Array]) -> pa.Array:
        """Return the value of each row.

        Parameters
        ----------
        columns : mapping of str to pyarrow.Array
            The columns that it reads, and perhaps others.

        Raises
        ------
        DataError
            If Polars cannot evaluate a row.
        """
        arrays = [columns[name] for name in self.columns]
        if len(arrays) == 1 and pa.types.is_dictionary(arrays[0].type):
            codes = arrays[0].indices.cast(pa.int64())
            if codes.null_count:
                codes = pc.fill_null(codes, len(arrays[0].dictionary))
            return _as_array(self._of_entries(arrays[0])).take(codes)
        return _as_array(self._evaluate(arrays))

    def holds(self, columns: Mapping[str, pa.Array]) -> pl.Series:
        """Return where a condition holds, as booleans or null; parameters and errors as of `evaluate`."""
        arrays = [columns[name] for name in self.columns]
        if len(arrays) == 1 and pa.types.is_dictionary(arrays[0].type):
            return _rows_of_entries(self._of_entries(arrays[0]), arrays[0])
        return self._evaluate(arrays)

    def _of_entries(self, column: pa.DictionaryArray) -> pl.Series:
        """Return the value of each distinct entry, and of null."""
        # Row groups mostly have the same entries.
        last = self.__dict__.get("_last")
        if last is not None and column.dictionary.equals(last[0]):
            return cast("pl.Series", last[1])
        values = self._evaluate([pa.concat_arrays([column.dictionary, pa.nulls(1, column.dictionary.type)])])
        self.__dict__["_last"] = column.dictionary, values
        return values

    def _evaluate(self, arrays: Sequence[pa.Array]) -> pl.Series:
        import polars as pl

        def fails(reason: str) -> DataError:
            return DataError(f"Expression {self.text!r} fails: {reason}.")

        def as_all_files_have_it() -> pa.Table:
            typed = [_as_type(array, field.type) for array, field in zip(arrays, self.schema, strict=True)]
            return pa.Table.from_arrays(typed, schema=self.schema)

        table = _polars(as_all_files_have_it, fails)

        def run() -> pl.Series:
            frame = pl.from_arrow(table, rechunk=False)
            assert isinstance(frame, pl.DataFrame)
            if self.polars is not None:
                return frame.select(self.polars.alias(_OUTPUT)).to_series()
            assert self.sql is not None
            return _query(frame.lazy(), self.sql).collect().to_series()

        values = _polars(run, fails)
        return values if len(values) == table.num_rows else values.new_from_index(0, table.num_rows)


def _as_array(values: pl.Series) -> pa.Array:
    import polars as pl

    found = values.to_frame().to_arrow(compat_level=pl.CompatLevel.oldest()).column(0)
    return found.chunk(0) if found.num_chunks == 1 else found.combine_chunks()


def _rows_of_entries(held: pl.Series, column: pa.DictionaryArray) -> pl.Series:
    """Return which rows of a dictionary column hold an entry that is true; the last of `held` says it of null."""
    import polars as pl

    *of_entries, of_null = held.fill_null(False).to_list()
    codes = pl.Series(column.indices)
    chosen = [code for code, is_held in enumerate(of_entries) if is_held]
    if len(chosen) <= _FEW_ENTRIES:
        # Comparing is vectorised, looking up is not.
        rows = codes == (chosen[0] if chosen else -1)
        for code in chosen[1:]:
            rows |= codes == code
    else:
        table = np.array([*of_entries, of_null])
        rows = pl.Series(table[codes.fill_null(len(of_entries)).to_numpy()])
    return rows.fill_null(of_null) if codes.null_count() else rows


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that a column is evaluated in: whether it is a dictionary differs from file to file."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.large_string() if is_text(kind) else kind


def _as_type(array: pa.Array, kind: pa.DataType) -> pa.Array:
    if array.type == kind:
        return array
    if pa.types.is_dictionary(array.type):
        # Arrow looks up no string views.
        array = pa.DictionaryArray.from_arrays(array.indices, _as_type(array.dictionary, kind)).dictionary_decode()
    return array if array.type == kind else array.cast(kind)


def _query(frame: pl.LazyFrame, sql: str) -> pl.LazyFrame:
    return frame.sql(f"SELECT ({sql}) AS {_OUTPUT} FROM self")


def _polars(run: Callable[[], T], error_of: Callable[[str], Exception]) -> T:
    """Return what a call of Polars returns; whatever it raises becomes an error of ours."""
    import polars as pl

    try:
        return run()
    except (MemoryError, FastlossError):
        raise
    except pl.exceptions.PanicException as error:
        # A BaseException, which no caller's "except Exception" would stop.
        raise error_of(f"Polars panicked: {_first_line(error)}") from error
    except Exception as error:
        raise error_of(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.rstrip(".:")


# ---------------------------------------------------------------------------------------------------------------
# Binding


def bind(given: str | PolarsExpression, schema: pa.Schema) -> Expression:
    """Bind an expression to the columns of a log.

    Parameters
    ----------
    given : str or PolarsExpression
        Polars' SQL, or a Polars expression.
    schema : pyarrow.Schema
        The log's columns.

    Raises
    ------
    UsageError
        If it is no expression, reads something else than the log, or needs more than its row.
    SchemaError
        If it names a column that the log lacks, or does not fit the columns' types.
    """
    import polars as pl

    free: pl.Expr | None
    expression: pl.Expr | None
    if isinstance(given, PolarsExpression):
        text, sql = given.text, None
        free = expression = pl.Expr.deserialize(given.serialized)
    else:
        refuse_queries(given)
        refuse_buckets(given)
        text, sql = given, quote_dotted(given, schema.names)
        free, expression = _parse(text, sql), None
    if free is None:
        assert sql is not None
        names = [name for name in schema.names if name in possible_columns(sql)]
    else:
        _check_depth(text, free)
        names = list(dict.fromkeys(free.meta.root_names()))
    for name in names:
        _check_column(text, name, schema)
    if not names:
        raise refusal(text, "it reads no column of the log")
    fields = pa.schema([pa.field(name, _plain(schema.field(name).type)) for name in names])
    frame = _empty_frame(text, fields)
    if sql is None:
        assert free is not None
        query = _bound(text, lambda: frame.select(free.alias(_OUTPUT)))
    else:
        query = _bound(text, lambda: _query(frame, sql))
        expression = _truncation(sql, query, frame) if free is None else _if_same(free, query, frame)
    if not _is_by_row(query, free, frame):
        raise refusal(text, _NEEDS_MORE)
    if free is not None and any(is_text(field.type) for field in fields):
        _check_comparisons(text, free, frame)
    kind = query.collect_schema()[_OUTPUT]
    output = pl.DataFrame(schema={_OUTPUT: kind}).to_arrow(compat_level=pl.CompatLevel.oldest())
    serialized = None if expression is None else expression.meta.serialize()
    return Expression(text, sql, serialized, fields, output.schema.field(0).type)


def is_positive(label: str, kind: pa.DataType, positive: str | int | float | bool) -> PolarsExpression:
    """Return whether a label has the value that counts as positive, null where the label is null.

    Raises
    ------
    UsageError
        If a column of this type cannot have the value.
    """
    import polars as pl

    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    column = pl.col(label)
    value: Any = None
    if pa.types.is_boolean(value_type):
        allowed = "booleans: true or false"
        words = {"true": True, "1": True, "false": False, "0": False}
        value = words.get(str(positive).lower())
    elif pa.types.is_integer(value_type):
        # Integers are compared as they are: as floats, neighbours beyond 2^53 would be one.
        allowed = f"integers of type {value_type}"
        with contextlib.suppress(ValueError, OverflowError, pa.ArrowException):
            value = pa.scalar(int(positive), value_type).as_py()
    elif pa.types.is_floating(value_type) or pa.types.is_decimal(value_type):
        allowed = "numbers"
        with contextlib.suppress(ValueError):
            # What a float32 column holds for 0.1 is the float32 that is nearest to it.
            kept = value_type if pa.types.is_floating(value_type) else pa.float64()
            value = pa.scalar(float(positive)).cast(kept).as_py()
        column = column.cast(pl.Float64)
    elif is_text(value_type):
        allowed, value = "texts", str(positive)
    else:
        raise SchemaError(
            f"The label column {label!r} has type {kind}; positive names a value of text, numbers or bool."
        )
    if value is None:
        raise UsageError(f"positive is {positive!r}, and the label column {label!r} holds {allowed}.")
    literal = pl.lit(value, dtype=pl.UInt64) if pa.types.is_uint64(value_type) else pl.lit(value)
    return PolarsExpression.of(column == literal)


def bind_condition(given: str | PolarsExpression, schema: pa.Schema) -> Expression:
    """Bind a condition; raises as `bind`, and a UsageError if the value is none."""
    condition = bind(given, schema)
    if not (pa.types.is_boolean(condition.type) or pa.types.is_null(condition.type)):
        raise refusal(condition.text, f"it gives {condition.type}, and a condition gives true or false")
    return condition


def _parse(text: str, sql: str) -> pl.Expr | None:
    """Return what SQL means without the columns' types; None where it needs them."""
    import polars as pl

    try:
        return _polars(lambda: pl.sql_expr(sql), lambda reason: refusal(text, reason))
    except UsageError as error:
        if "cannot determine the type" in str(error):
            return None
        raise


def _check_column(text: str, name: str, schema: pa.Schema) -> None:
    if name in schema.names:
        if schema.names.count(name) > 1:
            raise SchemaError(f"The log has {schema.names.count(name)} columns called {name!r}; rename them.")
        return
    in_quotes = any(token.kind == "quoted" and token.unquoted == name for token in tokens_of(text))
    hint = f" A text stands in single quotes: '{name}'." if in_quotes else ""
    near = nearest_names(name, filter(is_name, schema.names))
    raise SchemaError(f"The log has no column {name!r}, which {text!r} reads. {near}{hint}")


def _check_depth(text: str, expression: pl.Expr) -> None:
    level, depth = [expression], 0
    while level:
        level = [child for node in level for child in node.meta.pop()]
        depth += 1
        if depth > _MOST_DEPTH:
            raise refusal(
                f"{text[:60]}…",
                f"it is nested deeper than {_MOST_DEPTH} levels; write many values as NAME IN (…), and conditions "
                "that must all hold one by one",
            )


def _check_comparisons(text: str, node: pl.Expr, frame: pl.LazyFrame) -> None:
    """Refuse to compare text with numbers: SQL, and Polars with a fraction, compares both as texts, silently."""
    import polars as pl

    children = node.meta.pop()
    for child in children:
        _check_comparisons(text, child, frame)
    if len(children) != 2:
        return
    kinds: list[pl.DataType] = []
    with contextlib.suppress(Exception):
        kinds = [frame.select(child.alias(_OUTPUT)).collect_schema()[_OUTPUT] for child in children]
    inner = [kind.inner if isinstance(kind, pl.List) else kind for kind in kinds]
    if any(kind == pl.String for kind in inner) and any(kind.is_numeric() for kind in inner):
        with contextlib.suppress(Exception):
            if frame.select(node.alias(_OUTPUT)).collect_schema()[_OUTPUT] != pl.Boolean:
                return
        raise SchemaError(
            f"Expression {text!r} does not fit the log: it compares text with numbers; compare texts with texts in "
            "single quotes, or cast one side, as in cast(x as int)."
        )


def _empty_frame(text: str, fields: pa.Schema) -> pl.LazyFrame:
    import polars as pl

    def make() -> pl.LazyFrame:
        frame = pl.from_arrow(fields.empty_table())
        assert isinstance(frame, pl.DataFrame)
        return frame.lazy()

    return _polars(make, lambda reason: SchemaError(f"Expression {text!r} reads a type that Polars lacks: {reason}."))


def _bound(text: str, make: Callable[[], pl.LazyFrame]) -> pl.LazyFrame:
    def resolved() -> pl.LazyFrame:
        query = make()
        query.collect_schema()
        query.collect()
        return query

    def error_of(reason: str) -> FastlossError:
        if "GROUP BY" in reason:
            return refusal(text, _NEEDS_MORE)
        return SchemaError(f"Expression {text!r} does not fit the log: {reason}.")

    return _polars(resolved, error_of)


def _if_same(free: pl.Expr | None, query: pl.LazyFrame, frame: pl.LazyFrame) -> pl.Expr | None:
    """Return the expression without types, or with typed texts, if it means what the typed query does."""
    if free is None:
        return None
    meant = query.explain(optimized=False)
    for typed in (False, True):
        with contextlib.suppress(Exception):
            expression = _with_typed_texts(free, frame) if typed else free
            if frame.select(expression.alias(_OUTPUT)).explain(optimized=False) == meant:
                return expression
    return None


def _truncation(sql: str, query: pl.LazyFrame, frame: pl.LazyFrame) -> pl.Expr | None:
    """Return ``date_trunc('unit', expression)`` as an expression: Polars' SQL reads it with types alone."""
    import polars as pl

    found = re.fullmatch(r"\s*date_trunc\s*\(\s*'(\w+)'\s*,(.*)\)\s*", sql, re.IGNORECASE | re.DOTALL)
    if found is None or (every := _EVERY.get(found[1].lower())) is None:
        return None
    with contextlib.suppress(Exception):
        return _if_same(pl.sql_expr(found[2]).dt.truncate(every), query, frame)
    return None


def _is_by_row(query: pl.LazyFrame, free: pl.Expr | None, frame: pl.LazyFrame) -> bool:
    """Tell whether each row is evaluated by itself: Polars takes a slice of the rows first only then."""
    if "SLICE" not in query.slice(0, 1).explain():
        return True
    return free is not None and _node_is_by_row(free, frame)


def _node_is_by_row(node: pl.Expr, frame: pl.LazyFrame) -> bool:
    children = node.meta.pop()
    if not children:
        return not str(node).startswith("len(")
    try:
        plan = frame.select(node.alias(_OUTPUT)).slice(0, 1)
        plan.collect_schema()
        allowed = "SLICE" not in plan.explain() or _last_function(node, _FALLIBLE)
    except Exception:
        printed = str(node)
        allowed = printed.startswith(("[(", ".when(")) or _last_function(node, _BY_ROW)
    return allowed and all(_node_is_by_row(child, frame) for child in children)


def _last_function(node: pl.Expr, wanted: re.Pattern[str]) -> bool:
    """Tell whether the outermost function of a node, as Polars prints it, is one of some."""
    printed = str(node)
    depth, end = 0, len(printed)
    if not printed.endswith(")"):
        return False
    for position in range(len(printed) - 1, -1, -1):
        depth += (printed[position] == ")") - (printed[position] == "(")
        if depth == 0:
            end = position
            break
    found = re.search(r"\.((?:str\.|dt\.|list\.)?\w+)$", printed[:end])
    return found is not None and wanted.fullmatch(found.group(1)) is not None


def _conjuncts(expression: pl.Expr) -> Iterator[pl.Expr]:
    sides = joined_by(operator.and_, expression)
    if sides is None:
        yield expression
    else:
        for side in sides:
            yield from _conjuncts(side)


# ---------------------------------------------------------------------------------------------------------------
# Looking into an expression, by building what it may be and comparing

_COMPARISONS: tuple[Callable[[Any, Any], Any], ...] = (
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
)


def joined_by(join: Callable[[Any, Any], Any], node: pl.Expr) -> tuple[pl.Expr, pl.Expr] | None:
    """Return the two sides of an expression that is ``join(left, right)``; None if it is another."""
    children = node.meta.pop()
    if len(children) != 2:
        return None
    for left, right in (children[::-1], children):
        if join(left, right).meta.eq(node):
            return left, right
    return None


def comparison_of(node: pl.Expr) -> tuple[Callable[[Any, Any], Any], pl.Expr, pl.Expr] | None:
    """Return how an expression compares which two; None if it is no comparison."""
    for compare in _COMPARISONS:
        if (sides := joined_by(compare, node)) is not None:
            return compare, *sides
    return None


def _with_typed_texts(node: pl.Expr, frame: pl.LazyFrame) -> pl.Expr:
    """Return an expression whose texts, where they are compared with dates or times, are dates and times."""
    import polars as pl

    for join in (operator.and_, operator.or_):
        if (sides := joined_by(join, node)) is not None:
            typed: pl.Expr = join(*(_with_typed_texts(side, frame) for side in sides))
            return typed
    compared = comparison_of(node)
    if compared is None:
        return node
    compare, left, right = compared
    if left.meta.is_literal() == right.meta.is_literal():
        return node
    literal, other = (left, right) if left.meta.is_literal() else (right, left)
    kind = frame.select(other.alias(_OUTPUT)).collect_schema()[_OUTPUT]
    text = pl.select(literal.alias(_OUTPUT)).item()
    if not isinstance(text, str):
        return node
    moment = pl.lit(_moment(text, kind))
    found: pl.Expr = compare(moment, other) if literal is left else compare(other, moment)
    return found


def _moment(text: str, kind: pl.DataType) -> dt.date | dt.datetime | str:
    import polars as pl

    if isinstance(kind, pl.Date):
        return dt.date.fromisoformat(text)
    if isinstance(kind, pl.Datetime):
        moment = dt.datetime.fromisoformat(text)
        return moment if kind.time_zone is None else moment.replace(tzinfo=zoneinfo.ZoneInfo(kind.time_zone))
    return text
