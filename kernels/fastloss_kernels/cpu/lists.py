"""Loops of a listwise formula over ragged lists: values alone, or values, gradients and hessians.

Lists lie one after the other in arrays of candidates; ``offsets`` int64 ``(n_lists + 1,)`` says where each begins. A
label that is an index has a list of length 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
from numba import prange

from fastloss_kernels.domain import ListRow, ListTest
from fastloss_kernels.jit import compile_cpu, formula

# Lists of about so many candidates are one thread's work at a time.
_PARALLEL_BLOCKS_PER_ARRAY = 64


def make_scratch(n_scratch: int, longest: int) -> np.ndarray:
    """Make the scratch of every loop here, float64 ``(n_scratch + 2, longest)``.

    `n_scratch` is the loss's, or the largest of several; `longest` is the length of the longest list. The last two
    rows stand for gradient and hessian where only the value is asked for.
    """
    return np.empty((n_scratch + 2, longest))


@functools.cache
def make_list_value(row: ListRow) -> Callable[..., None]:
    """Make ``value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out)``.

    Scores and labels float64 of all candidates; `lists` int64 ``(n,)`` the numbers of the lists to evaluate, and
    `value_out` float64 ``(n,)`` their values, in that order; `scratch` as `make_scratch` makes it.
    """

    def value(score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                scratch,
                scratch[-2, : stop - start],
                scratch[-1, : stop - start],
                False,
            )

    return compile_cpu(value, formulas=(row,))


@functools.cache
def make_list_value_gradient_hessian(row: ListRow, parallel: bool = False) -> Callable[..., None]:
    """Make ``value_gradient_hessian(…, lists, parameters, scratch, value_out, gradient_out, hessian_out)``.

    As `make_list_value`; `gradient_out` and `hessian_out` are float64 of all candidates, and those of lists that are
    not evaluated stay as they are. The parallel loop makes scratch of the same shape for each of its blocks.
    """

    @formula
    def block(
        score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out, gradient_out, hessian_out
    ):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            value_out[i] = row(
                score[start:stop],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
                scratch,
                gradient_out[start:stop],
                hessian_out[start:stop],
                True,
            )

    def value_gradient_hessian(
        score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out, gradient_out, hessian_out
    ):
        block(
            score,
            score_offsets,
            label,
            label_offsets,
            lists,
            parameters,
            scratch,
            value_out,
            gradient_out,
            hessian_out,
        )

    def value_gradient_hessian_parallel(
        score, score_offsets, label, label_offsets, lists, parameters, scratch, value_out, gradient_out, hessian_out
    ):
        n_lists = lists.shape[0]
        for b in prange(_PARALLEL_BLOCKS_PER_ARRAY):
            first = n_lists * b // _PARALLEL_BLOCKS_PER_ARRAY
            last = n_lists * (b + 1) // _PARALLEL_BLOCKS_PER_ARRAY
            block(
                score,
                score_offsets,
                label,
                label_offsets,
                lists[first:last],
                parameters,
                np.empty_like(scratch),
                value_out[first:last],
                gradient_out,
                hessian_out,
            )

    function = value_gradient_hessian_parallel if parallel else value_gradient_hessian
    return compile_cpu(function, parallel=parallel, formulas=(row,))


@functools.cache
def make_list_flag(test: ListTest) -> Callable[..., None]:
    """Make ``flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out)`` of a list test."""

    def flag(score, score_offsets, label, label_offsets, lists, parameters, flag_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            flag_out[i] = test(
                score[score_offsets[k] : score_offsets[k + 1]],
                label[label_offsets[k] : label_offsets[k + 1]],
                parameters,
            )

    return compile_cpu(flag, formulas=(test,))


# Fit for the loss, or why not.
USABLE, EMPTY, MASKED, NO_POSITIVE, NO_PAIR, TWO_INFINITIES, NO_SUCH_INDEX = range(7)
NEEDS = {"candidate": 0, "positive": 1, "pair": 2, "unmasked positive": 3}
# The same of metrics that rank −∞ as the lowest score in every space.
RANKED_NEEDS = {"ranked candidate": 0, "ranked pair": 2, "ranked positive": 3, "ranked classes": 4}
# The same where a list that lacks it is an error.
REQUIRED_NEEDS = {"required pair": 2, "required positive": 3, "required classes": 4}
RANKED_NEEDS |= REQUIRED_NEEDS
NEEDS |= RANKED_NEEDS


@functools.cache
def make_classify() -> Callable[..., None]:
    """Make ``classify(score, score_offsets, label, label_offsets, lists, lowest, needs, is_index, class_out)``.

    `class_out` int8 ``(n,)`` receives `USABLE` or why a list is not. A score below `lowest`, or NaN, is masked; where
    −∞ is, two scores of ∞ cannot both have the probability 1. `needs` is one of `NEEDS`. The label of an index has
    one number, else one for each candidate.
    """

    def classify(score, score_offsets, label, label_offsets, lists, lowest, needs, is_index, class_out):
        for i in range(lists.shape[0]):
            k = lists[i]
            start, stop = score_offsets[k], score_offsets[k + 1]
            scores = score[start:stop]
            n_present = 0
            n_infinite = 0
            for j in range(scores.shape[0]):
                n_present += scores[j] >= lowest
                n_infinite += scores[j] == np.inf
            labels = label[label_offsets[k] : label_offsets[k + 1]]
            positive = False
            low = np.inf
            high = -np.inf
            if needs == 1 and not is_index:
                for j in range(labels.shape[0]):
                    if labels[j] > 0.0:
                        positive = True
                        break
            elif needs == 3 and not is_index:
                for j in range(scores.shape[0]):
                    positive |= (labels[j] > 0.0) & (scores[j] >= lowest)
            elif needs in (2, 4) and not is_index:
                for j in range(scores.shape[0]):
                    here = scores[j] >= lowest
                    low = min(low, labels[j] if here else np.inf)
                    high = max(high, labels[j] if here else -np.inf)
            found = USABLE
            if stop == start:
                found = EMPTY
            elif n_present == 0:
                found = MASKED
            elif n_infinite > 1 and lowest > -np.inf:
                found = TWO_INFINITIES
            elif is_index:
                y = labels[0]
                found = USABLE if (y == np.floor(y)) & (y >= 0.0) & (y < stop - start) else NO_SUCH_INDEX
            elif (needs == 1 or needs == 3) and not positive:
                found = NO_POSITIVE
            elif (needs == 2 and not low < high) or (needs == 4 and not (low < 1.0 and high > 0.0)):
                found = NO_PAIR
            class_out[i] = found

    return compile_cpu(classify)
