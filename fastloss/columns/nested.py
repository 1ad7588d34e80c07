"""Fields of structs as columns of their own: ``event.label``, and ``candidates.list.score`` of a list of structs.

A name is the path to the field, its parts joined by dots; the part ``list`` goes from a list to its elements. A struct
that is null gives a null in each of its fields. A field of the structs of a list is a list column: null and empty
where the list is, and an element is null where the struct or its field is.

A name of fewer steps comes first: a column whose own name is ``event.model.score`` is meant by that name, and not the
field.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from fastloss.columns.arrow import is_list_type

# The part of a name that goes from a list to its elements, as Parquet calls it.
LIST_STEP = "list"


class ColumnPath(NamedTuple):
    """Where a column is found.

    Attributes
    ----------
    name : str
        Its name: the parts of the path, joined by dots.
    column : int
        The position of the column of the schema that holds it.
    steps : tuple of str or None
        From there on, the name of a field of a struct; None for the elements of a list.
    type : pyarrow.DataType
        The type of what is found there: a list of the field's type, where a step goes through a list.
    first_leaf, n_leaves : int
        Its Parquet columns, the leaves, in a file of this schema.
    """

    name: str
    column: int
    steps: tuple[str | None, ...]
    type: pa.DataType
    first_leaf: int
    n_leaves: int


def find_columns(schema: pa.Schema, name: str) -> list[ColumnPath]:
    """Return where a name is found: nowhere, in one place, or in several that have as few steps."""
    found: list[ColumnPath] = []
    first_leaf = 0
    for position, field in enumerate(schema):
        if name == field.name or name.startswith(f"{field.name}."):
            found += [path for path in _paths(field, position, first_leaf, within=name) if path.name == name]
        first_leaf += count_leaves(field.type)
    fewest = min((len(path.steps) for path in found), default=0)
    return [path for path in found if len(path.steps) == fewest]


def with_fields(schema: pa.Schema) -> pa.Schema:
    """Return the schema with every field of a struct as a column besides, each after the column that holds it."""
    fields = list(schema)
    if not any(_holds_fields(field.type) for field in fields):
        return schema
    paths = [path for position, field in enumerate(fields) for path in _paths(field, position, 0)]
    fewest: dict[str, int] = {}
    for path in paths:
        fewest[path.name] = min(len(path.steps), fewest.get(path.name, len(path.steps)))
    chosen = (path for path in paths if len(path.steps) == fewest[path.name])
    return pa.schema([path_field(path, fields[path.column]) for path in chosen])


def path_field(path: ColumnPath, column: pa.Field) -> pa.Field:
    """Return the field of a schema that stands for what is found in a column."""
    return pa.field(path.name, path.type) if path.steps else column


def take_column(column: pa.Array, steps: Sequence[str | None]) -> pa.Array:
    """Return what these steps lead to in a column's rows."""
    if not steps:
        return column
    step, *rest = steps
    if step is not None:
        return take_column(pc.struct_field(column, [column.type.get_field_index(step)]), rest)
    kind, n_rows = column.type, len(column)
    mask = pc.is_null(column) if column.null_count else None
    if pa.types.is_fixed_size_list(kind):
        values = column.values.slice(column.offset * kind.list_size, n_rows * kind.list_size)
        elements = take_column(values, rest)
        return pa.FixedSizeListArray.from_arrays(elements, type=_list_of(kind, elements.type), mask=mask)
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        elements = take_column(column.values, rest)
        return pa.Array.from_buffers(
            _list_of(kind, elements.type), n_rows, column.buffers()[:3], -1, column.offset, [elements]
        )
    # Only the elements of these rows: a batch may be a piece of a much longer one.
    offsets = column.offsets
    first, end = (offsets[0].as_py(), offsets[-1].as_py()) if n_rows else (0, 0)
    elements = take_column(column.values.slice(first, end - first), rest)
    lists = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    offsets = pc.subtract(offsets, pa.scalar(first, offsets.type)) if n_rows else pa.array([0], offsets.type)
    return lists.from_arrays(offsets, elements, type=_list_of(kind, elements.type), mask=mask)


def count_leaves(kind: pa.DataType) -> int:
    """Return the number of Parquet columns that an Arrow type takes."""
    if isinstance(kind, pa.BaseExtensionType):
        return count_leaves(kind.storage_type)
    if pa.types.is_nested(kind):
        return sum(count_leaves(kind.field(i).type) for i in range(kind.num_fields))
    return 1


def _holds_fields(kind: pa.DataType) -> bool:
    while is_list_type(kind):
        kind = kind.value_type
    return bool(pa.types.is_struct(kind))


def _paths(field: pa.Field, column: int, first_leaf: int, *, within: str | None = None) -> Iterator[ColumnPath]:
    """Yield the path to a column and those to all fields in it; given a name, only what lies on the way there."""
    return _paths_from(field.name, column, (), field.type, [], first_leaf, within)


def _paths_from(
    name: str,
    column: int,
    steps: tuple[str | None, ...],
    kind: pa.DataType,
    lists: list[pa.DataType],
    leaf: int,
    within: str | None,
) -> Iterator[ColumnPath]:
    """Yield the path to a value of this type, which lies in so many lists, and those to the fields in it."""
    if within is not None and name != within and not within.startswith(f"{name}."):
        return
    whole = kind
    for outer in reversed(lists):
        whole = _list_of(outer, whole)
    yield ColumnPath(name, column, steps, whole, leaf, count_leaves(kind))
    while is_list_type(kind):
        lists = [*lists, kind]
        kind, name, steps = kind.value_type, f"{name}.{LIST_STEP}", (*steps, None)
    if not pa.types.is_struct(kind):
        return
    for position in range(kind.num_fields):
        field = kind.field(position)
        yield from _paths_from(f"{name}.{field.name}", column, (*steps, field.name), field.type, lists, leaf, within)
        leaf += count_leaves(field.type)


def _list_of(kind: pa.DataType, elements: pa.DataType) -> pa.DataType:
    """Return the type of a list that holds other elements."""
    field = kind.value_field.with_type(elements)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(field, kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(field)
    if pa.types.is_list_view(kind):
        return pa.list_view(field)
    return pa.large_list_view(field) if pa.types.is_large_list_view(kind) else pa.list_(field)
