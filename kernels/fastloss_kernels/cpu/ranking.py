"""Ranked lists: the candidates of each list in the order of their scores, as formulas of ranking metrics read them.

Candidates of equal scores stand in the order of their labels, so that no formula can see in which order they came.
Nor can one see the order of candidates of label 0 that no other label comes between: in a list of few positives these
are put in their places, and the others between them as they come.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from fastloss_kernels.jit import compile_cpu, formula

# A list of so many candidates is sorted by counting the higher scores of each: 625 comparisons of 25 candidates, four
# or more at a time, take less time than the wrong guesses of a sort that branches.
MOST_COUNTED = 32
# Counts are made over a multiple of so many scores, which is what a vector loop takes in one step.
_STEP = 16
# A part of a list that is so much smaller than the list was badly cut.
_BADLY_CUT = 8

# A list of at most so many positives and candidates is put in order by its positives: each is compared with all.
MOST_POSITIVES = 32
MOST_PLACED = 4096
# Where more than one of so many is a positive, sorting takes less time.
_FEW = 4


@formula
def is_before(x: float, second: float, third: float, x0: float, second0: float, third0: float) -> bool:
    """Tell whether a candidate stands strictly before another, both given by three keys that descend."""
    return (x > x0) | ((x == x0) & ((second > second0) | ((second == second0) & (third > third0))))


@formula
def swap(a, b, c, i, j):
    """Swap two candidates."""
    a[i], a[j] = a[j], a[i]
    b[i], b[j] = b[j], b[i]
    if c.shape[0] > 0:
        c[i], c[j] = c[j], c[i]


@formula
def third_of(c, i) -> float:
    """Return the third key of a candidate, 0 where there is none."""
    return c[i] if c.shape[0] > 0 else 0.0


@formula
def sort_by_counting(a, b, c, low, high, kept, taken):
    """Sort at most `MOST_COUNTED` candidates from `low` up to `high`.

    `kept` float64 ``(3, MOST_COUNTED)`` and `taken` int64 ``(MOST_COUNTED,)`` are scratch.
    """
    n = high - low
    has_third = c.shape[0] > 0
    scores = kept[0]
    for i in range(n):
        scores[i] = a[low + i]
        kept[1, i] = b[low + i]
        taken[i] = 0
    if has_third:
        for i in range(n):
            kept[2, i] = c[low + i]
    padded = -(-n // _STEP) * _STEP
    for i in range(n, padded):
        scores[i] = -np.inf
    tied = 0
    for i in range(n):
        x = scores[i]
        place = 0
        for j in range(padded):
            place += 1 if scores[j] > x else 0
        # Those of equal scores stand one after the other.
        before = taken[place]
        taken[place] = before + 1
        tied |= before
        place += low + before
        a[place] = x
        b[place] = kept[1, i]
        if has_third:
            c[place] = kept[2, i]
    if tied > 0:
        for i in range(low + 1, high):
            j = i
            x, second, third = a[i], b[i], third_of(c, i)
            while j > low and is_before(x, second, third, a[j - 1], b[j - 1], third_of(c, j - 1)):
                swap(a, b, c, j, j - 1)
                j -= 1


@formula
def sink(a, b, c, low, root, n):
    """Let a candidate sink in a heap whose root is the last in order."""
    while 2 * root + 1 < n:
        child = 2 * root + 1
        i, j = low + child, low + child + 1
        if child + 1 < n and is_before(a[i], b[i], third_of(c, i), a[j], b[j], third_of(c, j)):
            child += 1
        i, j = low + root, low + child
        if not is_before(a[i], b[i], third_of(c, i), a[j], b[j], third_of(c, j)):
            break
        swap(a, b, c, i, j)
        root = child


@formula
def sort_by_heap(a, b, c, low, high):
    """Sort candidates where they are, in a time that no order of them makes longer."""
    n = high - low
    for i in range(2 * n - 1):
        building = i < n
        root = n - 1 - i if building else 0
        size = n if building else 2 * n - 1 - i
        if not building:
            swap(a, b, c, low, low + size)
        sink(a, b, c, low, root, size)


@formula
def move_median_to_front(a, b, c, low, high):
    """Swap the median of three candidates to the front of a part.

    They stand at fractions of it that no usual order of scores is made of, such as rising and falling ones.
    """
    i, j, k = (
        low + (high - low) * 2069 // 16384,
        low + (high - low) * 9461 // 16384,
        low + (high - low) * 14407 // 16384,
    )
    first = is_before(a[i], b[i], third_of(c, i), a[j], b[j], third_of(c, j))
    second = is_before(a[j], b[j], third_of(c, j), a[k], b[k], third_of(c, k))
    ends = is_before(a[i], b[i], third_of(c, i), a[k], b[k], third_of(c, k))
    # The middle one stands before one of the others and not before the other.
    median = j if first == second else (k if first == ends else i)
    swap(a, b, c, low, median)


@formula
def cut(a, b, c, low, high, through_equal):
    """Put the candidates before the one at the front to the left, and return where they end.

    Of `through_equal`, those that are equal to it go to the left as well. No branch depends on the data.
    """
    x, second, third = a[low], b[low], third_of(c, low)
    end = low + 1
    for j in range(low + 1, high):
        y, second_y, third_y = a[j], b[j], third_of(c, j)
        swap(a, b, c, end, j)
        goes = is_before(y, second_y, third_y, x, second, third)
        stays = is_before(x, second, third, y, second_y, third_y)
        end += (not stays) if through_equal else goes
    return end


@formula
def sort_candidates(a, b, c, low, high, kept, taken, parts):
    """Sort candidates from `low` up to `high` by three keys that descend; without a third one `c` is empty.

    `parts` int64 ``(64, 3)`` is scratch beside that of `sort_by_counting`: what is still to be sorted, and how often
    it may be badly cut.
    """
    n_parts = 0
    allowed = 4
    n = high - low
    while n > 1:
        allowed += 2
        n >>= 1
    while True:
        if high - low <= MOST_COUNTED:
            sort_by_counting(a, b, c, low, high, kept, taken)
        elif allowed == 0:
            sort_by_heap(a, b, c, low, high)
        else:
            move_median_to_front(a, b, c, low, high)
            end = cut(a, b, c, low, high, False)
            if end == low + 1:
                # None stands before it; many may be equal.
                low = cut(a, b, c, low, high, True)
                allowed -= high - low > (high - end) - (high - end) // _BADLY_CUT
                continue
            middle = end - 1
            swap(a, b, c, low, middle)
            left, right = middle - low, high - end
            allowed -= min(left, right) < (high - low) // _BADLY_CUT
            # The longer part waits, so that few ever do.
            parts[n_parts, 0] = end if left < right else low
            parts[n_parts, 1] = high if left < right else middle
            parts[n_parts, 2] = allowed
            n_parts += 1
            low, high = (low, middle) if left < right else (end, high)
            continue
        if n_parts == 0:
            break
        n_parts -= 1
        low, high, allowed = parts[n_parts, 0], parts[n_parts, 1], parts[n_parts, 2]


@formula
def place_by_positives(score, label, n_positive, score_out, label_out, positives, above, free):
    """Write a list in the order of its positives; return False where it is not: one is tied, or its label not whole.

    All labels but those of `n_positive` candidates are 0. With labels that are not whole, sums may be rounded, and
    depend on which candidates stand side by side. `positives` float64 ``(2, MOST_POSITIVES + 1)``, `above` int64
    ``(MOST_PLACED,)`` and `free` int64 ``(MOST_POSITIVES + 1,)`` are scratch.
    """
    n = score.shape[0]
    found = 0
    for j in range(n):
        # What is not a positive is written over.
        positives[0, found] = score[j]
        positives[1, found] = label[j]
        found += 1 if label[j] > 0.0 else 0
        above[j] = 0
    for i in range(1, n_positive):
        x, y = positives[0, i], positives[1, i]
        j = i
        while j > 0 and positives[0, j - 1] < x:
            positives[0, j] = positives[0, j - 1]
            positives[1, j] = positives[1, j - 1]
            j -= 1
        positives[0, j] = x
        positives[1, j] = y
    refused = 0
    free[0] = 0
    for i in range(n_positive):
        x = positives[0, i]
        lower = 0
        not_higher = 0
        for j in range(n):
            is_lower = 1 if score[j] < x else 0
            above[j] += is_lower
            lower += is_lower
            not_higher += 1 if score[j] <= x else 0
        # One is the positive itself.
        refused += 1 if not_higher - lower > 1 or positives[1, i] != np.floor(positives[1, i]) else 0
        place = n - not_higher
        free[i + 1] = place + 1
        score_out[place] = x + 0.0
        label_out[place] = positives[1, i]
    if refused == 0:
        for j in range(n):
            if not label[j] > 0.0:
                place = free[above[j]]
                free[above[j]] = place + 1
                score_out[place] = score[j] + 0.0
                label_out[place] = 0.0
    return refused == 0


@functools.cache
def make_rank(extra_key: int) -> Callable[..., None]:
    """Make ``rank(score, score_offsets, label, label_offsets, extra, lowest, sign, strict, …_out)``.

    The outputs are ``offsets_out, score_out, label_out, extra_out``: lists one after the other, without candidates
    whose score is below `lowest` or NaN, in the order of their scores, the highest first. Those of equal scores stand
    in the order of `sign` times their labels, the highest first. A list whose numbers of scores and labels differ is
    empty. Candidates of label 0 that no other label comes between may stay in their own order, as may a list whose
    labels are all the same and not above 0: no metric of labels depends on it.

    Parameters
    ----------
    extra_key : {0, 1, 2}
        Whether `extra`, float64 as long as `score`, is carried along, and decides between candidates of equal scores
        before their labels do (1) or after them (2). Of 0 it is empty, and so is `extra_out`.

    Notes
    -----
    With `strict`, scores become −1, −2 and so on in each list, so that none are equal any more.
    """

    def rank(
        score,
        score_offsets,
        label,
        label_offsets,
        extra,
        lowest,
        sign,
        strict,
        offsets_out,
        score_out,
        label_out,
        extra_out,
    ):
        kept = np.empty((3, MOST_COUNTED))
        taken = np.empty(MOST_COUNTED, dtype=np.int64)
        parts = np.empty((64, 3), dtype=np.int64)
        positives = np.empty((2, MOST_POSITIVES + 1))
        above = np.empty(MOST_PLACED, dtype=np.int64)
        free = np.empty(MOST_POSITIVES + 1, dtype=np.int64)
        end = 0
        offsets_out[0] = 0
        for k in range(score_offsets.shape[0] - 1):
            start, n = score_offsets[k], score_offsets[k + 1] - score_offsets[k]
            low = end
            first_label = label_offsets[k]
            placed = label_offsets[k + 1] - first_label == n and n <= MOST_PLACED and extra_key == 0
            if placed:
                here = 0
                zero = 0
                n_positive = 0
                for j in range(n):
                    y = label[first_label + j]
                    here += 1 if score[start + j] >= lowest else 0
                    zero += 1 if y == 0.0 else 0
                    n_positive += 1 if y > 0.0 else 0
                few = 0 < n_positive <= MOST_POSITIVES and _FEW * n_positive <= n
                placed = few and here == n and zero + n_positive == n
                if placed:
                    stop = low + n
                    placed = place_by_positives(
                        score[start : start + n],
                        label[first_label : first_label + n],
                        n_positive,
                        score_out[low:stop],
                        label_out[low:stop],
                        positives,
                        above,
                        free,
                    )
            if placed:
                end = low + n
                if strict:
                    for j in range(low, end):
                        score_out[j] = low - j - 1.0
            elif label_offsets[k + 1] - first_label == n:
                positive = False
                different = False
                for j in range(n):
                    x, y = score[start + j], label[first_label + j]
                    # −0 becomes 0.
                    score_out[end] = x + 0.0
                    label_out[end] = sign * y
                    if extra_key > 0:
                        extra_out[end] = extra[start + j]
                    here = x >= lowest
                    end += 1 if here else 0
                    positive |= here & (y > 0.0)
                    different |= y != label[first_label]
                if positive or different:
                    if extra_key == 1:
                        sort_candidates(score_out, extra_out, label_out, low, end, kept, taken, parts)
                    else:
                        sort_candidates(score_out, label_out, extra_out, low, end, kept, taken, parts)
                    if strict:
                        for j in range(low, end):
                            score_out[j] = low - j - 1.0
                    if sign < 0.0:
                        for j in range(low, end):
                            label_out[j] = -label_out[j]
            offsets_out[k + 1] = end

    return compile_cpu(rank)
