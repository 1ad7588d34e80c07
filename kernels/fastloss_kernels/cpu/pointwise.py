"""Loops of a pointwise formula over arrays: values alone, or values, gradients and hessians."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numba import prange

from fastloss_kernels.domain import Row, RowTest
from fastloss_kernels.jit import compile_cpu, formula

if TYPE_CHECKING:
    from collections.abc import Callable

# Loops run over whole (slices of) arrays: an index that starts at an argument may be negative for all that the
# compiler knows, and the wrap-around that it then allows for keeps the loop scalar.
PARALLEL_BLOCK_ROWS = 1 << 16


@functools.cache
def make_value_block(row: Row) -> Callable[..., None]:
    """Make the formula ``block(score, label, parameters, value_out)`` that loops of values are made of."""

    @formula
    def block(score, label, parameters, value_out):
        for i in range(score.shape[0]):
            value_out[i] = row(np.float64(score[i]), np.float64(label[i]), parameters)[0]

    return block


@functools.cache
def make_value(row: Row, parallel: bool = False) -> Callable[..., None]:
    """Make ``value(score, label, parameters, value_out)`` of a row formula.

    Arrays are ``(n_rows,)``; scores and labels of any number type that float64 holds, values float64.
    """
    block = make_value_block(row)

    def value(score, label, parameters, value_out):
        block(score, label, parameters, value_out)

    def value_parallel(score, label, parameters, value_out):
        n_rows = score.shape[0]
        for b in prange((n_rows + PARALLEL_BLOCK_ROWS - 1) // PARALLEL_BLOCK_ROWS):
            rows = slice(b * PARALLEL_BLOCK_ROWS, min((b + 1) * PARALLEL_BLOCK_ROWS, n_rows))
            block(score[rows], label[rows], parameters, value_out[rows])

    function = value_parallel if parallel else value
    return compile_cpu(function, parallel=parallel, formulas=(row,))


@functools.cache
def make_value_gradient_hessian(row: Row, parallel: bool = False) -> Callable[..., None]:
    """Make ``value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out)``."""

    @formula
    def block(score, label, parameters, value_out, gradient_out, hessian_out):
        for i in range(score.shape[0]):
            value_out[i], gradient_out[i], hessian_out[i] = row(score[i], label[i], parameters)

    def value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out):
        block(score, label, parameters, value_out, gradient_out, hessian_out)

    def value_gradient_hessian_parallel(score, label, parameters, value_out, gradient_out, hessian_out):
        n_rows = score.shape[0]
        for b in prange((n_rows + PARALLEL_BLOCK_ROWS - 1) // PARALLEL_BLOCK_ROWS):
            rows = slice(b * PARALLEL_BLOCK_ROWS, min((b + 1) * PARALLEL_BLOCK_ROWS, n_rows))
            block(score[rows], label[rows], parameters, value_out[rows], gradient_out[rows], hessian_out[rows])

    function = value_gradient_hessian_parallel if parallel else value_gradient_hessian
    return compile_cpu(function, parallel=parallel, formulas=(row,))


@functools.cache
def make_flag(test: RowTest) -> Callable[..., None]:
    """Make ``flag(score, label, parameters, flag_out)`` of a row test; `flag_out` is bool ``(n_rows,)``."""

    def flag(score, label, parameters, flag_out):
        for i in range(score.shape[0]):
            flag_out[i] = test(np.float64(score[i]), np.float64(label[i]), parameters)

    return compile_cpu(flag, formulas=(test,))
