"""A result as an Arrow table: one row for each slice, metric and model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fastloss.metrics.evaluate import GroupingValues
from fastloss.report.view import Reported, View, selected
from fastloss.states.slices import KeyColumn, Texts


def to_arrow(groupings: Sequence[GroupingValues]) -> pa.Table:
    """Return the values of all groupings: a column for each slice key, null where a key is not part.

    Rows stand by grouping, slice, metric and model.
    """
    evidence = _evidence_types(groupings)
    keys = list(dict.fromkeys(key for grouping in groupings for key in grouping.keys))
    parts: dict[str, list[pa.Array]] = {}

    def add(name: str, array: pa.Array) -> None:
        parts.setdefault(name, []).append(array)

    for grouping in groupings:
        n_columns = len(grouping.columns)
        n_values = grouping.n_slices * n_columns
        add("metric", _repeated([column.metric for column in grouping.columns], grouping.n_slices))
        add("model", _repeated([column.model for column in grouping.columns], grouping.n_slices))
        add("slice", pa.repeat(" × ".join(grouping.keys), n_values))
        for key in keys:
            if key in grouping.keys:
                column_of = grouping.key_columns[grouping.keys.index(key)]
                add(f"slice.{key}", _keys(column_of, np.repeat(grouping.order, n_columns)))
            else:
                add(f"slice.{key}", pa.nulls(n_values))
        value = _interleaved(grouping, [column.values.value for column in grouping.columns])
        undefined = _interleaved(grouping, [column.values.undefined for column in grouping.columns])
        add("value", pa.array(value, pa.float64(), mask=undefined, from_pandas=False))
        add("reason", _reasons(grouping))
        add("n", pa.array(_interleaved(grouping, [column.n for column in grouping.columns])))
        weight = _interleaved(grouping, [column.weight for column in grouping.columns])
        add("weight", pa.array(weight, pa.float64(), from_pandas=False))
        for name, kind in evidence.items():
            add(name, _evidence(grouping, name, kind))
    return pa.table({name: _joined(arrays) for name, arrays in parts.items()})


def write(result: Reported, view: View, *, as_file: bool) -> bytes:
    """Return an Arrow IPC file, or for a pipe an Arrow IPC stream."""
    table = to_arrow(selected(result, view).groupings)
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


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
    return pa.array(np.tile(np.asarray(names, dtype=object), times), pa.string())


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


def _evidence(grouping: GroupingValues, name: str, kind: pa.DataType) -> pa.Array:
    n_slices = len(grouping.order)
    columns, masks = [], []
    for column in grouping.columns:
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


def _joined(arrays: Sequence[pa.Array]) -> pa.ChunkedArray:
    kinds = list(dict.fromkeys(array.type for array in arrays if not pa.types.is_null(array.type)))
    if len(kinds) > 1:
        # Keys of mixed files may be numbers in one grouping and text in another.
        kinds = [pa.string()]
    kind = kinds[0] if kinds else pa.string()
    return pa.chunked_array([array.cast(kind) for array in arrays], kind)
