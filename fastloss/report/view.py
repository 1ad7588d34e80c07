"""Views: the slices of a result that a report has, and their order; and the members of a result that it may use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastloss.metrics.evaluate import GroupingValues


@dataclass(frozen=True)
class View:
    """A choice of slices.

    Attributes
    ----------
    slices : int or None
        How many slices of each grouping; None for all. Where there are more, those with the most rows, or the first
        of the order.
    sort : str or None
        The metric that slices are ordered by, the largest value of the first model first, or "n"; None for their keys.
    min_rows : int
        Slices of fewer rows are left out.
    wide : bool
        Where the format is a table of data: a column for each metric, instead of a row for each value.
    """

    slices: int | None = None
    sort: str | None = None
    min_rows: int = 0
    wide: bool = False


class Reported(Protocol):
    """The members of `fastloss.Result` that reports read."""

    @property
    def groupings(self) -> Sequence[GroupingValues]:
        """The values of the total, and of each grouping's slices."""

    @property
    def key_types(self) -> Mapping[str, str]:
        """The Arrow type of each slice key's column in the log."""

    def shown(self, slices: int | None, *, sort: str | None, min_rows: int) -> dict[str, Any]:
        """Return what a person reads, as plain values."""

    def selected(self, slices: int | None, *, sort: str | None, min_rows: int) -> Reported:
        """Return a result of these slices alone."""

    def to_json(self, indent: int | None = None) -> str:
        """Return everything as one JSON object."""

    def json_parts(self, indent: int | None = None) -> Iterator[str]:
        """Yield the text of `to_json` in parts."""


def shown(result: Reported, view: View) -> dict[str, Any]:
    """Return what a person reads of a view, as plain values."""
    return result.shown(view.slices, sort=view.sort, min_rows=view.min_rows)


def selected(result: Reported, view: View) -> Reported:
    """Return a result of the view's slices alone."""
    return result.selected(view.slices, sort=view.sort, min_rows=view.min_rows)
