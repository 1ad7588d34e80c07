"""The kinds of logs: one line each, with the module that opens them.

A kind is known by types and their modules' names, so that no library is imported here that the caller has not.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, cast

from fastloss.errors import UsageError
from fastloss.sources.entries import names_files, speaks_arrow

if TYPE_CHECKING:
    from fastloss.sources.base import ReadOptions, Source


class Kind(NamedTuple):
    """A kind of log.

    Attributes
    ----------
    is_kind : callable
        Tells whether an object is a log of this kind.
    module : str
        The module whose `open_log` opens it.
    """

    is_kind: Callable[[object], bool]
    module: str


class Opener(Protocol):
    """The member of a kind's module that is called."""

    def open_log(self, log: object, options: ReadOptions, columns: Sequence[str] | None) -> Source:
        """Open a log of this kind; see `fastloss.sources.open_source`."""


def is_type(library: str, name: str) -> Callable[[object], bool]:
    """Return a function that tells whether an object is of a class of a library, or of one derived from it."""

    def is_kind(log: object) -> bool:
        return any(base.__name__ == name and base.__module__.partition(".")[0] == library for base in type(log).mro())

    return is_kind


def _is_iterable(log: object) -> bool:
    return hasattr(log, "__iter__") and not isinstance(log, (bytes, bytearray, memoryview, Mapping, set, frozenset))


# The first that fits is taken.
KINDS: Sequence[Kind] = (
    Kind(names_files, "fastloss.sources.named_files"),
    Kind(is_type("polars", "LazyFrame"), "fastloss.sources.polars_lazy"),
    Kind(is_type("pyarrow", "Dataset"), "fastloss.sources.dataset"),
    Kind(is_type("deltalake", "DeltaTable"), "fastloss.sources.delta"),
    Kind(is_type("pyiceberg", "Table"), "fastloss.sources.iceberg"),
    Kind(is_type("pyiceberg", "DataScan"), "fastloss.sources.iceberg"),
    Kind(speaks_arrow, "fastloss.sources.arrow_stream"),
    Kind(_is_iterable, "fastloss.sources.iterables"),
)


def opener_of(log: object) -> Opener:
    """Return the module that opens a log.

    Raises
    ------
    UsageError
        If the object is no log.
    """
    for kind in KINDS:
        if kind.is_kind(log):
            return cast("Opener", importlib.import_module(kind.module))
    if callable(log):
        name = getattr(log, "__name__", type(log).__name__)
        raise UsageError(f"the log is a function, and its rows are what it returns; give {name}() instead of {name}.")
    raise UsageError(
        f"a log of type {type(log).__name__} cannot be read; give a path, a glob, a folder, a list of paths, "
        "a Polars lazy frame, an object with __arrow_c_stream__ (pyarrow, Polars, pandas, DuckDB), a pyarrow "
        "dataset, a table of deltalake or pyiceberg, or an iterable of record batches."
    )
