"""Partition keys: the ``key=value`` folders of a path as columns."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fastloss.columns.nested import take_column
from fastloss.sources.listing import LogFile

if TYPE_CHECKING:
    from fastloss.sources.parquet.footers import PlannedFile


@dataclass(frozen=True, slots=True)
class Selection:
    """The columns asked for, and the types of those that are partition keys, and of those that some files lack."""

    columns: tuple[str, ...]
    key_types: Mapping[str, pa.DataType]
    missing_types: Mapping[str, pa.DataType]

    def of_file(self, stored: pa.RecordBatch, file: PlannedFile) -> pa.RecordBatch:
        """Return the selected columns of some rows of a file, of which `stored` holds those that the file has."""
        keys = dict(file.file.keys)
        held = {column.name: column for column in file.columns}
        arrays = []
        for name in self.columns:
            if name in self.key_types:
                arrays.append(key_column(keys.get(name), self.key_types[name], stored.num_rows))
            elif name not in held:
                arrays.append(pa.nulls(stored.num_rows, self.missing_types[name]))
            else:
                arrays.append(take_column(stored.column(held[name].column), held[name].steps))
        return pa.RecordBatch.from_arrays(arrays, names=list(self.columns))


def key_types(files: Sequence[LogFile]) -> dict[str, pa.DataType]:
    """Return the type of each partition key: int64 if every file's value is an integer, else string."""
    values: dict[str, set[str | None]] = {}
    for file in files:
        for key, value in file.keys:
            values.setdefault(key, set()).add(value)
    return {key: pa.int64() if _all_integers(found) else pa.string() for key, found in values.items()}


def _all_integers(values: set[str | None]) -> bool:
    # A number with a leading zero is a name, such as a postal code: as an integer it would lose it.
    texts = [value for value in values if value is not None]
    return bool(texts) and all(
        re.fullmatch(r"-?[1-9][0-9]{0,18}|0", text) and -(2**63) <= int(text) < 2**63 for text in texts
    )


def key_value(value: str, kind: pa.DataType) -> str | int | bool | datetime.date:
    """Return a partition key in its own type."""
    if pa.types.is_integer(kind):
        return int(value)
    if pa.types.is_boolean(kind):
        return value.lower() == "true"
    return datetime.date.fromisoformat(value) if pa.types.is_date(kind) else value


def key_column(value: str | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    """Return a partition key of a file as a column."""
    if value is None:
        return pa.nulls(n_rows, kind)
    entry = pa.array([key_value(value, kind)], kind)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, dtype=np.int32)), entry)
