"""The groups of a partition: rows with equal keys side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastloss.shuffle.narrowing import Column, unsigned
from fastloss_kernels.cpu.shuffling import (
    make_gather,
    make_group_rows,
    make_hash_integers,
)

Integers = NDArray[np.int64]


def hash_integers(keys: Integers) -> NDArray[np.uint64]:
    """Return well mixed hashes of integers; different integers have different ones."""
    hashes = np.empty(len(keys), dtype=np.uint64)
    make_hash_integers()(_plain(keys), hashes)
    return hashes


def hash_keys(keys: Sequence[Integers]) -> NDArray[np.uint64]:
    """Return hashes of keys: of one column of integers, or the first of two columns, which is one already."""
    return hash_integers(keys[0]) if len(keys) == 1 else keys[0].view(np.uint64)


def group_rows(keys: Sequence[Integers]) -> tuple[NDArray[np.int32], Integers]:
    """Bring rows with equal keys together.

    Parameters
    ----------
    keys : sequence of int64 arrays, shape (n_rows,)
        One column, or two that are a key of 128 bits; fewer than 2³¹ rows.

    Returns
    -------
    order : int32 array, shape (n_rows,)
        The rows by group; those of a group in the order in which they came.
    starts : int64 array, shape (n_groups + 1,)
        Group k has the rows ``order[starts[k]:starts[k + 1]]``. Groups come in the order in which they are first seen.
    """
    first, *others = (_plain(key) for key in keys)
    n_rows = len(first)
    if len(others) > 1 or any(len(other) != n_rows for other in others):
        raise ValueError(f"keys have {len(keys)} columns; allowed: one or two of the same length")
    if n_rows >= 1 << 31:
        raise ValueError(f"{n_rows} rows at once; allowed: fewer than 2^31")
    second = others[0] if others else _plain(np.empty(0, dtype=np.int64))
    order = np.empty(n_rows, dtype=np.int32)
    starts = make_group_rows()(first, second, order)
    return order, starts


def gather(values: Column, order: NDArray[np.int32]) -> Column:
    """Return ``values[order]``, without the copy of `order` as 64-bit integers that NumPy would make."""
    out: NDArray[Any] = np.empty(len(order), dtype=values.dtype)
    make_gather()(_plain(unsigned(values)), order, unsigned(out))
    return out


def _plain(values: Column) -> Column:
    """Return an array as kernels are compiled for it: contiguous and read-only."""
    view = np.ascontiguousarray(values).view()
    view.flags.writeable = False
    return view
