"""XAUC: the share of pairs of candidates that stand in the order of their labels, for labels that are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.ranked import end_of_ties
from fastloss_kernels.rankings.base import PairRanking


@formula
def pairs_of_equal(label, start: int, end: int) -> int:
    """Return the number of pairs of equal labels among some that descend."""
    pairs = 0
    run = start
    for j in range(start, end):
        if label[j] != label[run]:
            run = j
        pairs += j - run
    return pairs


@formula
def sort_counting(label, here, there) -> int:
    """Sort labels down into `here`, by merging, and return how many pairs of them stood in the other order."""
    n = label.shape[0]
    for j in range(n):
        here[j] = label[j]
    inverted = 0
    width = 1
    while width < n:
        for low in range(0, n, 2 * width):
            middle = min(low + width, n)
            high = min(low + 2 * width, n)
            left = low
            right = middle
            for place in range(low, high):
                take_right = right < high and (left >= middle or here[right] > here[left])
                if take_right:
                    there[place] = here[right]
                    inverted += middle - left
                    right += 1
                else:
                    there[place] = here[left]
                    left += 1
        for j in range(n):
            here[j] = there[j]
        width *= 2
    return inverted


@formula
def xauc(score, label, n_positive, parameters, scratch) -> float:
    """Compute the share of pairs of different labels whose scores have their order, ties counting ½; NaN without one.

    Candidates of equal scores stand from the highest label down, so that what is inverted has different scores.
    """
    n = score.shape[0]
    tied = 0
    start = 0
    while start < n:
        end = end_of_ties(score, start)
        tied += (end - start) * (end - start - 1) // 2 - pairs_of_equal(label, start, end)
        start = end
    inverted = sort_counting(label, scratch[0], scratch[1])
    pairs = n * (n - 1) // 2 - pairs_of_equal(scratch[0], 0, n)
    if pairs == 0:
        return float("nan")
    value, value_lo = divide_parts(float(2 * (pairs - inverted) - tied), 0.0, float(2 * pairs), 0.0)
    return value + value_lo


@dataclass(frozen=True)
class Xauc(PairRanking):
    """The share of pairs of candidates with different labels whose scores have their order, ties counting ½."""

    name: ClassVar[str] = "xauc"
    aliases: ClassVar[tuple[str, ...]] = ("rauc",)
    n_scratch: ClassVar[int] = 2
    ranking = staticmethod(xauc)
    definition = "share of the pairs with different y whose scores are in the order of y, ½ in a tie, within each list"
    source = "Zhan et al., Deconfounding duration bias in watch-time prediction for video recommendation, KDD 2022"

    @property
    def needs(self) -> str:
        """Two different labels, unless lists without them have a value."""
        return self._needs("pair")
