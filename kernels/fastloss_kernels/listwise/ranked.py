"""Building blocks of formulas that read a list in the order of its scores, the highest first."""

from __future__ import annotations

from fastloss_kernels.jit import formula


@formula
def end_of_ties(score, start: int) -> int:
    """Return where the candidates end that have the score of one."""
    end = start + 1
    while end < score.shape[0] and score[end] == score[start]:
        end += 1
    return end


@formula
def positives_among(label, start: int, end: int) -> int:
    """Return how many of some candidates of equal scores, whose labels descend, have a label above 0."""
    found = start
    while found < end and label[found] > 0.0:
        found += 1
    return found - start


@formula
def whole_rank(last_rank: float, n: int) -> int:
    """Return the last rank that counts in a list of `n` candidates."""
    found = n
    if last_rank < n:
        found = int(last_rank)
    return found
