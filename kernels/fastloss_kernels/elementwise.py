"""A scalar formula over arrays: in plain Python for few elements, compiled for many, with the same bits."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fastloss_kernels.jit import compile_cpu

# Below this many elements, compiling takes longer than plain Python.
_COMPILE_FROM = 512


@functools.cache
def make_map_two(formula: Callable[[float, float], float]) -> Callable[..., None]:
    """Make ``map_two(first, second, out)``: ``out[i] = formula(first[i], second[i])``, float64 ``(n,)``."""

    def map_two(first, second, out):
        for i in range(first.shape[0]):
            out[i] = formula(first[i], second[i])

    return compile_cpu(map_two, formulas=(formula,))


def map_formula(formula: Callable[[float, float], float], first: Any, second: Any) -> np.ndarray:
    """Return a formula's values over two float64 arrays of shape ``(n,)``."""
    out = np.empty(len(first))
    if len(first) < _COMPILE_FROM:
        for i, (a, b) in enumerate(zip(first.tolist(), second.tolist(), strict=True)):
            out[i] = formula(a, b)
        return out
    make_map_two(formula)(np.ascontiguousarray(first), np.ascontiguousarray(second), out)
    return out
