"""The choice of slices that a report shows: those of rows enough, the first of an order."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastloss.metrics.evaluate import GroupingValues

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Choice:
    """A choice of slices.

    Attributes
    ----------
    slices : int or None
        How many of each grouping; None for all. Where there are more, those with the most rows, or the first of the
        order.
    sort : str or None
        The metric that they are ordered by, the largest value of the first model first, or "n"; None for their keys.
    min_rows : int
        Slices of fewer rows are left out.
    """

    slices: int | None = None
    sort: str | None = None
    min_rows: int = 0

    @property
    def is_of_all(self) -> bool:
        """Whether no slice is left out."""
        return self.slices is None and self.min_rows <= 0

    def of(self, values: GroupingValues) -> tuple[Integers, int]:
        """Return the slices that are chosen, in order, and how many have rows enough."""
        if values.counted is not None:
            # It has been made.
            return values.order, values.counted.of_min_rows
        if self.is_of_all and self.sort is None:
            return values.order, len(values.order)
        counts = [column.n for column in values.columns] if values.n_rows is None else [*values.n_rows.values()]
        # One after the other: of millions of slices, all counts at once are too many.
        n = functools.reduce(np.maximum, {id(count): count for count in counts}.values())
        order = values.order[n[values.order] >= self.min_rows]
        chosen: Integers = order
        if self.sort == "n":
            chosen = order[np.argsort(-n[order], kind="stable")][: self.slices]
        elif self.sort is not None:
            found = next(column.values for column in values.columns if column.metric == self.sort)
            rank = np.where(found.undefined | np.isnan(found.value), -np.inf, found.value)
            chosen = order[np.argsort(-rank[order], kind="stable")][: self.slices]
        elif self.slices is not None and len(order) > self.slices:
            chosen = order[np.argsort(-n[order], kind="stable")][: self.slices]
        return chosen, len(order)
