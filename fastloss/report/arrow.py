"""A result as an Arrow table: one row for each slice, metric and model, or a column for each metric.

A file of millions of slices is written some of them at a time, so that no table of all of them is made.
"""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.metrics.evaluate import GroupingValues, ModelValues
from fastloss.report.view import Reported, View, selected
from fastloss.states.slices import KeyColumn, Texts

# So many rows of a table are made at a time.
ROWS_AT_ONCE = 1 << 18
# write_parts(schema, tables, sink, as_file): write tables one after the other.
WriteParts = Callable[[pa.Schema, Iterator[pa.Table], IO[bytes], bool], None]


def to_arrow(
    groupings: Sequence[GroupingValues], key_types: Mapping[str, str] | None = None, *, wide: bool = False
) -> pa.Table:
    """Return the values of all groupings: a column for each slice key, null where a key is not part.

    Parameters
    ----------
    groupings : sequence of GroupingValues
        The values.
    key_types : mapping of str to str, optional
        The Arrow type of each key's column in the log: dates, times and decimals are given in it.
    wide : bool
        A row for each slice and model, and a column for each metric and for the threshold of those that have one;
        otherwise a row for each value with its evidence.

    Returns
    -------
    pyarrow.Table
        Rows stand by grouping, slice, metric and model.
    """
    return _to_arrow(groupings, groupings, key_types, wide)


def _to_arrow(
    typing: Sequence[GroupingValues],
    groupings: Sequence[GroupingValues],
    key_types: Mapping[str, str] | None,
    wide: bool,
) -> pa.Table:
    """Return the table of some slices; `typing` is what their columns' types are told from."""
    keys = list(dict.fromkeys(key for grouping in groupings for key in grouping.keys))
    parts: dict[str, list[pa.Array]] = {}

    def add(name: str, array: pa.Array) -> None:
        parts.setdefault(name, []).append(array)

    for grouping in groupings:
        columns = _rows_by_model(grouping) if wide else _rows_by_value(grouping, _evidence_types(typing))
        n_rows = len(columns["model"])
        for name, array in columns.items():
            add(name, array)
            if name != "model":
                continue
            add("slice", pa.repeat(" × ".join(grouping.keys), n_rows))
            for key in keys:
                if key in grouping.keys:
                    column_of = grouping.key_columns[grouping.keys.index(key)]
                    positions = np.repeat(grouping.order, n_rows // max(1, grouping.n_slices))
                    add(f"slice.{key}", key_array(column_of, positions, (key_types or {}).get(key, "")))
                else:
                    add(f"slice.{key}", pa.nulls(n_rows))
    return pa.table({name: joined(arrays) for name, arrays in parts.items()})


def tables_of(result: Reported, view: View) -> tuple[pa.Schema, Iterator[pa.Table]]:
    """Return the Arrow table of a view in parts of `ROWS_AT_ONCE` rows or a little more, and their schema."""
    groupings = selected(result, view).groupings
    nothing = np.empty(0, dtype=np.int64)
    none = [dataclasses.replace(grouping, order=nothing) for grouping in groupings]
    schema = _to_arrow(groupings, none, result.key_types, view.wide).schema

    def parts() -> Iterator[pa.Table]:
        part, n_rows = list(none), 0
        for number, grouping in enumerate(groupings):
            n_columns = max(1, len(grouping.columns))
            first = 0
            while first < grouping.n_slices:
                stop = first + max(1, (ROWS_AT_ONCE - n_rows) // n_columns)
                part[number] = grouping.take(grouping.order[first:stop])
                n_rows += part[number].n_slices * n_columns
                first = stop
                if n_rows >= ROWS_AT_ONCE - n_columns:
                    yield _to_arrow(groupings, part, result.key_types, view.wide).cast(schema)
                    part, n_rows = list(none), 0
        if n_rows:
            yield _to_arrow(groupings, part, result.key_types, view.wide).cast(schema)

    return schema, _ahead(parts())


def _ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """Yield tables, each made while the one before it is written."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, tables, None)
        while (table := following.result()) is not None:
            following = pool.submit(next, tables, None)
            yield table


def written(result: Reported, view: View, write_parts: WriteParts, *, as_file: bool) -> bytes:
    """Return what is written of a view."""
    sink = io.BytesIO()
    write_parts(*tables_of(result, view), sink, as_file)
    return sink.getvalue()


def write(result: Reported, view: View, *, as_file: bool) -> bytes:
    """Return an Arrow IPC file, or for a pipe an Arrow IPC stream."""
    return written(result, view, write_parts, as_file=as_file)


def write_parts(schema: pa.Schema, tables: Iterator[pa.Table], sink: IO[bytes], as_file: bool) -> None:
    """Write an Arrow IPC file, or a stream."""
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, schema) as writer:
        for table in tables:
            writer.write_table(table)


def write_table(table: pa.Table, *, as_file: bool = True) -> bytes:
    """Return a table as an Arrow IPC file, or as a stream."""
    sink = io.BytesIO()
    write_parts(table.schema, iter((table,)), sink, as_file)
    return sink.getvalue()


def _rows_by_value(grouping: GroupingValues, evidence: Mapping[str, pa.DataType]) -> dict[str, pa.Array]:
    """Return a row for each slice, metric and model, without the keys."""
    found = {
        "metric": _repeated([column.metric for column in grouping.columns], grouping.n_slices),
        "model": _repeated([column.model for column in grouping.columns], grouping.n_slices),
        "value": _values(grouping, grouping.columns),
        "reason": _reasons(grouping),
        "n": pa.array(_interleaved(grouping, [column.n for column in grouping.columns])),
        "weight": pa.array(_interleaved(grouping, [column.weight for column in grouping.columns]), pa.float64()),
    }
    return found | {name: _evidence(grouping, grouping.columns, name, kind) for name, kind in evidence.items()}


def _rows_by_model(grouping: GroupingValues) -> dict[str, pa.Array]:
    """Return a row for each slice and model, without the keys; a model uses a row if one of its metrics does."""
    by_model: dict[str, list[ModelValues]] = {}
    for column in grouping.columns:
        by_model.setdefault(column.model, []).append(column)
    n = [np.max([column.n for column in columns], axis=0) for columns in by_model.values()]
    weight = [np.max([column.weight for column in columns], axis=0) for columns in by_model.values()]
    found = {
        "model": _repeated(list(by_model), grouping.n_slices),
        "n": pa.array(_interleaved(grouping, n)),
        "weight": pa.array(_interleaved(grouping, weight), pa.float64()),
    }
    for metric in dict.fromkeys(column.metric for column in grouping.columns):
        columns = [column for column in grouping.columns if column.metric == metric]
        found[metric] = _values(grouping, columns)
        if any("threshold" in column.values.evidence for column in columns):
            found[f"{metric}.threshold"] = _evidence(grouping, columns, "threshold", pa.float64())
    return found


def _values(grouping: GroupingValues, columns: Sequence[ModelValues]) -> pa.Array:
    value = _interleaved(grouping, [column.values.value for column in columns])
    undefined = _interleaved(grouping, [column.values.undefined for column in columns])
    return pa.array(value, pa.float64(), mask=undefined, from_pandas=False)


def key_array(column: KeyColumn, positions: NDArray[np.int64], kind: str = "") -> pa.Array:
    """Return the slice keys at these positions, in the Arrow type of this name where they have it."""
    return _typed(_keys(column, positions), kind)


def _typed(keys: pa.Array, name: str) -> pa.Array:
    """Return texts of dates, times and decimals as what they are; others, and those that do not fit, as they stand."""
    kind = _type_called(name)
    if kind is None or not pa.types.is_string(keys.type):
        return keys
    try:
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            return keys.cast(pa.timestamp(kind.unit, "UTC")).cast(kind)
        return keys.cast(kind)
    except pa.ArrowException:
        return keys


def _type_called(name: str) -> pa.DataType | None:
    if name.startswith("date"):
        return pa.date32()
    if found := re.fullmatch(r"timestamp\[(\w+)(?:, tz=(.+))?\]", name):
        return pa.timestamp(found[1], found[2])
    if found := re.fullmatch(r"decimal\d+\((\d+), (-?\d+)\)", name):
        return (pa.decimal128 if int(found[1]) <= 38 else pa.decimal256)(int(found[1]), int(found[2]))
    return None


def _keys(column: KeyColumn, positions: NDArray[np.int64]) -> pa.Array:
    """Return slice keys as booleans, integers or text, by the type that all of them have."""
    if isinstance(column.values, np.ndarray):
        return pa.array(column.values[positions], mask=None if column.null is None else column.null[positions])
    if isinstance(column.values, Texts):
        offsets, data = column.values.offsets, column.values.data
        texts = pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))
        null = None if column.null is None else column.null[positions]
        return texts.take(pa.array(positions, mask=null)).cast(pa.string())
    values = column.to_list()
    kinds = {type(value) for value in values if value is not None}
    if kinds != {bool}:
        values = [None if value is None else str(value) for value in values]
    return pa.array(values, pa.bool_() if kinds == {bool} else pa.string()).take(pa.array(positions))


def _repeated(names: Sequence[str], times: int) -> pa.Array:
    return pa.array(names, pa.string()).take(pa.array(np.tile(np.arange(len(names)), times)))


def _interleaved(grouping: GroupingValues, columns: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return one array by slice and column of arrays by slice."""
    return np.stack([column[grouping.order] for column in columns], axis=1).reshape(-1)


def _reasons(grouping: GroupingValues) -> pa.Array:
    words: list[str] = [""]
    codes = []
    for column in grouping.columns:
        known = []
        for reason in column.values.reasons:
            if reason not in words:
                words.append(reason)
            known.append(words.index(reason))
        codes.append(np.asarray(known, dtype=np.int64)[column.values.reason])
    code = _interleaved(grouping, codes)
    return pa.array(words, pa.string()).take(pa.array(code, mask=code == 0))


def _evidence_types(groupings: Sequence[GroupingValues]) -> dict[str, pa.DataType]:
    """Return the names of all evidence in order, each with its type."""
    kinds: dict[str, pa.DataType] = {}
    for grouping in groupings:
        for column in grouping.columns:
            for name, found in column.values.evidence.items():
                if isinstance(found, str):
                    kinds[name] = pa.string()
                elif found.dtype.kind == "f":
                    kinds[name] = pa.float64()
                else:
                    kinds.setdefault(name, pa.int64())
    return kinds


def _evidence(grouping: GroupingValues, of: Sequence[ModelValues], name: str, kind: pa.DataType) -> pa.Array:
    """Return what some metrics and models add, by slice."""
    n_slices = len(grouping.order)
    columns, masks = [], []
    for column in of:
        found = column.values.evidence.get(name)
        missing = np.zeros(len(column.n), dtype=np.bool_) if found is not None else np.ones(len(column.n), np.bool_)
        masks.append(column.values.absent.get(name, missing))
        if kind == pa.string():
            columns.append(np.full(len(column.n), found, dtype=object))
        else:
            columns.append(np.zeros(len(column.n), kind.to_pandas_dtype()) if found is None else np.asarray(found))
    if n_slices == 0:
        return pa.array([], kind)
    mask = _interleaved(grouping, masks)
    return pa.array(_interleaved(grouping, columns), kind, mask=mask, from_pandas=False)


def joined(arrays: Sequence[pa.Array]) -> pa.ChunkedArray:
    """Return the parts of a column as one, of the type that all of them have."""
    kinds = list(dict.fromkeys(array.type for array in arrays if not pa.types.is_null(array.type)))
    if len(kinds) > 1:
        # Keys of mixed files may be numbers in one grouping and text in another.
        kinds = [pa.string()]
    kind = kinds[0] if kinds else pa.string()
    return pa.chunked_array([array.cast(kind) for array in arrays], kind)
