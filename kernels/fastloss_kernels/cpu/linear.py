"""Loops over a linear predictor: the sums that a Newton step of its coefficients needs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.domain import Row
from fastloss_kernels.exact_sum import BLOCK_ROWS, add_block
from fastloss_kernels.jit import compile_cpu, fma, formula


@formula
def _multiply(terms, factors, products):
    for i in range(terms.shape[0]):
        products[i] = terms[i] * np.float64(factors[i])


@functools.cache
def make_add_fit_sums(row: Row, features: tuple[Callable[..., float], ...], constant: bool) -> Callable[..., None]:
    """Make ``add_fit_sums(score, label, weight, parameters, coefficients, wanted, accumulators)``.

    The predictor of a row is z = Σ c_k·φ_k, with one or two features φ of the score and, if `constant`, 1 as the last.
    `accumulators` int64 ``(n_sums, ACCUMULATOR_WORDS)`` receive sums of the row formula at z, times the weight: of its
    value, then of gradient·φ_k, then of hessian·φ_j·φ_k, the upper triangle row by row. Values are added where
    `wanted` has the bit 1, hessians where it has the bit 2. An empty `weight` is 1 for each row.
    """
    n_given = len(features)
    n = n_given + constant
    feature, other = features[0], features[-1]
    # Rows of the block: features, one that stands for 1, value, gradient, features times hessian, hessian, scratch.
    ones, value_row, gradient_row, curved_row = n_given, n_given + 1, n_given + 2, n_given + 3
    hessian_row, product_row = curved_row + n_given, curved_row + n_given + 1
    pairs = [(value_row, ones), *((gradient_row, k) for k in range(n))]
    pairs += [(curved_row + j, k) for j in range(n) for k in range(j, n)]
    n_sums, first_hessian = len(pairs), 1 + n
    factors_of = tuple(terms for terms, _ in pairs)
    others_of = tuple(factors for _, factors in pairs)

    @formula
    def evaluate(score, label, parameters, coefficients, first, second, value, gradient, hessian):
        for i in range(score.shape[0]):
            x = np.float64(score[i])
            phi = feature(x, parameters)
            z = fma(coefficients[0], phi, coefficients[n_given] if constant else 0.0)
            first[i] = phi
            if n_given == 2:
                phi = other(x, parameters)
                z = fma(coefficients[1], phi, z)
                second[i] = phi
            value[i], gradient[i], hessian[i] = row(z, np.float64(label[i]), parameters)

    def add_fit_sums(score, label, weight, parameters, coefficients, wanted, accumulators):
        n_rows = score.shape[0]
        blocks = np.empty((product_row + 1, BLOCK_ROWS))
        for start in range(0, n_rows, BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, n_rows)
            m = stop - start
            value, gradient, hessian = blocks[value_row, :m], blocks[gradient_row, :m], blocks[hessian_row, :m]
            evaluate(
                score[start:stop], label[start:stop], parameters, coefficients,
                blocks[0, :m], blocks[n_given - 1, :m], value, gradient, hessian,
            )  # fmt: skip
            if weight.shape[0] > 0:
                for k in (value_row, gradient_row, hessian_row):
                    _multiply(blocks[k, :m], weight[start:stop], blocks[k, :m])
            if wanted & 2:
                for k in range(n_given):
                    _multiply(hessian, blocks[k, :m], blocks[curved_row + k, :m])
            for k in range(n_sums):
                if (k > 0 or wanted & 1 != 0) and (k < first_hessian or wanted & 2 != 0):
                    added = factors_of[k]
                    if others_of[k] != ones:
                        _multiply(blocks[added, :m], blocks[others_of[k], :m], blocks[product_row, :m])
                        added = product_row
                    add_block(accumulators[k], blocks[added, :m])

    return compile_cpu(add_fit_sums, formulas=(row, *features))
