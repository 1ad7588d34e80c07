"""Exact sums of products of columns: the gradient and the Gauss-Newton matrix of a linear layer over features.

A term is the float64 product a·b of two columns, rounded once. A block of up to `BLOCK_ROWS` terms is summed in two
levels: p = fma(a, b, M) − M is the part of a term above one unit, and what is left is r = a·b − p. M = 1.5·2^K is so
chosen, from the largest magnitudes of both columns, that all p are multiples of the unit and their plain sum stays
within 2^53 units. The r are multiples of a smaller unit, known from the smallest magnitudes: where that is more than
86 bits below the largest term, a second M splits them too, and where it is more than 130 bits below, terms are added
one by one. Both sums are exact in any order, so that they vectorise (see `fastloss_kernels.exact_sum`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from fastloss_kernels.exact_sum import add_term
from fastloss_kernels.jit import (
    compile_cpu,
    exact_add,
    float32_at,
    float64_at,
    float64_bits,
    float64_from_bits,
    fma,
    formula,
    int8_at,
)

_MAGNITUDE_MASK = 0x7FFF_FFFF_FFFF_FFFF
# The exponent of infinities and NaN.
_SPECIAL = 0x7FF
_HALF = 0x0008_0000_0000_0000
# Between a term and the unit of the first level; and what one level leaves.
_LEVEL_BITS = 43
_LEFT_BITS = 44
# As many bits as float64 holds, less those of a sum of `BLOCK_ROWS` numbers.
_PLAIN_BITS = 42


@formula
def scale_column(factor, column, out):
    """Write factor·column; return bit patterns at or above its largest magnitude, and below its smallest but 0."""
    largest = 0
    smallest = _MAGNITUDE_MASK
    for i in range(column.shape[0]):
        product = factor[i] * column[i]
        out[i] = product
        magnitude = float64_bits(product) & _MAGNITUDE_MASK
        largest = max(largest, magnitude)
        # Zero wraps around to the largest pattern.
        smallest = min(smallest, (magnitude - 1) & _MAGNITUDE_MASK)
    return largest, smallest


@formula
def widen_column(column, out):
    """Write a column as float64, and return what `scale_column` returns of it."""
    largest = 0
    smallest = _MAGNITUDE_MASK
    for i in range(column.shape[0]):
        number = float(column[i])
        out[i] = number
        magnitude = float64_bits(number) & _MAGNITUDE_MASK
        largest = max(largest, magnitude)
        smallest = min(smallest, (magnitude - 1) & _MAGNITUDE_MASK)
    return largest, smallest


@formula
def split_products(a, b, splitter):
    """Return the sums of the terms' parts above and below the unit of a splitter."""
    above = 0
    below = 0.0
    for i in range(a.shape[0]):
        shifted = fma(a[i], b[i], splitter)
        # In one binade, bit patterns count units.
        above += float64_bits(shifted)
        below = exact_add(below, a[i] * b[i] - (shifted - splitter))
    return float(above - a.shape[0] * float64_bits(splitter)), below


@formula
def split_products_twice(a, b, splitter, second):
    """Return the sums of the terms' parts above the unit of a splitter, above that of a second, and below."""
    above = 0.0
    between = 0.0
    below = 0.0
    for i in range(a.shape[0]):
        part = fma(a[i], b[i], splitter) - splitter
        rest = a[i] * b[i] - part
        above = exact_add(above, part)
        part = (rest + second) - second
        between = exact_add(between, part)
        below = exact_add(below, rest - part)
    return above, between, below


@formula
def add_products(accumulator, a, b, exponents_of_a, exponents_of_b):
    """Add the terms a·b of at most `BLOCK_ROWS` rows to an accumulator, exactly.

    Exponents are those of the two bit patterns that `scale_column` returns of a column, before they are unbiased.
    """
    largest = max(exponents_of_a[0], exponents_of_b[0])
    # A column of zeros has no smallest magnitude.
    if max(exponents_of_a[1], exponents_of_b[1]) == _SPECIAL and largest != _SPECIAL:
        return
    # A term is below 2^top, and a multiple of 2^bottom.
    top = exponents_of_a[0] + exponents_of_b[0] - 2044
    bottom = exponents_of_a[1] + exponents_of_b[1] - 2046 - 52
    is_subnormal = min(exponents_of_a[1], exponents_of_b[1]) == 0
    too_wide = top - bottom > _LEVEL_BITS + _LEFT_BITS + _PLAIN_BITS
    if largest == _SPECIAL or is_subnormal or top > 900 or bottom < -1000 or too_wide:
        for i in range(a.shape[0]):
            add_term(accumulator, a[i] * b[i])
        return
    splitter = float64_from_bits(((top + 52 - _LEVEL_BITS + 1023) << 52) | _HALF)
    if top - bottom <= _LEFT_BITS + _PLAIN_BITS:
        units, below = split_products(a, b, splitter)
        above = units * float64_from_bits((top - _LEVEL_BITS + 1023) << 52)
    else:
        second = float64_from_bits(((top - _LEFT_BITS + 52 - _LEVEL_BITS + 1023) << 52) | _HALF)
        above, between, below = split_products_twice(a, b, splitter, second)
        add_term(accumulator, between)
    add_term(accumulator, above)
    add_term(accumulator, below)


@functools.cache
def make_add_feature_products() -> Callable[..., None]:
    """Make ``add_feature_products(columns, n_rows, residual, curvature, factors, scratch, exponents, accumulators)``.

    `columns` int64 ``(n_columns - 1, 2)`` has the address of each feature's numbers, `n_rows` in a row, and the bytes
    of one: 8 for float64, 4 for float32, 1 for int8; at the address 0 are zeros. `residual` and `curvature` float64
    ``(n_rows,)``. Factors are numbered: 1 for the bias and each feature first, then curvature·feature, then
    residual·feature. `factors` int64 ``(n_sums, 2)`` names the two whose products are added to each of `accumulators`,
    int64 ``(n_sums, ACCUMULATOR_WORDS)``. There is scratch: `scratch` float64 ``(3 * n_columns, block_rows)``, of
    at most `BLOCK_ROWS` rows, and `exponents` int64 ``(3 * n_columns, 2)``.
    """

    def add_feature_products(columns, n_rows, residual, curvature, factors, scratch, exponents, accumulators):
        n = columns.shape[0] + 1
        block_rows = scratch.shape[1]
        scratch[0] = 1.0
        exponents[0] = 1023
        for start in range(0, n_rows, block_rows):
            stop = min(start + block_rows, n_rows)
            for j in range(n):
                feature = scratch[j, : stop - start]
                if j > 0:
                    address = columns[j - 1, 0] + start * columns[j - 1, 1]
                    if columns[j - 1, 0] == 0:
                        feature[:] = 0.0
                        largest, smallest = 0, _MAGNITUDE_MASK
                    elif columns[j - 1, 1] == 4:
                        largest, smallest = widen_column(float32_at(address, stop - start), feature)
                    elif columns[j - 1, 1] == 8:
                        largest, smallest = widen_column(float64_at(address, stop - start), feature)
                    else:
                        largest, smallest = widen_column(int8_at(address, stop - start), feature)
                    exponents[j, 0], exponents[j, 1] = largest >> 52, smallest >> 52
                largest, smallest = scale_column(curvature[start:stop], feature, scratch[n + j])
                exponents[n + j, 0], exponents[n + j, 1] = largest >> 52, smallest >> 52
                largest, smallest = scale_column(residual[start:stop], feature, scratch[2 * n + j])
                exponents[2 * n + j, 0], exponents[2 * n + j, 1] = largest >> 52, smallest >> 52
            for k in range(factors.shape[0]):
                i, j = factors[k]
                a, b = scratch[i, : stop - start], scratch[j, : stop - start]
                add_products(accumulators[k], a, b, exponents[i], exponents[j])

    return compile_cpu(add_feature_products)
