"""Partition keys: the ``key=value`` folders of a path as columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fastloss.sources.listing import LogFile


@dataclass(frozen=True, slots=True)
class Selection:
    """The columns asked for, and the types of those that are partition keys."""

    columns: tuple[str, ...]
    key_types: Mapping[str, pa.DataType]

    @property
    def stored(self) -> list[str]:
        """The columns to read from the files, each once."""
        return list(dict.fromkeys(name for name in self.columns if name not in self.key_types))

    def of_file(self, stored: pa.RecordBatch, file: LogFile) -> pa.RecordBatch:
        """Return the selected columns of some rows of a file, of which `stored` holds those that the file has."""
        keys = dict(file.keys)
        arrays = [
            stored.column(name)
            if name not in self.key_types
            else _constant(keys[name], self.key_types[name], stored.num_rows)
            for name in self.columns
        ]
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


def _constant(value: str | None, kind: pa.DataType, n_rows: int) -> pa.Array:
    if value is None:
        return pa.nulls(n_rows, kind)
    entry = pa.array([int(value) if pa.types.is_integer(kind) else value], kind)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(n_rows, dtype=np.int32)), entry)
