"""Lists of probabilities divided by their sum."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from fastloss_kernels.jit import compile_cpu, divide
from fastloss_kernels.listwise.sums import sum_parts

if TYPE_CHECKING:
    from collections.abc import Callable


@functools.cache
def make_divide_by_sum() -> Callable[..., None]:
    """Make ``divide_by_sum(values, offsets, out)``: each list divided by the sum of what is not NaN in it.

    Arrays are float64 ``(n_candidates,)``, `offsets` int64 ``(n_lists + 1,)``. A list whose sum is 0 stays as it is.
    """

    def divide_by_sum(values, offsets, out):
        for k in range(offsets.shape[0] - 1):
            given, found = values[offsets[k] : offsets[k + 1]], out[offsets[k] : offsets[k + 1]]
            for j in range(given.shape[0]):
                found[j] = given[j] if given[j] == given[j] else 0.0
            total, lo = sum_parts(found)
            total += lo
            divisor = total if total > 0.0 else 1.0
            for j in range(given.shape[0]):
                found[j] = divide(given[j], divisor)

    return compile_cpu(divide_by_sum)
