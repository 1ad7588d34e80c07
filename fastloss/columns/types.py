"""The checks of a log's schema against a request: names, and types that a column's role allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa

from fastloss.columns.arrays import is_text
from fastloss.columns.arrow import check_key_type, check_list_type, check_numeric_type, is_list_type
from fastloss.columns.group_keys import check_group_key_type
from fastloss.columns.nested import LIST_STEP
from fastloss.errors import SchemaError, UsageError, nearest_names
from fastloss.request import ColumnType, Request

# In the metadata of a schema's field: how the files of a log differ in the column.
DIFFERENCES = b"fastloss.differences"


def check_columns(schema: pa.Schema, request: Request, keep: Sequence[str] = ()) -> dict[str, ColumnType]:
    """Check every column that is read, and return the types of those that the request names.

    Raises
    ------
    SchemaError
        If a column is missing, is there twice, or has a type that its role does not allow.
    """
    for column in (*request.columns, *keep):
        _check_name(schema, column)
    for column in request.numeric_columns:
        kind = schema.field(column).type
        if is_list_type(kind) and column == request.weight:
            raise SchemaError(f"the weight column {column!r} has type {kind}; one number a row is needed.")
        if column == request.label and is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise SchemaError(
                f"the label column {column!r} has type {kind}; numbers are needed: name the value that counts as 1 by "
                "positive=, or give an expression such as cast(label as int)."
            )
        _check(check_list_type if is_list_type(kind) else check_numeric_type, schema.field(column))
    for key in request.keys:
        _check(check_key_type, schema.field(key))
    for key in request.group_columns:
        _check(check_group_key_type, schema.field(key))
    if request.id is not None:
        _check(_check_id_type, schema.field(request.id))
    return {column: _column_type(schema.field(column).type) for column in request.columns}


def check_group_keys(schema: pa.Schema, columns: Sequence[str]) -> dict[str, pa.DataType]:
    """Check that columns can be a group key, and return their types in the log.

    Raises
    ------
    SchemaError
        If a column is missing, is there twice, or has a type that no group key may have.
    """
    for column in columns:
        _check_name(schema, column)
        _check(check_group_key_type, schema.field(column))
    return {column: schema.field(column).type for column in columns}


def is_category(kind: pa.DataType) -> bool:
    """Tell whether a feature of this type can only be categories: texts, dates and times."""
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(is_text(value_type) or pa.types.is_temporal(value_type))


def check_feature_type(field: pa.Field) -> None:
    """Check that a column holds what can be a feature: numbers, texts, dates, or lists of these.

    Raises
    ------
    SchemaError
        If it does not.
    """
    kind, path = field.type, field.name
    while is_list_type(kind):
        kind, path = kind.value_type, f"{path}.{LIST_STEP}"
    is_nested = pa.types.is_nested(kind) or (field.type != kind and is_list_type(field.type.value_type))
    if not (is_nested or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        return
    remedy = "Name another column, or an expression such as cast(x as text)."
    if pa.types.is_struct(kind) and kind.num_fields:
        remedy = f"Name one of its fields: {f'{path}.{kind.field(0).name}'!r}."
    raise SchemaError(
        f"the feature {field.name!r} has type {field.type}; allowed: numbers, text, dates, or lists of these. {remedy}"
    )


def check_category(field: pa.Field) -> None:
    """Check that a column's values, or those of its lists, can be categories.

    Raises
    ------
    SchemaError
        If they cannot.
    """
    kind = field.type
    _check(
        check_key_type, pa.field(field.name, kind.value_type if is_list_type(kind) else kind, metadata=field.metadata)
    )


def _check_id_type(name: str, data_type: pa.DataType) -> None:
    kind = data_type.value_type if is_list_type(data_type) else data_type
    try:
        check_key_type(name, kind)
    except SchemaError:
        raise SchemaError(
            f"the id column {name!r} has type {data_type}; an id must be integer or string, or bool, date, timestamp "
            "or decimal, which are compared as text. Name another column, or cast this one to an integer or a string."
        ) from None


def check_feature(field: pa.Field) -> None:
    """Check that a feature is numbers, or lists of numbers.

    Raises
    ------
    SchemaError
        If it is neither.
    """
    _check(check_list_type if is_list_type(field.type) else check_numeric_type, field)


def _check_name(schema: pa.Schema, column: str) -> None:
    if not isinstance(column, str):
        raise UsageError(f"A column is named by {column!r}; allowed: a string.")
    if column not in schema.names:
        raise SchemaError(f"The log has no column {column!r}. {nearest_names(column, schema.names)}")
    if schema.names.count(column) > 1:
        raise SchemaError(f"The log has {schema.names.count(column)} columns called {column!r}; rename them.")


def _check(check: Callable[[str, pa.DataType], None], field: pa.Field) -> None:
    """Check a column's type, and say where it comes from if files differ in it."""
    try:
        check(field.name, field.type)
    except SchemaError as error:
        differences = (field.metadata or {}).get(DIFFERENCES)
        if differences is None:
            raise
        raise SchemaError(f"{error} Its files differ: {differences.decode()}.") from error


def _column_type(kind: pa.DataType) -> ColumnType:
    # Whether a writer used a dictionary, and which of Arrow's texts it is, changes no number.
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    name = "string" if is_text(value_type) else str(value_type)
    return ColumnType(name, is_list_type(kind), _machine_epsilon(kind))


def _machine_epsilon(kind: pa.DataType) -> float:
    """Return the distance from 1 to the next number of a column's type; other than floats count as float64."""
    if is_list_type(kind) or pa.types.is_dictionary(kind):
        return _machine_epsilon(kind.value_type)
    return 2.0**-10 if pa.types.is_float16(kind) else 2.0**-23 if pa.types.is_float32(kind) else 2.0**-52
