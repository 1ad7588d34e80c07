"""Loops that add terms to exact accumulators: all of them to one, or each to the accumulator of its cell."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.cpu.pointwise import make_value_block
from fastloss_kernels.domain import Row
from fastloss_kernels.exact_sum import BLOCK_ROWS, LIMBS, add_block, add_term
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
def make_sort_by_cell() -> Callable[..., None]:
    """Make ``sort_by_cell(cells, n_cells, order, starts)``: a stable counting sort of row numbers by cell.

    `cells` int64 ``(n_rows,)`` in [0, n_cells); `order` int64 ``(n_rows,)`` receives the rows of cell 0, then of
    cell 1, and so on; `starts` int64 ``(n_cells + 1,)`` where each cell's rows begin.
    """

    def sort_by_cell(cells, n_cells, order, starts):
        for cell in range(n_cells + 1):
            starts[cell] = 0
        for i in range(cells.shape[0]):
            starts[cells[i] + 1] += 1
        for cell in range(n_cells):
            starts[cell + 1] += starts[cell]
        for i in range(cells.shape[0]):
            cell = cells[i]
            order[starts[cell]] = i
            starts[cell] += 1
        # Each start has moved to the start of the next cell.
        for cell in range(n_cells, 0, -1):
            starts[cell] = starts[cell - 1]
        starts[0] = 0

    return compile_cpu(sort_by_cell)


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
def make_add_by_cell() -> Callable[..., None]:
    """Make ``add_by_cell(terms, starts, rows, accumulators, column)`` for terms in the order of their cells.

    `starts` int64 ``(n_cells + 1,)`` where each cell's terms begin; the terms of cell c go to
    ``accumulators[rows[c], column]`` of int64 ``(n, n_terms, ACCUMULATOR_WORDS)``.
    """

    def add_by_cell(terms, starts, rows, accumulators, column):
        for cell in range(starts.shape[0] - 1):
            accumulator = accumulators[rows[cell], column]
            # Below this length, adding term by term is shorter than splitting.
            if starts[cell + 1] - starts[cell] < 16:
                for i in range(starts[cell], starts[cell + 1]):
                    add_term(accumulator, terms[i])
                continue
            for start in range(starts[cell], starts[cell + 1], BLOCK_ROWS):
                add_block(accumulator, terms[start : min(start + BLOCK_ROWS, starts[cell + 1])])

    return compile_cpu(add_by_cell)


@functools.cache
def make_normalize() -> Callable[..., None]:
    """Make ``normalize(accumulators)``: carry every digit of int64 ``(n, ACCUMULATOR_WORDS)`` into [0, 2^32)."""

    def normalize(accumulators):
        for row in range(accumulators.shape[0]):
            carry = np.int64(0)
            for limb in range(LIMBS - 1):
                digit = accumulators[row, limb] + carry
                accumulators[row, limb] = digit & 0xFFFF_FFFF
                carry = digit >> 32
            accumulators[row, LIMBS - 1] += carry

    return compile_cpu(normalize)


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
