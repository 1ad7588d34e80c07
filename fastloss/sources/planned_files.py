"""What logs of files have in common, whatever the format: a plan that is made once, a survey, and files left out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from fastloss.columns.pruning import Pruning
from fastloss.errors import ReadError, UsageError
from fastloss.sources.base import ReadOptions
from fastloss.sources.listing import LogFile
from fastloss.sources.parquet.partitions import key_types
from fastloss.sources.survey import Survey, check_partition_keys

T = TypeVar("T")


class Surveyed(Protocol):
    """A plan that knows what the files have."""

    @property
    def survey(self) -> Survey:
        """What the files have of the columns."""


PlanT = TypeVar("PlanT", bound=Surveyed)


class PlannedFiles(Generic[PlanT]):
    """Files of one log. A format's source plans them in `_plan_files`, and sets `_schema` to the first file's.

    Parameters
    ----------
    files : sequence of LogFile
        The files.
    options : ReadOptions
        How to read; ``skip_bad_files`` and ``missing_as_null`` matter here.
    keys : mapping of str to DataType, optional
        The types of the partition keys; left out, they are told from the values.
    """

    _schema: pa.Schema

    def __init__(
        self, files: Sequence[LogFile], options: ReadOptions, keys: Mapping[str, pa.DataType] | None = None
    ) -> None:
        self._options = options
        self._files = list(files)
        self._is_local = all(file.is_local for file in self._files)
        self._skipped: dict[str, str] = {}
        self._planned: tuple[tuple[frozenset[str], Pruning | None], PlanT] | None = None
        self._planning = threading.Lock()
        self._key_types = key_types(self._files) if keys is None else dict(keys)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the first file that can be read, fields of structs among them, then the partition keys.

        After `survey`, its columns have their types over all files, and are there if any file has them.
        """
        return self._schema

    def survey(self, columns: Sequence[str], options: ReadOptions) -> None:
        """Look at these columns in every file that the filter does not rule out by its path.

        What is asked of them afterwards is then known. A name may be no column at all.

        Raises
        ------
        ReadError
            If a file cannot be opened or contradicts itself, and bad files are not skipped.
        """
        names = list(dict.fromkeys(columns))
        if set(names) <= self._key_types.keys():
            return
        with self._planning:
            plan = self._plan_files(names, options.pruning)
            keys = [name for name in names if name in self._key_types]
            self._planned = (frozenset([*plan.survey.found, *keys]), options.pruning), plan
            self._schema = plan.survey.in_schema(self._schema)

    def _plan_files(self, columns: Sequence[str], pruning: Pruning | None) -> PlanT:
        """Look at every file that is not left out; refuse no column."""
        raise NotImplementedError

    def _plan(self, columns: tuple[str, ...], pruning: Pruning | None) -> PlanT:
        """Return what reading these columns takes; raises as ``tasks`` does."""
        if all(name in self._key_types for name in columns):
            raise UsageError("no column of the files is selected; select at least one beside the partition keys.")
        asked = frozenset(columns), pruning
        with self._planning:
            if self._planned is None or self._planned[0] != asked:
                self._planned = asked, self._plan_files(columns, pruning)
            _, plan = self._planned
        if not self._options.missing_as_null:
            check_partition_keys(self._readable(), [name for name in columns if name in self._key_types])
        plan.survey.check(columns, missing_as_null=self._options.missing_as_null)
        return plan

    def _readable(self) -> list[LogFile]:
        """Return the files that were not left out."""
        return [file for file in self._files if file.origin not in self._skipped]

    def _first_of(self, read: Callable[[LogFile], T]) -> T:
        """Return what is read of the first file that can be read."""
        for file in self._files:
            try:
                return read(file)
            except ReadError as error:
                self._skip_or_raise(file, error)
        causes = list(self._skipped.values())
        raise ReadError(f"no file of {len(causes)} can be read; the first: {causes[0]}")

    def _skip_or_raise(self, file: LogFile, error: ReadError) -> None:
        if not self._options.skip_bad_files:
            raise error
        self._skipped[file.origin] = str(error)
