"""Sources of rows: tasks that are read whole or not at all, and the facts that a plan needs before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from fastloss.columns.base import Batch
    from fastloss.columns.pruning import Pruning
    from fastloss.files import Stamp
    from fastloss.sources.stores.store import Stores


@dataclass(frozen=True)
class ReadOptions:
    """How a log is read; no option changes a value, and only `pruning` leaves out rows.

    Attributes
    ----------
    reader : str
        Which library decodes Parquet: a name in ``fastloss.sources.parquet.decoders.DECODERS``. ``"pyarrow"`` refuses
        malformed files; ``"polars"`` is for logs that the caller trusts, since a malformed file may end the process.
    verify_checksums : bool
        Verify the checksum of each Parquet page that carries one (pyarrow only).
    batch_rows : int
        Largest number of rows in one batch.
    join_rows, join_bytes : int
        Neighbouring tasks of files may be joined to one of so many rows, which holds so many bytes; 0: none are.
    task_bytes : int
        Decoded bytes that one task may hold at once; a larger row group is read in pieces.
    skip_bad_files : bool
        Leave out files whose footer cannot be read, and report them in the summary, instead of raising.
    pruning : Pruning, optional
        A filter that will be applied to the rows: a source may leave out files and row groups that hold none of them.
    missing_as_null : bool
        Read a column that some files of a log lack as null there, instead of raising.
    storage_options : mapping of str to object
        Options of the stores that URLs name; they may hold secrets.
    retry_seconds : float
        How long failures of a store that pass are waited for.
    """

    reader: str = "pyarrow"
    verify_checksums: bool = False
    batch_rows: int = 65_536
    join_rows: int = 0
    join_bytes: int = 0
    task_bytes: int = 128 << 20
    skip_bad_files: bool = False
    pruning: Pruning | None = None
    missing_as_null: bool = False
    storage_options: Mapping[str, object] | None = field(default=None, repr=False, hash=False)
    retry_seconds: float = 60.0

    @property
    def stores(self) -> Stores:
        """What is said of stores."""
        from fastloss.sources.stores.store import Stores

        return Stores(self.storage_options or {}, self.retry_seconds)


@dataclass(frozen=True)
class Task:
    """One row group of one file, or one batch of a stream, or several small ones; it is read whole or not at all.

    Attributes
    ----------
    index : int
        Position among the source's tasks, from 0.
    origin : str
        The file's path as the user gave it or as a glob or folder of theirs matched it, or ``"<stream>"``.
    row_group : int or None
        The row group within the file; None for a stream.
    first_row : int
        Where the task's rows begin: 0 in a row group, the rows before it in a stream.
    n_rows : int or None
        Rows that the file promises; None for a stream.
    stored_bytes : int
        Compressed bytes of the selected columns.
    decoded_bytes : int
        Estimate, from above, of the bytes held at once while the task is read.
    read : callable
        Returns an iterator over batches that hold exactly the selected columns. The iterator raises ReadError if a
        batch cannot be read or, at its end, if the rows are not those promised. A task of a file can be pickled, and
        read in another process; pickling one of a stream or of a frame is a UsageError.
    parts : tuple of Task
        The tasks that are joined to this one, in their order; it is named as the first of them, and its rows count
        through all of them. Empty if it is none but itself.
    """

    index: int
    origin: str
    row_group: int | None
    first_row: int
    n_rows: int | None
    stored_bytes: int
    decoded_bytes: int
    read: Callable[[], Iterator[Batch]]
    parts: tuple[Task, ...] = ()


@dataclass(frozen=True)
class ColumnTypes:
    """The types under which the files of a log store a column.

    Attributes
    ----------
    name : str
        The column.
    stored : tuple of (pyarrow.DataType or None, int, str)
        Each type, None where the column is missing; how many files have it, and the first of them. In the order of the
        files.
    """

    name: str
    stored: tuple[tuple[pa.DataType | None, int, str], ...]

    @property
    def present(self) -> list[pa.DataType]:
        """The types, without that of the files that lack the column."""
        return [kind for kind, *_ in self.stored if kind is not None]

    @property
    def differ(self) -> bool:
        """Whether files differ in it."""
        return len(self.stored) > 1

    @property
    def has_one(self) -> bool:
        """Whether a file has the column."""
        return bool(self.present)

    @property
    def n_files(self) -> int:
        """How many files there are."""
        return sum(n_files for _, n_files, _ in self.stored)

    @property
    def missing_in(self) -> str | None:
        """The first file that lacks the column."""
        return next((first for kind, _, first in self.stored if kind is None), None)

    def __str__(self) -> str:
        """Return such as ``double in 3 files, float in 2 (the first: 'b.parquet'), missing in 1 (the first: …)``."""
        parts = [f"{'missing' if kind is None else kind} in {n_files:,}" for kind, n_files, _ in self.stored]
        parts[0] += " file" if self.stored[0][1] == 1 else " files"
        firsts = [f" (the first: {first!r})" for *_, first in self.stored[1:]]
        return ", ".join(part + first for part, first in zip(parts, ["", *firsts], strict=True))


@dataclass(frozen=True)
class SourceSummary:
    """The content of a source, as far as it is known before a row is read.

    Attributes
    ----------
    files, row_groups : int
        Zero for a stream.
    rows : int or None
        Rows promised; None where only reading tells.
    stored_bytes : int or None
        Compressed bytes of the selected columns; None where only reading tells.
    largest_task_bytes : int or None
        Largest ``Task.decoded_bytes``; None where only reading tells.
    largest_task_rows : int or None
        The most rows of a task that is not joined of others; None where only reading tells.
    skipped : list of (str, str)
        Files left out, each with its cause.
    pruned_files, pruned_row_groups : int
        What the filter rules out, which is not read: whole files, and row groups of the others.
    differences : list of ColumnTypes
        The columns that the files store differently, or that some of them lack.
    """

    files: int
    row_groups: int
    rows: int | None
    stored_bytes: int | None
    largest_task_bytes: int | None
    largest_task_rows: int | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    pruned_files: int = 0
    pruned_row_groups: int = 0
    differences: list[ColumnTypes] = field(default_factory=list)


def survey(source: Source, columns: Sequence[str], options: ReadOptions) -> None:
    """Let a source of many files look at these columns in all of them: its schema then has their types over all files.

    A source whose schema is known when it is opened has no method for that.
    """
    look = getattr(source, "survey", None)
    if look is not None:
        look(columns, options)


def gives_rows_once(source: Source) -> bool:
    """Tell whether a source is a stream whose rows cannot be read a second time; it says so by an attribute."""
    return bool(getattr(source, "gives_rows_once", False))


class Source(Protocol):
    """Rows under a schema, cut into tasks."""

    @property
    def schema(self) -> pa.Schema:
        """Column names and logical types; partition keys come last, as fields of their own."""

    def tasks(self, columns: Sequence[str], options: ReadOptions) -> Iterator[Task]:
        """Check the columns against every file, then return the tasks in a fixed order.

        The iterator is not safe to share between threads without a lock; ``Task.read`` is.
        """

    def summary(self, columns: Sequence[str], options: ReadOptions) -> SourceSummary:
        """Return what is known of these columns without reading a row."""

    def inputs(self, columns: Sequence[str]) -> list[Stamp] | None:
        """Return the files whose rows the tasks of these columns give; None for a stream or a frame."""
