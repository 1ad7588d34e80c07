"""The selection of a batch's rows: those in use, and why the others are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Lists, NumberArray
from fastloss.states.causes import Cause
from fastloss.states.ledger import Ledger, Place

Mask = NDArray[np.bool_]


class Selection:
    """The rows of a batch that are still in use. Drops are counted in the ledger as they happen."""

    def __init__(self, ledger: Ledger, place: Place, keep: Mask | None = None) -> None:
        self._ledger = ledger
        self._place = place
        self.keep = keep

    def copy(self) -> Selection:
        """Return the same rows, to leave out others."""
        return Selection(self._ledger, self._place, self.keep)

    def drop_null(self, valid: Mask | None, cause: Cause) -> None:
        """Leave out the rows that are not valid."""
        if valid is not None:
            self.drop(~valid, cause, None)

    def drop(self, unwanted: Mask, cause: Cause, values: NumberArray | None, counted: Mask | None = None) -> None:
        """Drop the marked rows and count them in the ledger.

        `counted` remembers rows that another model has already counted for the same cause.
        """
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
        row = self._place.first(unwanted)
        found = None if values is None else float(values[row])
        self._ledger.drop(cause, count, self._place.location(row, found))

    def drop_elements(self, unwanted: Mask, cause: Cause, lists: Lists) -> None:
        """Drop the rows whose list holds a marked element."""
        rows = lists.lists_with(unwanted)
        found = np.full(len(rows), np.nan)
        elements = np.flatnonzero(unwanted)
        holders = lists.holders(elements)
        # Backwards, so that the first of a row is what is told.
        found[holders[::-1]] = lists.values[elements[::-1]]
        self.drop(rows, cause, found)
