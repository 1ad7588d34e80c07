"""Loops that add terms to one exact accumulator, order rows by their slices and count what is outside a range."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.cpu.pointwise import make_value_block
from fastloss_kernels.domain import Row
from fastloss_kernels.exact_sum import BLOCK_ROWS, add_block
from fastloss_kernels.jit import compile_cpu


@functools.cache
def make_add_terms() -> Callable[..., None]:
    """Make ``add_terms(terms, accumulator)``: float64 ``(n_rows,)`` into int64 ``(ACCUMULATOR_WORDS,)``."""

    def add_terms(terms, accumulator):
        n_rows = terms.shape[0]
        for start in range(0, n_rows, BLOCK_ROWS):
            add_block(accumulator, terms[start : min(start + BLOCK_ROWS, n_rows)])

    return compile_cpu(add_terms)


@functools.cache
def make_sort_by_slice() -> Callable[..., None]:
    """Make ``sort_by_slice(positions, n_slices, order, starts)``: a stable counting sort of row numbers by slice.

    `positions` int64 ``(n_rows,)`` in [0, n_slices); `order` int64 ``(n_rows,)`` receives the rows of slice 0, then of
    slice 1, and so on; `starts` int64 ``(n_slices + 1,)`` where each slice's rows begin.
    """

    def sort_by_slice(positions, n_slices, order, starts):
        for k in range(n_slices + 1):
            starts[k] = 0
        for i in range(positions.shape[0]):
            starts[positions[i] + 1] += 1
        for k in range(n_slices):
            starts[k + 1] += starts[k]
        for i in range(positions.shape[0]):
            k = positions[i]
            order[starts[k]] = i
            starts[k] += 1
        # Each start has moved to the start of the next slice.
        for k in range(n_slices, 0, -1):
            starts[k] = starts[k - 1]
        starts[0] = 0

    return compile_cpu(sort_by_slice)


@functools.cache
def make_add_values(row: Row) -> Callable[..., None]:
    """Make ``add_values(score, label, parameters, accumulator)``: a row formula's values, summed as they are computed.

    Scores and labels as in `pointwise.make_value`, accumulator int64 ``(ACCUMULATOR_WORDS,)``.
    """

    fill = make_value_block(row)

    def add_values(score, label, parameters, accumulator):
        block = np.empty(BLOCK_ROWS)
        n_rows = score.shape[0]
        for start in range(0, n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n_rows)
            values = block[: stop - start]
            fill(score[start:stop], label[start:stop], parameters, values)
            add_block(accumulator, values)

    return compile_cpu(add_values, formulas=(row,))


@functools.cache
def make_take_rows() -> Callable[..., None]:
    """Make ``take_rows(values, rows, out)``: ``out[i] = values[rows[i]]``, float64 and int64 ``(n_rows,)``."""

    def take_rows(values, rows, out):
        for i in range(rows.shape[0]):
            out[i] = values[rows[i]]

    return compile_cpu(take_rows)


@functools.cache
def make_count_outside() -> Callable[..., tuple[int, int]]:
    """Make ``count_outside(values, low, high) -> (n_nan, n_outside)``; NaN is not counted as outside."""

    def count_outside(values, low, high):
        n_nan = 0
        n_outside = 0
        for i in range(values.shape[0]):
            value = np.float64(values[i])
            n_nan += value != value
            n_outside += (value < low) | (value > high)
        return n_nan, n_outside

    return compile_cpu(count_outside)
