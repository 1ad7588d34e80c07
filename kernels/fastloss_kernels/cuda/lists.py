"""Loops of a list formula over ragged lists on the GPU, twin of `cpu.lists`; a list is one thread's work.

A kernel is launched as ``kernel[blocks, threads](...)`` with any grid. No list depends on another, and inside a list
the order of the arithmetic is fixed, so the grid cannot change a bit.
"""

from __future__ import annotations

import functools
from typing import Any

from numba import cuda

from fastloss_kernels.domain import ListRow, ListTest
from fastloss_kernels.jit import compile_cuda


@functools.cache
def make_list_value(row: ListRow) -> Any:
    """Make ``value(score, score_offsets, label, label_offsets, lists, parameters, gradient, hessian, value_out)``.

    As `make_list_value_gradient_hessian`; what `gradient` and `hessian` hold afterwards is of no use.
    """
    return _make(row, False)


@functools.cache
def make_list_value_gradient_hessian(row: ListRow) -> Any:
    """Make ``value_gradient_hessian(…, lists, parameters, gradient_out, hessian_out, value_out)``.

    Arrays as in `cpu.lists.make_list_value_gradient_hessian`, on the device.
    """
    return _make(row, True)


def _make(row: ListRow, derivatives: bool) -> Any:
    def evaluate(score, score_offsets, label, label_offsets, lists, parameters, gradient, hessian, value_out):
        for i in range(cuda.grid(1), lists.shape[0], cuda.gridsize(1)):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                gradient[start:stop],
                hessian[start:stop],
                derivatives,
            )

    return compile_cuda(evaluate)


@functools.cache
def make_list_flag(test: ListTest) -> Any:
    """Make ``flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out)`` of a list test."""

    def flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out):
        for i in range(cuda.grid(1), lists.shape[0], cuda.gridsize(1)):
            k = lists[i]
            flag_out[i] = test(
                score[score_offsets[k] : score_offsets[k + 1]],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
            )

    return compile_cuda(flag)
