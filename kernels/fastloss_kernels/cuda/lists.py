"""Loops of a listwise formula over ragged lists on the GPU, twin of `cpu.lists`. One thread evaluates one list.

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
    """Make ``value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out)``.

    Arrays as in `cpu.lists.make_list_value`, on the device. But `scratch` is float64 ``(n_scratch + 2,
    n_candidates)``, since lists run at the same time: each has the columns of its candidates.
    """

    def value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out):
        for i in range(cuda.grid(1), lists.shape[0], cuda.gridsize(1)):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                scratch[:, start:stop],
                scratch[-2, start:stop],
                scratch[-1, start:stop],
                False,
            )

    return compile_cuda(value)


@functools.cache
def make_list_value_gradient_hessian(row: ListRow) -> Any:
    """Make ``value_gradient_hessian(…, lists, parameters, scratch, value_out, gradient_out, hessian_out)``.

    Arrays as in `cpu.lists.make_list_value_gradient_hessian`, on the device; `scratch` as in `make_list_value`, of
    which only the first `n_scratch` rows are used.
    """

    def value_gradient_hessian(
        score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out, gradient_out, hessian_out
    ):
        for i in range(cuda.grid(1), lists.shape[0], cuda.gridsize(1)):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                scratch[:, start:stop],
                gradient_out[start:stop],
                hessian_out[start:stop],
                True,
            )

    return compile_cuda(value_gradient_hessian)


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
