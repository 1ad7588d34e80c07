"""Which rows of a batch are in use, and why the others are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Lists, NumberArray
from fastloss.sources.base import Task
from fastloss.states.ledger import Cause, Ledger, Location

Mask = NDArray[np.bool_]


class Selection:
    """Which rows of a batch are still in use; drops are counted in the ledger as they happen."""

    def __init__(self, ledger: Ledger, task: Task, first_row: int, keep: Mask | None = None) -> None:
        self._ledger = ledger
        self._task = task
        self._first_row = first_row
        self.keep = keep

    def copy(self) -> Selection:
        """Return the same rows, to leave out others."""
        return Selection(self._ledger, self._task, self._first_row, self.keep)

    def drop_null(self, valid: Mask | None, cause: Cause) -> None:
        """Leave out the rows that are not valid."""
        if valid is not None:
            self.drop(~valid, cause, None)

    def drop(self, unwanted: Mask, cause: Cause, values: NumberArray | None, counted: Mask | None = None) -> None:
        """Leave out rows, and count those that were still in use, each once among all that share `counted`."""
        if self.keep is not None:
            unwanted = unwanted & self.keep
        if not unwanted.any():
            return
        self.keep = ~unwanted if self.keep is None else self.keep & ~unwanted
        if counted is not None:
            unwanted = unwanted & ~counted
            counted |= unwanted
        count = int(np.count_nonzero(unwanted))
        if count == 0:
            return
        row = int(unwanted.argmax())
        found = None if values is None else float(values[row])
        task = self._task
        place = Location(task.index, task.first_row + self._first_row + row, task.origin, task.row_group, found)
        self._ledger.drop(cause, count, place)

    def drop_elements(self, unwanted: Mask, cause: Cause, lists: Lists) -> None:
        """Leave out the rows whose list holds an unwanted element."""
        rows = lists.lists_with(unwanted)
        found = np.full(len(rows), np.nan)
        elements = np.flatnonzero(unwanted)
        holders = lists.holders(elements)
        # Backwards, so that the first of a row is what is told.
        found[holders[::-1]] = lists.values[elements[::-1]]
        self.drop(rows, cause, found)
