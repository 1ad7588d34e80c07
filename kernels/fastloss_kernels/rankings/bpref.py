"""Binary preference (bpref): how many judged irrelevant candidates stand above the relevant ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fastloss_kernels.double_double import divide_parts, multiply_parts
from fastloss_kernels.jit import formula
from fastloss_kernels.listwise.auc import add_parts
from fastloss_kernels.listwise.ranked import end_of_ties, positives_among
from fastloss_kernels.rankings.base import Ranking


@formula
def bpref(score, label, n_positive, parameters, scratch) -> float:
    """Compute 1/R·Σ (1 − min(above, most)/most) over R relevant candidates, most = min(R, irrelevant candidates).

    Of n irrelevant candidates that are tied with a relevant one, each number from 0 to n is above it equally often.
    With A above all of them, and room = most − A, Σ max(room − i, 0) over i from 0 to n is whole.
    """
    n = score.shape[0]
    most = min(n_positive, n - n_positive)
    if most == 0:
        # Nothing irrelevant stands above.
        return 1.0
    total = 0.0
    total_lo = 0.0
    n_above = 0
    start = 0
    while start < n and n_above < most:
        end = end_of_ties(score, start)
        n_relevant = positives_among(label, start, end)
        n_others = end - start - n_relevant
        if n_relevant > 0:
            room = most - n_above
            last = min(n_others, room)
            left = (last + 1) * room - last * (last + 1) // 2
            part, part_lo = multiply_parts(float(n_relevant), float(left), 0.0)
            part, part_lo = divide_parts(part, part_lo, float(n_others + 1), 0.0)
            total, total_lo = add_parts(total, total_lo, part, part_lo)
        n_above += n_others
        start = end
    total, total_lo = divide_parts(total, total_lo, float(n_positive) * float(most), 0.0)
    return total + total_lo


@dataclass(frozen=True)
class Bpref(Ranking):
    """The share of relevant candidates with no irrelevant one above, each less what stands above it.

    A candidate is relevant if its label is above 0, and irrelevant if it is 0 or below; one that nobody judged has a
    null label, and no part in it.
    """

    name: ClassVar[str] = "bpref"
    aliases: ClassVar[tuple[str, ...]] = ("binary_preference",)
    ranking = staticmethod(bpref)
    definition = (
        "1/R·Σ over the R candidates with y > 0 of 1 − min(n, N)/N, n candidates with y ≤ 0 above it, "
        "N = min(R, all of these); ties are averaged over every order"
    )
    source = (
        "Buckley and Voorhees, Retrieval evaluation with incomplete information, SIGIR 2004, as trec_eval computes it"
    )
