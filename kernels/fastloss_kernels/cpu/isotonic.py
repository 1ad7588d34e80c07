"""Isotonic regression of ordered cells, by pooling adjacent violators."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastloss_kernels.double_double import product_parts, two_sum
from fastloss_kernels.jit import compile_cpu, formula

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@formula
def _is_below(positive, positive_lo, weight, weight_lo, other, other_lo, other_weight, other_weight_lo):
    """Tell whether positive/weight < other/other_weight, all as hi + lo: by cross products, to about 2^-104."""
    left, left_lo = product_parts(positive, positive_lo, other_weight, other_weight_lo)
    right, right_lo = product_parts(other, other_lo, weight, weight_lo)
    return (left - right) + (left_lo - right_lo) < 0.0


@formula
def _add_parts(a, a_lo, b, b_lo):
    """Add two numbers of one sign, each hi + lo."""
    hi, lo = two_sum(a, b)
    return two_sum(hi, lo + (a_lo + b_lo))


@functools.cache
def make_pool_cells() -> Callable[..., None]:
    """Make ``pool_cells(starts, positive, positive_lo, weight, weight_lo, block_starts, stops, sums)``.

    Slice s has the cells ``starts[s]`` to ``starts[s + 1]``, float64 ``(n_cells,)`` each; its blocks are written to
    ``block_starts[s]`` up to ``block_starts[s + 1]`` of `stops` int64 ``(n_cells,)``, the cell after the last of each
    block, and `sums` float64 ``(n_cells, 4)``: positive mass and weight, each hi and lo.
    """

    def pool_cells(starts, positive, positive_lo, weight, weight_lo, block_starts, stops, sums):
        n_blocks = 0
        for s in range(starts.shape[0] - 1):
            first = n_blocks
            block_starts[s] = first
            for i in range(starts[s], starts[s + 1]):
                p, p_lo, w, w_lo = positive[i], positive_lo[i], weight[i], weight_lo[i]
                # The last block is taken back while its mean is no lower than that of what follows.
                while n_blocks > first:
                    last = sums[n_blocks - 1]
                    if _is_below(last[0], last[1], last[2], last[3], p, p_lo, w, w_lo):
                        break
                    p, p_lo = _add_parts(last[0], last[1], p, p_lo)
                    w, w_lo = _add_parts(last[2], last[3], w, w_lo)
                    n_blocks -= 1
                block = sums[n_blocks]
                block[0], block[1], block[2], block[3] = p, p_lo, w, w_lo
                stops[n_blocks] = i + 1
                n_blocks += 1
        block_starts[starts.shape[0] - 1] = n_blocks

    return compile_cpu(pool_cells)


@dataclass(frozen=True)
class IsotonicBlocks:
    """The isotonic regression of many slices: blocks of neighbouring cells, whose means ascend in each slice.

    Attributes
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where each slice's blocks begin.
    stops : ndarray of int64, (n_blocks,)
        The cell after the last of each block, counted over all slices; a block begins where the one before it stops.
    positive, positive_lo : ndarray of float64, (n_blocks,)
        The positive mass of each block, as hi + lo.
    weight, weight_lo : ndarray of float64, (n_blocks,)
        The weight of each block, as hi + lo.
    """

    starts: Integers
    stops: Integers
    positive: Floats
    positive_lo: Floats
    weight: Floats
    weight_lo: Floats


def pool_adjacent(
    starts: Integers,
    positive: Floats,
    weight: Floats,
    positive_lo: Floats | None = None,
    weight_lo: Floats | None = None,
) -> IsotonicBlocks:
    """Return the isotonic regression of each slice: the ascending means that are nearest to the cells' own.

    They minimize the weighted squared error and, for means of a binary label, the weighted log loss among all
    ascending sequences. Neighbours of equal means share a block. It takes time linear in the cells.

    Parameters
    ----------
    starts : ndarray of int64, (n_slices + 1,)
        Where each slice's cells begin.
    positive, weight : ndarray of float64, (n_cells,)
        The positive mass and the weight of each cell, both from 0; a cell of weight 0 joins a neighbour. The product
        of two sums must not overflow.
    positive_lo, weight_lo : ndarray of float64, (n_cells,), optional
        What rounding took off these numbers; 0 if left out. Means are compared in double-double arithmetic.

    References
    ----------
    Ayer, Brunk, Ewing, Reid and Silverman, An empirical distribution function for sampling with incomplete
    information, Annals of Mathematical Statistics 26, 1955.
    """
    n_cells = len(positive)
    nothing = np.zeros(n_cells)
    given = (positive, nothing if positive_lo is None else positive_lo)
    weights = (weight, nothing if weight_lo is None else weight_lo)
    # Kernels are compiled for arrays of one kind.
    cells = [np.require(array, np.float64, ("C", "W")) for array in (*given, *weights)]
    block_starts = np.zeros(len(starts), dtype=np.int64)
    stops = np.empty(n_cells, dtype=np.int64)
    sums = np.empty((n_cells, 4))
    make_pool_cells()(np.require(starts, np.int64, ("C", "W")), *cells, block_starts, stops, sums)
    n_blocks = int(block_starts[-1])
    found = np.ascontiguousarray(sums[:n_blocks].T)
    return IsotonicBlocks(block_starts, stops[:n_blocks].copy(), *found)
