"""What the files of a log have of the selected columns, as one schema over all of them.

A survey looks at each different schema once, and counts the files that share it. It notes what it finds and refuses
nothing: a column may be asked about that nobody reads in the end. `Survey.check` then refuses what cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from fastloss.columns.nested import find_columns, with_fields
from fastloss.columns.types import DIFFERENCES
from fastloss.errors import SchemaError, nearest_names
from fastloss.sources.base import ColumnTypes
from fastloss.sources.listing import LogFile
from fastloss.sources.parquet.footers import StoredColumn
from fastloss.sources.schemas import are_one_family, unified

# The files of a log mostly share a schema, or a few that alternate.
_KEPT_SCHEMAS = 8


class FoundColumns(NamedTuple):
    """What a file has of the columns that are asked about.

    Attributes
    ----------
    stored : tuple of StoredColumn
        Those that it has.
    repeated : mapping of str to int
        Those that it has more than once, and how often.
    clashing : tuple of str
        Those that are partition keys of its path, too.
    """

    stored: tuple[StoredColumn, ...]
    repeated: Mapping[str, int]
    clashing: tuple[str, ...]


@dataclass
class _Shape:
    """Files that have the same of the columns: how many, and the first of them."""

    found: FoundColumns
    n_files: int
    first: str


class Survey:
    """What files have of some columns.

    Parameters
    ----------
    columns : sequence of str
        The columns to look for, partition keys among them.
    key_types : mapping of str to pyarrow.DataType
        The partition keys.
    way_out : str
        What to do where a partition key is a column, too.
    """

    def __init__(
        self,
        columns: Sequence[str],
        key_types: Mapping[str, pa.DataType],
        way_out: str = "from Python, give pl.scan_parquet(…, hive_partitioning=False) as the log for the column",
    ) -> None:
        self._way_out = way_out
        self._key_types = key_types
        self._columns = [name for name in columns if name not in key_types]
        self._keys = [name for name in columns if name in key_types]
        self._schemas: list[tuple[pa.Schema, FoundColumns]] = []
        self._shapes: dict[int, _Shape] = {}
        self._known: dict[str, None] = {}

    def look(self, schema: pa.Schema) -> FoundColumns:
        """Return what a file of this schema has."""
        seen: FoundColumns
        for known, seen in reversed(self._schemas):
            if schema.equals(known):
                return seen
        found = self._look(schema)
        self._schemas = [*self._schemas[1 - _KEPT_SCHEMAS :], (schema, found)]
        return found

    def count(self, found: FoundColumns, origin: str) -> None:
        """Count a file; files are counted in the order in which they are listed."""
        shape = self._shapes.get(id(found))
        if shape is None:
            # Kept here, and so its identity is not used again.
            self._shapes[id(found)] = _Shape(found, 1, origin)
        else:
            shape.n_files += 1

    def _look(self, schema: pa.Schema) -> FoundColumns:
        self._known |= dict.fromkeys(with_fields(schema).names)
        stored, repeated = [], {}
        for name in self._columns:
            paths = find_columns(schema, name)
            if len(paths) > 1:
                repeated[name] = len(paths)
            elif paths:
                (path,) = paths
                column = schema.field(path.column).name
                stored.append(StoredColumn(name, path.type, path.first_leaf, path.n_leaves, column, path.steps))
        return FoundColumns(tuple(stored), repeated, tuple(key for key in self._keys if key in schema.names))

    @property
    def found(self) -> list[str]:
        """The columns that at least one file has."""
        return [name for name in self._columns if self.types_of(name).has_one]

    def types_of(self, name: str) -> ColumnTypes:
        """Return the types under which the files store a column."""
        stored: dict[pa.DataType | None, tuple[int, str]] = {}
        for shape in self._shapes.values():
            kind = next((column.type for column in shape.found.stored if column.name == name), None)
            n_files, first = stored.get(kind, (0, shape.first))
            stored[kind] = n_files + shape.n_files, first
        return ColumnTypes(name, tuple((kind, *counted) for kind, counted in stored.items()))

    def type_of(self, name: str) -> pa.DataType:
        """Return the type of a column in the log; it does not depend on the order of the files."""
        return unified(self.types_of(name).present)

    def missing_types(self, columns: Sequence[str]) -> dict[str, pa.DataType]:
        """Return the types of those columns that some files lack."""
        return {name: self.type_of(name) for name in columns if self.types_of(name).missing_in is not None}

    def in_schema(self, schema: pa.Schema) -> pa.Schema:
        """Return the schema of a file, which ends with the partition keys, with the columns as all files have them."""
        changed = {name: self._field_of(name) for name in self.found}
        fields = [changed.pop(field.name, field) for field in schema]
        n_stored = len(fields) - len(self._key_types)
        return pa.schema([*fields[:n_stored], *changed.values(), *fields[n_stored:]])

    def _field_of(self, name: str) -> pa.Field:
        """Return the field of a column in the log, which says where the files differ."""
        types = self.types_of(name)
        return pa.field(name, self.type_of(name), metadata={DIFFERENCES: str(types)} if types.differ else None)

    def check(self, columns: Sequence[str], *, missing_as_null: bool) -> None:
        """Refuse what cannot be read of these columns, partition keys among them.

        Raises
        ------
        SchemaError
            If a file has a partition key as a column, or a column more than once; if a column is in no file, or is
            missing from one and not read as null; if two files store different kinds of values in one.
        """
        for shape in self._shapes.values():
            for key in filter(columns.__contains__, shape.found.clashing):
                raise SchemaError(
                    f"column {key!r} is in {shape.first!r}, and its path has a folder {key}=…, and either may be "
                    f"meant; {self._way_out}."
                )
            for name, n_times in shape.found.repeated.items():
                if name not in columns:
                    continue
                raise SchemaError(
                    f"column {name!r} is in {shape.first!r} {n_times} times; a selected name must be unique."
                )
        stored = [name for name in columns if name not in self._key_types]
        for name in stored:
            types = self.types_of(name)
            if types.stored and not types.has_one:
                one, first = types.n_files == 1, types.stored[0][2]
                where = f"is not in {first!r}" if one else f"is in none of {types.n_files:,} files"
                raise SchemaError(f"column {name!r} {where}. {nearest_names(name, self._known)}")
            if types.missing_in is not None and not missing_as_null:
                having = next(first for kind, _, first in types.stored if kind is not None)
                raise SchemaError(
                    f"column {name!r} is in {having!r} and not in {types.missing_in!r}; all files of a log must have "
                    "the selected columns, unless missing_columns='null' reads it as null there."
                )
            self._check_kinds(types)
        for shape in self._shapes.values():
            if not any(column.name in stored for column in shape.found.stored):
                raise SchemaError(
                    f"{shape.first!r} has none of the columns {', '.join(map(repr, stored))}; "
                    "missing_columns='null' needs one of them in every file. Leave out the others."
                )

    def _check_kinds(self, types: ColumnTypes) -> None:
        stored = [(kind, first) for kind, _, first in types.stored if kind is not None]
        for position, (kind, first) in enumerate(stored):
            for other, other_first in stored[:position]:
                if not are_one_family(kind, other):
                    raise SchemaError(
                        f"column {types.name!r} has type {other} in {other_first!r} and {kind} in {first!r}; "
                        "all files of a log must store the same kind of value."
                    )


def check_partition_keys(files: Sequence[LogFile], keys: Sequence[str]) -> None:
    """Refuse partition keys that the paths of some files lack.

    Raises
    ------
    SchemaError
        If there is one; the message names two files.
    """
    for name in keys:
        having = [any(key == name for key, _ in file.keys) for file in files]
        if not all(having) and any(having):
            lacking, other = files[having.index(False)].origin, files[having.index(True)].origin
            raise SchemaError(
                f"the path {lacking!r} has no folder {name}=…, and {other!r} has one; "
                "name files that share the key, or do without it; missing_columns='null' reads it as null there."
            )
