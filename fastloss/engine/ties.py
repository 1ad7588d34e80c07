"""What decides between candidates of equal scores, as numbers: the larger stands first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastloss.columns.base import Batch, Keys
from fastloss.columns.grouped import GroupedBatch
from fastloss.engine.selection import Mask

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def ranks_of_keys(keys: Keys) -> Floats:
    """Return a number for each value of keys, in their order: that of numbers, of bytes of texts, null first."""
    values = keys.values
    if isinstance(values, np.ndarray):
        # A value may have several codes.
        ranks = np.unique(values, return_inverse=True)[1].astype(np.float64)
    else:
        # The order of code points is that of bytes in UTF-8.
        order = sorted(range(len(values)), key=lambda code: (values[code] is not None, values[code]))
        ranks = np.empty(len(values))
        ranks[order] = np.arange(len(values))
    if keys.null_code is not None:
        ranks[keys.null_code] = -1.0
    return ranks


def tie_keys(batch: Batch, ties: str, column: str | None, offsets: Integers) -> tuple[Floats | None, Mask | None]:
    """Return a number for each candidate of lists at these offsets, and the lists that have not as many of them.

    There are none for rules that read labels alone, and no such lists where None is returned.
    """
    if ties not in ("input", "id_desc"):
        return None, None
    if isinstance(batch, GroupedBatch):
        return batch.ties, None
    if ties == "input":
        return -np.arange(offsets[-1], dtype=np.float64), None
    assert column is not None
    lists = batch.list_keys(column)
    numbers = ranks_of_keys(lists.keys)[lists.keys.codes] if len(lists.keys.codes) else np.empty(0)
    if np.array_equal(lists.offsets, offsets):
        return numbers, None
    lengths = np.diff(offsets)
    different = np.diff(lists.offsets) != lengths
    lengths[different] = 0
    starts = np.append(0, np.cumsum(lengths))
    # The candidates of the lists that fit, one list after the other, here and there.
    places = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    aligned = np.zeros(offsets[-1])
    aligned[places + np.repeat(offsets[:-1], lengths)] = numbers[places + np.repeat(lists.offsets[:-1], lengths)]
    return aligned, different if different.any() else None
