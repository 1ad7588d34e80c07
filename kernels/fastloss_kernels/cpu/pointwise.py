"""Loops of a row formula over arrays: the value alone, or value, gradient and hessian; serial and parallel."""

from __future__ import annotations

import functools
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import prange

from fastloss_kernels.jit import compile_cpu, formula
from fastloss_kernels.losses.form import Interval, Loss, Row, RowTest

if TYPE_CHECKING:
    from collections.abc import Callable

# Loops run over whole (slices of) arrays: an index that starts at an argument may be negative for all that the
# compiler knows, and the wrap-around that it then allows for keeps the loop scalar.
PARALLEL_BLOCK_ROWS = 1 << 16
# Below this many rows, starting threads costs more than it saves.
PARALLEL_FROM_ROWS = 1 << 20


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


def evaluate_arrays(loss: Loss, space: str, label: Any, score: Any, outputs: int) -> tuple[np.ndarray, ...]:
    """Evaluate a loss on arrays of one shape; `outputs` is 1 (value) or 3 (value, gradient, hessian).

    Anything that `numpy.asarray` reads is accepted: NumPy, Arrow, Polars and pandas columns. Nulls arrive as NaN.

    Raises
    ------
    ValueError
        If the shapes differ, or a label or prediction lies outside its domain.
    """
    labels, scores = _numbers("label", label), _numbers(space, score)
    if labels.shape != scores.shape:
        raise ValueError(f"label has shape {labels.shape} and {space} has shape {scores.shape}; they must be equal.")
    require_range(space, scores, loss.prediction_range(space))
    if getattr(loss, "label_domain", "01") == "pm1":
        require_range("label", labels, Interval(-1.0, 1.0))
        labels = 0.5 * labels + 0.5
    else:
        require_range("label", labels, loss.label_range)
    flat_score, flat_label = _kernel_array(scores), _kernel_array(labels)
    results = tuple(np.empty(flat_score.shape) for _ in range(outputs))
    make = make_value if outputs == 1 else make_value_gradient_hessian
    kernel = make(loss.rows[space], may_run_parallel(flat_score.size))
    kernel(flat_score, flat_label, loss.parameters(space), *results)
    return tuple(result.reshape(labels.shape) for result in results)


def _numbers(name: str, given: Any) -> np.ndarray:
    if isinstance(given, np.ma.MaskedArray):
        given = given.astype(np.float64).filled(np.nan)
    values = np.asarray(given)
    if values.dtype.kind not in "biufO":
        raise ValueError(f"{name} has the type {values.dtype}; allowed: real numbers or booleans.")
    if values.dtype.kind in "iu" and values.size and max(abs(int(values.max())), abs(int(values.min()))) > 2**53:
        raise ValueError(f"{name} holds an integer beyond 2**53, which float64 cannot hold; cast it to float64 first.")
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} does not hold one number a row; of lists, OverLists(loss) takes the mean or the sum."
        ) from None


def _kernel_array(values: np.ndarray) -> np.ndarray:
    # Kernels are compiled for writable contiguous arrays alone; another layout would compile them anew.
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat if flat.flags.writeable else flat.copy()


def require_range(name: str, values: np.ndarray, allowed: Interval) -> None:
    """Raise a ValueError that names the first number outside a range; NaN is passed over."""
    low, high = allowed.bounds
    outside = (values < low) | (values > high)
    if allowed.without_zero:
        outside |= values == 0.0
    if outside.any():
        first = float(values[outside].flat[0])
        raise ValueError(f"{name} is {first!r}; allowed: {allowed.describe(name)}.")


def may_run_parallel(n_rows: int) -> bool:
    """Tell whether to use the parallel loop: only from the main thread, where no threading layer can abort."""
    mode = os.environ.get("FASTLOSS_THREADING", "auto")
    if mode != "auto":
        return mode == "parallel"
    return n_rows >= PARALLEL_FROM_ROWS and threading.current_thread() is threading.main_thread()
