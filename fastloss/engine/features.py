"""Features: the columns that derivatives are multiplied with, and the checks of their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, IntegerArray, Keys, Lists, NumberArray
from fastloss.engine.device import Device
from fastloss.engine.selection import Mask, Selection
from fastloss.errors import DataError
from fastloss.states import causes
from fastloss.states.causes import Cause
from fastloss.states.ledger import Place

_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Feature:
    """A feature of the rows of a batch.

    Attributes
    ----------
    values : numpy.ndarray of float64, float32 or int8, shape (n_rows, width)
        0 where null; of lists a column for each place.
    null : numpy.ndarray of bool, shape (n_rows,), or None
        Which rows lack the feature; None if none does.
    null_places : numpy.ndarray of bool, shape (n_rows, width), or None
        Which numbers lists lack; None if none does.
    """

    values: NumberArray
    null: Mask | None
    null_places: Mask | None = None

    @property
    def width(self) -> int:
        """How many columns it has; 0 where every list is null."""
        return int(self.values.shape[1])


@dataclass(frozen=True)
class FeatureSet:
    """The categories of the rows of a batch, of which each row has any number.

    Attributes
    ----------
    rows : numpy.ndarray of int64, shape (m,)
        The row of each.
    keys : Keys
        The categories.
    """

    rows: IntegerArray
    keys: Keys


class FeatureChecks:
    """The checks of features: finite numbers, lists of one length."""

    def __init__(self, names: Sequence[str], sets: Sequence[str], device: Device) -> None:
        self._names = names
        self._sets = sets
        self._count_outside = device.sums.make_count_outside() if names else None

    def check(self, usable: Selection, batch: Batch, place: Place) -> dict[str, Feature | FeatureSet]:
        """Return the features of a batch; rows that hold a NaN or an infinity are left out.

        Raises
        ------
        DataError
            If the lists of a column are not of one length.
        """
        lists = batch.list_columns if self._names else ()
        found: dict[str, Feature | FeatureSet] = {
            name: self._lists(usable, batch.lists(name), name, place)
            if name in lists
            else self._numbers(usable, batch, name)
            for name in self._names
        }
        for name in self._sets:
            keys, offsets, _ = batch.list_keys(name)
            found[name] = FeatureSet(np.repeat(np.arange(batch.n_rows), np.diff(offsets)), keys)
        return found

    def _numbers(self, usable: Selection, batch: Batch, name: str) -> Feature:
        values, valid = batch.numbers(name)
        if self._has_bad(values):
            usable.drop(np.isnan(values), Cause(causes.NAN, name, "feature"), values)
            usable.drop(np.isinf(values), Cause(causes.OUTSIDE_DOMAIN, name, "feature"), values)
            values = np.where(np.isfinite(values), values, 0.0)
        return Feature(values[:, None], None if valid is None else ~valid)

    def _lists(self, usable: Selection, lists: Lists, name: str, place: Place) -> Feature:
        values, present = lists.values, lists.valid
        if not lists.lengths.all():
            # An empty list is none, in whatever batch it comes.
            present = lists.lengths > 0
        lengths = lists.lengths if present is None else lists.lengths[present]
        width = int(lengths[0]) if len(lengths) else 0
        if (lengths != width).any():
            row = int(np.argmax(lists.lengths != width if present is None else (lists.lengths != width) & present))
            raise unequal_lengths(place.location(row).describe(), name, width, int(lists.lengths[row]))
        if self._has_bad(values):
            usable.drop_elements(np.isnan(values), Cause(causes.NAN, name, "feature"), lists)
            usable.drop_elements(np.isinf(values), Cause(causes.OUTSIDE_DOMAIN, name, "feature"), lists)
            values = np.where(np.isfinite(values), values, 0.0)
        null = None if present is None else ~present
        if not width:
            return Feature(np.zeros((len(lists.offsets) - 1, 0)), null)
        table = _spread(values.reshape(-1, width), present)
        if lists.elements_valid is None:
            return Feature(table, null)
        return Feature(table, null, _spread(~lists.elements_valid.reshape(-1, width), present))

    def _has_bad(self, values: NumberArray) -> bool:
        assert self._count_outside is not None
        return any(self._count_outside(values, -_LARGEST, _LARGEST))


def _spread(table: NDArray[Any], present: Mask | None) -> NDArray[Any]:
    """Return the rows of a table where they are present, and zeros elsewhere."""
    if present is None:
        return table
    spread = np.zeros((len(present), table.shape[1]), dtype=table.dtype)
    spread[present] = table
    return spread


def unequal_lengths(where: str, name: str, length: int, other: int) -> DataError:
    """Return the error of a feature with lists of two lengths."""
    return DataError(
        f"{where}: feature column {name!r} has lists of {length} and of {other} numbers; allowed: one length for all "
        "rows, or null."
    )
