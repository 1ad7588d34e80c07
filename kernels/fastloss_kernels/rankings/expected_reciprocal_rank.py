"""Expected reciprocal rank (ERR): where a reader who is satisfied by what is relevant stops reading."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.domain import SATURATION_EPSILON, Interval
from fastloss_kernels.double_double import divide_parts, multiply_parts, product_parts, two_sum
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.auc import add_parts
from fastloss_kernels.listwise.ndcg import exp2_gain
from fastloss_kernels.listwise.ranked import end_of_ties, whole_rank
from fastloss_kernels.rankings.base import RankingAtK

# The time of a tie grows with its length times k.
_MOST_K = 1000
_MOST_GRADE = 1000


@formula
def stopping_parts(y: float, scale: float) -> tuple[float, float, float, float]:
    """Compute the probability (2^y − 1)·scale that a candidate satisfies, and 1 less it, each as hi + lo."""
    hi, lo = exp2_gain(y)
    stop = hi * scale
    stop_lo = lo * scale
    go, lost = two_sum(1.0, -stop)
    go, go_lo = two_sum(go, lost - stop_lo)
    return stop, stop_lo, go, go_lo


@formula
def add_tied(stop: float, stop_lo: float, go: float, go_lo: float, i: int, n_ranks: int, scratch) -> None:
    """Take the i-th of some tied candidates into what is known of i − 1 of them; the first rows of scratch hold it.

    Let e(j) be the mean over all j of them that all of these j do not satisfy, and d(j) that over j and one more, that
    this one does and they do not. A new one is not among them, is the one that satisfies, or is one of the j:
    i·e(j) becomes (i − j)·e(j) + j·go·e(j − 1), and i·d(j) becomes (i − j − 1)·d(j) + stop·e(j) + j·go·d(j − 1). All
    terms are positive, so that nothing cancels.
    """
    inverse, inverse_lo = divide_parts(1.0, 0.0, float(i), 0.0)
    for back in range(min(i, n_ranks - 1) + 1):
        j = min(i, n_ranks - 1) - back
        e = float(scratch[0, j])
        e_lo = float(scratch[1, j])
        d, d_lo = multiply_parts(float(i - j - 1), float(scratch[2, j]), float(scratch[3, j]))
        part, part_lo = product_parts(stop, stop_lo, e, e_lo)
        d, d_lo = add_parts(d, d_lo, part, part_lo)
        e, e_lo = multiply_parts(float(i - j), e, e_lo)
        if j > 0:
            weight, weight_lo = multiply_parts(float(j), go, go_lo)
            part, part_lo = product_parts(weight, weight_lo, float(scratch[2, j - 1]), float(scratch[3, j - 1]))
            d, d_lo = add_parts(d, d_lo, part, part_lo)
            part, part_lo = product_parts(weight, weight_lo, float(scratch[0, j - 1]), float(scratch[1, j - 1]))
            e, e_lo = add_parts(e, e_lo, part, part_lo)
        scratch[0, j], scratch[1, j] = product_parts(e, e_lo, inverse, inverse_lo)
        scratch[2, j], scratch[3, j] = product_parts(d, d_lo, inverse, inverse_lo)


@formula
def expected_reciprocal_rank(score, label, n_positive, parameters, scratch) -> float:
    """Compute Σ 1/rank of the probability to stop there, the mean over every order of tied candidates."""
    last_rank = whole_rank(float(parameters[1]), score.shape[0])
    scale = float(parameters[2])
    total = 0.0
    total_lo = 0.0
    reading = 1.0
    reading_lo = 0.0
    start = 0
    while start < last_rank:
        end = end_of_ties(score, start)
        if label[start] > 0.0:
            # Labels of equal scores descend: nobody stops at those that are not relevant.
            n_ranks = min(end, last_rank) - start
            for j in range(n_ranks):
                scratch[0, j] = 1.0 if j == 0 else 0.0
                scratch[1, j] = 0.0
                scratch[2, j] = 0.0
                scratch[3, j] = 0.0
            after = reading
            after_lo = reading_lo
            for i in range(start, end):
                stop, stop_lo, go, go_lo = stopping_parts(float(label[i]), scale)
                add_tied(stop, stop_lo, go, go_lo, i - start + 1, n_ranks, scratch)
                after, after_lo = product_parts(after, after_lo, go, go_lo)
            for j in range(n_ranks):
                part, part_lo = divide_parts(float(scratch[2, j]), float(scratch[3, j]), float(start + 1 + j), 0.0)
                part, part_lo = product_parts(reading, reading_lo, part, part_lo)
                total, total_lo = add_parts(total, total_lo, part, part_lo)
            reading = after
            reading_lo = after_lo
        start = end
    return total + total_lo


@dataclass(frozen=True)
class ExpectedReciprocalRank(RankingAtK):
    """The mean 1/rank at which a reader stops, who goes down the list and stops at y with probability (2^y − 1)/2^max.

    Parameters
    ----------
    k : int
        The last rank that counts, at most 1000.
    max_label : int
        The highest grade.
    """

    k: int | None = 20
    max_label: int = 4

    name: ClassVar[str] = "err"
    aliases: ClassVar[tuple[str, ...]] = ("expected_reciprocal_rank",)
    n_scratch: ClassVar[int] = 4
    ranges = {"k": Interval(1, _MOST_K), "max_label": Interval(1, _MOST_GRADE)}
    ranking = staticmethod(expected_reciprocal_rank)
    definition = (
        "Σ over ranks up to k of 1/rank · R · Π over those above of (1 − R), R = (2^y − 1)/2^max_label; "
        "ties are averaged over every order"
    )
    source = "Chapelle, Metzler, Zhang and Grinspan, Expected reciprocal rank for graded relevance, CIKM 2009"

    def __post_init__(self) -> None:
        """Check that there is a last rank, and that the highest grade is whole."""
        if self.k is None:
            raise ValueError(f"{self.name}: k is None; allowed: a whole number from 1 to {_MOST_K}.")
        if isinstance(self.max_label, bool) or not isinstance(self.max_label, int):
            raise ValueError(f"{self.name}: max_label is {self.max_label!r}; allowed: a whole number.")
        super().__post_init__()

    @property
    def label_range(self) -> Interval:  # type: ignore[override]
        """The grades, from 0 up to the highest."""
        return Interval(0.0, float(self.max_label))

    def parameters(self, space: str, epsilon: float = SATURATION_EPSILON) -> tuple[float, ...]:
        """Return what the formula reads: the last rank that counts, and 2^−max_label."""
        return (*super().parameters(space, epsilon), 2.0**-self.max_label)
