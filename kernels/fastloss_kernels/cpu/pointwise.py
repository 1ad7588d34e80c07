"""Loops of a row formula over arrays: the value alone, or value, gradient and hessian; serial and parallel."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from numba import prange

from fastloss_kernels.jit import compile_cpu, formula
from fastloss_kernels.losses.form import Row, RowTest

if TYPE_CHECKING:
    from collections.abc import Callable

PARALLEL_BLOCK_ROWS = 1 << 16
# Below this many rows, starting threads costs more than it saves.
PARALLEL_FROM_ROWS = 1 << 20


@functools.cache
def make_value(row: Row, parallel: bool = False) -> Callable[..., None]:
    """Make ``value(score, label, parameters, value_out)`` of a row formula; arrays are float64 ``(n_rows,)``."""

    @formula
    def block(score, label, parameters, value_out, start, stop):
        for i in range(start, stop):
            value_out[i] = row(score[i], label[i], parameters)[0]

    def value(score, label, parameters, value_out):
        block(score, label, parameters, value_out, 0, score.shape[0])

    def value_parallel(score, label, parameters, value_out):
        n_rows = score.shape[0]
        for b in prange((n_rows + PARALLEL_BLOCK_ROWS - 1) // PARALLEL_BLOCK_ROWS):
            start = b * PARALLEL_BLOCK_ROWS
            block(score, label, parameters, value_out, start, min(start + PARALLEL_BLOCK_ROWS, n_rows))

    return compile_cpu(value_parallel, parallel=True) if parallel else compile_cpu(value)


@functools.cache
def make_value_gradient_hessian(row: Row, parallel: bool = False) -> Callable[..., None]:
    """Make ``value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out)``."""

    @formula
    def block(score, label, parameters, value_out, gradient_out, hessian_out, start, stop):
        for i in range(start, stop):
            value_out[i], gradient_out[i], hessian_out[i] = row(score[i], label[i], parameters)

    def value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out):
        block(score, label, parameters, value_out, gradient_out, hessian_out, 0, score.shape[0])

    def value_gradient_hessian_parallel(score, label, parameters, value_out, gradient_out, hessian_out):
        n_rows = score.shape[0]
        for b in prange((n_rows + PARALLEL_BLOCK_ROWS - 1) // PARALLEL_BLOCK_ROWS):
            start = b * PARALLEL_BLOCK_ROWS
            stop = min(start + PARALLEL_BLOCK_ROWS, n_rows)
            block(score, label, parameters, value_out, gradient_out, hessian_out, start, stop)

    if parallel:
        return compile_cpu(value_gradient_hessian_parallel, parallel=True)
    return compile_cpu(value_gradient_hessian)


@functools.cache
def make_flag(test: RowTest) -> Callable[..., None]:
    """Make ``flag(score, label, parameters, flag_out)`` of a row test; `flag_out` is bool ``(n_rows,)``."""

    def flag(score, label, parameters, flag_out):
        for i in range(score.shape[0]):
            flag_out[i] = test(score[i], label[i], parameters)

    return compile_cpu(flag)
