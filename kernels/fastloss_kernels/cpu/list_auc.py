"""Loop over sorted lists: the AUC of each, times what it weighs in a mean over lists."""

from __future__ import annotations

import functools
from collections.abc import Callable

from fastloss_kernels.double_double import divide_parts, multiply_parts, product_parts
from fastloss_kernels.jit import compile_cpu
from fastloss_kernels.listwise.auc import pairs_of, quotient_of_pairs
from fastloss_kernels.listwise.sums import sum_parts

# What a list weighs: its candidates, 1, its positives, the sum of its weights, its pairs.
IMPRESSIONS, UNIFORM, POSITIVES, SAMPLE_WEIGHT, PAIRS = range(5)
N_WEIGHTINGS = 5
# What a list holds: positives and negatives, and different scores or one score alone; or one class.
VALID, CONSTANT, NO_POSITIVE, NO_NEGATIVE = range(4)


@functools.cache
def make_list_auc() -> Callable[..., None]:
    """Make ``list_auc(score, offsets, label, weight, lists, kind_out, weight_out, value_out)``.

    Score, label and weight are float64 of the sorted candidates of all lists, `weight` empty where each weighs 1;
    `offsets` says where lists begin, and `lists` int64 ``(n,)`` which to evaluate. `kind_out` int8 ``(n,)`` receives
    what a list holds, `weight_out` float64 ``(N_WEIGHTINGS, n)`` what it weighs, and `value_out`, of the same shape,
    that times its AUC; 0 where it has none.
    """

    def list_auc(score, offsets, label, weight, lists, kind_out, weight_out, value_out):
        weighted = weight.shape[0] > 0
        for i in range(lists.shape[0]):
            start, stop = offsets[lists[i]], offsets[lists[i] + 1]
            scores = score[start:stop]
            of_list = weight[start:stop] if weighted else weight
            won, won_lo, positives, positives_lo, negatives, negatives_lo, scale = pairs_of(
                scores, label[start:stop], of_list, weighted
            )
            n = float(stop - start)
            # A list without a positive may stand in any order, and this sum is the same in each.
            mass, mass_lo = sum_parts(of_list) if weighted else (n, 0.0)
            pairs, pairs_lo = product_parts(positives, positives_lo, negatives, negatives_lo)
            weight_out[IMPRESSIONS, i] = n
            weight_out[UNIFORM, i] = 1.0
            weight_out[POSITIVES, i] = (positives + positives_lo) / scale
            weight_out[SAMPLE_WEIGHT, i] = mass + mass_lo
            weight_out[PAIRS, i] = (pairs + pairs_lo) / scale / scale
            kind = VALID
            if positives == 0.0:
                kind = NO_POSITIVE
            elif negatives == 0.0:
                kind = NO_NEGATIVE
            elif scores[0] == scores[stop - start - 1]:
                kind = CONSTANT
            kind_out[i] = kind
            if kind in (NO_POSITIVE, NO_NEGATIVE):
                for k in range(N_WEIGHTINGS):
                    value_out[k, i] = 0.0
                continue
            auc, auc_lo = quotient_of_pairs(won, won_lo, positives, positives_lo, negatives, negatives_lo)
            whole, whole_lo = multiply_parts(n, won, won_lo)
            times_n, times_n_lo = divide_parts(whole, whole_lo, pairs, pairs_lo)
            of_positives, of_positives_lo = divide_parts(won, won_lo, negatives, negatives_lo)
            whole, whole_lo = product_parts(mass, mass_lo, auc, auc_lo)
            # No rounding brings an AUC above 1.
            value_out[IMPRESSIONS, i] = min(times_n + times_n_lo, n)
            value_out[UNIFORM, i] = min(auc + auc_lo, 1.0)
            value_out[POSITIVES, i] = min((of_positives + of_positives_lo) / scale, weight_out[POSITIVES, i])
            value_out[SAMPLE_WEIGHT, i] = min(whole + whole_lo, weight_out[SAMPLE_WEIGHT, i])
            value_out[PAIRS, i] = min((won + won_lo) / scale / scale, weight_out[PAIRS, i])

    return compile_cpu(list_auc)
