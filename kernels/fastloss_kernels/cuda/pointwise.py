"""Loops of a pointwise formula over arrays on the GPU, twin of `cpu.pointwise`.

A kernel is launched as ``kernel[blocks, threads](...)`` with any grid: each thread takes every row that lies a whole
number of grids from its own. No row depends on another, so the grid cannot change a bit.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import cuda

from fastloss_kernels.domain import Row, RowTest
from fastloss_kernels.jit import compile_cuda

# `float` costs nothing on a device. The simulator reads NumPy scalars, whose overflows warn; formulas take floats.


@functools.cache
def make_value(row: Row) -> Any:
    """Make ``value(score, label, parameters, value_out)`` of a row formula; arrays are float64 ``(n_rows,)``."""

    def value(score, label, parameters, value_out):
        for i in range(cuda.grid(1), score.shape[0], cuda.gridsize(1)):
            value_out[i] = row(float(score[i]), float(label[i]), parameters)[0]

    return compile_cuda(value)


@functools.cache
def make_value_gradient_hessian(row: Row) -> Any:
    """Make ``value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out)``."""

    def value_gradient_hessian(score, label, parameters, value_out, gradient_out, hessian_out):
        for i in range(cuda.grid(1), score.shape[0], cuda.gridsize(1)):
            value_out[i], gradient_out[i], hessian_out[i] = row(float(score[i]), float(label[i]), parameters)

    return compile_cuda(value_gradient_hessian)


@functools.cache
def make_flag(test: RowTest) -> Any:
    """Make ``flag(score, label, parameters, flag_out)`` of a row test; `flag_out` is bool ``(n_rows,)``."""

    def flag(score, label, parameters, flag_out):
        for i in range(cuda.grid(1), score.shape[0], cuda.gridsize(1)):
            flag_out[i] = test(float(score[i]), float(label[i]), parameters)

    return compile_cuda(flag)
